// Where things are; each can be moved by an environment variable.

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const { env } = process;
export const HERE = fileURLToPath(new URL('..', import.meta.url));
export const ROOT = join(HERE, '..', '..');
export const OUT = env.WEIR_TEST_OUT ?? join(ROOT, 'tests', '.out', 'clients');
export const WEIR = env.WEIR_BIN ?? join(env.CARGO_TARGET_DIR ?? join(ROOT, 'target'), 'debug', 'weir');
export const LOADTEST = env.WEIR_LOADTEST_BIN ?? join(dirname(WEIR), 'weir-loadtest');
export const PYTHON = env.WEIR_TEST_PYTHON ?? join(ROOT, 'tests', '.cache', 'venv', 'bin', 'python');
export const SYNAPSE = env.WEIR_TEST_SYNAPSE ?? join(ROOT, 'tests', '.cache', 'venv-synapse', 'bin', 'python');
export const CHROMIUM = env.WEIR_TEST_CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/google-chrome'].find((path) => existsSync(path));
export const FIREFOX = env.WEIR_TEST_FIREFOX ?? ['/usr/bin/firefox-esr', '/usr/bin/firefox'].find((path) => existsSync(path));
