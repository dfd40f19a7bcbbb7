// What stands in front of several weirs, and watches what people see meanwhile.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { trackOf } from '../../clients/lib/judge.mjs';
import { ROOT } from '../../clients/lib/paths.mjs';
import { NotYet, sleep, until } from '../../clients/lib/until.mjs';
import { freeTcpPort } from '../../clients/lib/weir.mjs';

const TOOLS = join(process.env.WEIR_TEST_TOOLS ?? join(ROOT, 'tests', '.cache', 'deploy'), 'usr', 'sbin');
const NGINX = join(TOOLS, 'nginx');

/** nginx with the operator's own file, without TLS, in front of two weirs of which the second is the backup. */
export async function inFront(first, second) {
  const home = mkdtempSync(join(tmpdir(), 'weir-nginx-'));
  const port = await freeTcpPort();
  const file = readFileSync(join(ROOT, 'deploy', 'proxies', 'nginx.conf'), 'utf8')
    .replace('127.0.0.1:7880 max_fails', `127.0.0.1:${first.httpPort} max_fails`)
    .replace('# server 127.0.0.1:7890', `server 127.0.0.1:${second.httpPort}`)
    .replace('listen 443 ssl', `listen 127.0.0.1:${port}`)
    .replace('/var/log/nginx', home)
    .replace(/ssl_certificate.*;/g, '');
  assert.ok(file.includes(`127.0.0.1:${second.httpPort} max_fails=0 backup`), 'the file has changed: adapt this');
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => {
    mkdirSync(join(home, name));
    return `${name}_temp_path ${join(home, name)};`;
  });
  const main = `daemon off; pid ${home}/pid; error_log ${home}/error.log crit; events {} http { access_log off; ${temp.join(' ')}\n${file}\n}`;
  writeFileSync(join(home, 'nginx.conf'), process.getuid() === 0 ? `user root; ${main}` : main);
  const child = spawn(NGINX, ['-e', 'stderr', '-p', home, '-c', join(home, 'nginx.conf')], { stdio: ['ignore', 'ignore', 'inherit'] });
  await until('nginx answers', 10_000, async () => {
    try {
      return (await fetch(`http://127.0.0.1:${port}/`)).ok;
    } catch (error) {
      throw new NotYet(String(error.cause ?? error));
    }
  }, 50);
  return {
    url: `ws://127.0.0.1:${port}`,
    close() {
      child.once('exit', () => rmSync(home, { recursive: true, force: true }));
      child.kill('SIGTERM');
    },
  };
}

/** Watches how long nothing new of a sender arrives, until told to stop. */
export function watchGap(viewer, sender) {
  let last;
  let since = Date.now();
  let longest = 0;
  let watching = true;
  const look = async () => {
    while (watching) {
      let now;
      try {
        now = await trackOf(viewer, sender, 'camera');
      } catch {
        now = undefined;
      }
      const mark = now && `${now.sid ?? ''} ${now.packets}`;
      if (mark && now.packets > 0 && mark !== last) {
        since = Date.now();
        last = mark;
      }
      longest = Math.max(longest, Date.now() - since);
      await sleep(25);
    }
    return longest;
  };
  const done = look();
  return {
    async stop() {
      watching = false;
      return done;
    },
  };
}

/** A directory of nodes: a nats-server of its own. */
export async function directory() {
  const home = mkdtempSync(join(tmpdir(), 'weir-nats-'));
  const port = await freeTcpPort();
  const child = spawn(join(TOOLS, 'nats-server'), ['-a', '127.0.0.1', '-p', String(port), '-js', '-sd', home], { stdio: 'ignore' });
  return {
    url: `nats://127.0.0.1:${port}`,
    close() {
      child.once('exit', () => rmSync(home, { recursive: true, force: true }));
      child.kill('SIGTERM');
    },
  };
}
