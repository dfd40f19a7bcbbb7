// Serves the test page: bundled once, over plain HTTP on loopback (a secure context for browsers).

import esbuild from 'esbuild';
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { HERE } from './paths.mjs';

async function bundle(entry, format) {
  const built = await esbuild.build({
    entryPoints: [entry],
    absWorkingDir: HERE,
    bundle: true,
    write: false,
    format,
    target: 'es2022',
    logLevel: 'warning',
  });
  return built.outputFiles[0].text;
}

let running;

/** The base URL of the page; the server lives as long as the process. */
export function site() {
  running ??= (async () => {
    const files = {
      '/': ['text/html', readFileSync(join(HERE, 'page', 'index.html'))],
      '/app.js': ['text/javascript', await bundle('page/app.js', 'iife')],
      '/e2ee-worker.js': ['text/javascript', await bundle('livekit-client/e2ee-worker', 'esm')],
      '/favicon.ico': ['image/x-icon', ''],
    };
    const server = createServer((request, response) => {
      const [type, body] = files[new URL(request.url, 'http://localhost').pathname] ?? [];
      if (!type) return response.writeHead(404).end();
      response.writeHead(200, { 'content-type': type, 'cache-control': 'no-store' }).end(body);
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    server.unref();
    return `http://localhost:${server.address().port}/`;
  })();
  return running;
}
