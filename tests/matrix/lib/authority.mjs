// A certificate authority of a test, and a certificate for localhost: homeservers speak to each other over TLS only.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT, SYNAPSE } from '../../clients/lib/paths.mjs';

/** Paths of its certificate, and of certificate and key of localhost. */
export function authority() {
  const folder = mkdtempSync(join(tmpdir(), 'weir-authority-'));
  execFileSync(SYNAPSE, [join(ROOT, 'deploy', 'demo', 'authority.py'), folder]);
  const [file, certificate, key] = ['ca.pem', 'cert.pem', 'key.pem'].map((name) => join(folder, name));
  return { file, certificate, key, close: () => rmSync(folder, { recursive: true, force: true }) };
}
