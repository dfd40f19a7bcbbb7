// Serves Element Call as it comes from npm, with a configuration that names the homeserver and its weir.

import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';

const TYPES = {
  '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json', '.wasm': 'application/wasm',
  '.svg': 'image/svg+xml', '.png': 'image/png', '.woff2': 'font/woff2', '.mp3': 'audio/mpeg', '.ogg': 'audio/ogg',
};

function fileOf(dist, path) {
  // Links to a call are /room/#...: assets are asked for below that, and everything else is the page.
  const asset = path.slice(Math.max(path.indexOf('/assets/'), 0));
  for (const name of [path, asset].map((part) => join(dist, normalize(part)))) {
    if (statSync(name, { throwIfNoEntry: false })?.isFile()) return name;
  }
  return join(dist, 'index.html');
}

/** A page that signs a user in as Element Call does itself, then opens the call of a room, below `path`. */
export function door({ user_id, device_id, access_token }, path) {
  const kept = JSON.stringify(JSON.stringify({ user_id, device_id, access_token, passwordlessUser: false }));
  return `<!doctype html><meta charset="utf-8"><title>weir</title>
<script>localStorage.setItem('matrix-auth-store', ${kept}); location.replace(${JSON.stringify(path)});</script>`;
}

/**
 * Listens on loopback. `dist` is the folder of Element Call, `homeserver` and `weir` are base URLs, `pages` are further
 * paths with the HTML behind each, `files` such with a file behind each, `settings` more of Element Call's configuration.
 * Port 0 takes any; the port taken is in the result.
 */
export async function serve({ dist, homeserver, serverName, weir, pages = {}, files = {}, settings = {}, port = 0 }) {
  const config = JSON.stringify({
    default_server_config: { 'm.homeserver': { base_url: homeserver, server_name: serverName } },
    livekit: { livekit_service_url: weir },
    ...settings,
  });
  const server = createServer((request, response) => {
    const send = (type, text) => response.writeHead(200, { 'content-type': type, 'cache-control': 'no-store' }).end(text);
    let path = '/';
    try {
      path = decodeURIComponent(new URL(request.url, 'http://localhost').pathname);
    } catch {
      return response.writeHead(400).end();
    }
    if (path.endsWith('/config.json')) return send('application/json', config);
    if (Object.hasOwn(pages, path)) return send('text/html', pages[path]);
    const file = files[path] ?? fileOf(dist, path);
    response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' });
    return createReadStream(file).pipe(response);
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  return { server, port: server.address().port };
}
