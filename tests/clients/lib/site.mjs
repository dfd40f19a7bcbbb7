// Serves the test page: bundled once, over plain HTTP on loopback (a secure context for browsers).

import esbuild from 'esbuild';
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { HERE } from './paths.mjs';

async function bundle(entry, format, sdk) {
  const built = await esbuild.build({
    entryPoints: [entry === WORKER ? `${sdk}/e2ee-worker` : entry],
    alias: sdk === NEWEST ? {} : { [NEWEST]: sdk },
    absWorkingDir: HERE,
    bundle: true,
    write: false,
    format,
    target: 'es2022',
    logLevel: 'warning',
  });
  return built.outputFiles[0].text;
}

const NEWEST = 'livekit-client';
const WORKER = 'e2ee-worker';
const bundles = new Map(); // "sdk/file" -> promise of its text

function bundled(sdk, file) {
  const key = `${sdk}/${file}`;
  if (!bundles.has(key)) bundles.set(key, file === 'app.js' ? bundle('page/app.js', 'iife', sdk) : bundle(WORKER, 'esm', sdk));
  return bundles.get(key);
}

async function answer(path) {
  // "/" and "/livekit-client-2.5/": the page on the SDK that npm installed under this name.
  const [, sdk = NEWEST, file] = /^\/(?:(livekit-client-[\d.]+)\/)?(.*)$/.exec(path);
  if (file === '') return ['text/html', readFileSync(join(HERE, 'page', 'index.html'))];
  if (file === 'app.js' || file === 'e2ee-worker.js') return ['text/javascript', await bundled(sdk, file)];
  if (file === 'favicon.ico') return ['image/x-icon', ''];
  return null;
}

let running;

/** The base URL of the page; the server lives as long as the process. */
export function site() {
  running ??= (async () => {
    const server = createServer(async (request, response) => {
      try {
        const found = await answer(new URL(request.url, 'http://localhost').pathname);
        if (!found) return response.writeHead(404).end();
        response.writeHead(200, { 'content-type': found[0], 'cache-control': 'no-store' }).end(found[1]);
      } catch (error) {
        response.writeHead(500).end(String(error.stack));
      }
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    server.unref();
    return `http://localhost:${server.address().port}/`;
  })();
  return running;
}
