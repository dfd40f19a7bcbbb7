// A script with everything it imports from npm, for pages of tests that live elsewhere.

import esbuild from 'esbuild';
import { join } from 'node:path';
import { HERE } from './paths.mjs';

export const MODULES = join(HERE, 'node_modules');

export const bundleInto = (outfile, entry) => esbuild.build({
  entryPoints: [entry], outfile, bundle: true, format: 'esm', target: 'es2022', logLevel: 'error', define: { global: 'window' }, nodePaths: [MODULES],
});
