// Two weirs behind the nginx of deploy/proxies: one ends, its calls go on in the other.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { allSeeAndHear, trackOf } from '../../clients/lib/judge.mjs';
import { passphrase } from '../../clients/lib/keys.mjs';
import { ROOT } from '../../clients/lib/paths.mjs';
import { scenario, withoutWeir } from '../../clients/lib/stage.mjs';
import { NotYet, sleep, until } from '../../clients/lib/until.mjs';
import { Weir, freeTcpPort } from '../../clients/lib/weir.mjs';

const NGINX = join(process.env.WEIR_TEST_TOOLS ?? join(ROOT, 'tests', '.cache', 'deploy'), 'usr', 'sbin', 'nginx');

withoutWeir();

/** nginx with the operator's own file, without TLS, in front of two weirs of which the second is the backup. */
async function inFront(first, second) {
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
function watchGap(viewer, sender) {
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

async function callThatMoves(stage, end) {
  const first = await Weir.start();
  const second = await Weir.start({ like: first });
  stage.weir = first;
  const proxy = await inFront(first, second);
  for (const it of [first, second]) stage.keep({ close: () => it.stop() });
  stage.others = [second];
  stage.keep(proxy);
  const e2ee = passphrase();
  const join = (kind, name, number) => stage.join(kind, name, { url: proxy.url, e2ee, number });
  const everybody = [await join('chromium', 'anna', 1), await join('chromium', 'ben', 2)];
  await Promise.all(everybody.map(async (who) => [await who.publishCamera(), await who.publishMicrophone()]));
  await allSeeAndHear(everybody, 40_000);
  const [anna, ben] = everybody;
  const watches = [watchGap(anna, ben), watchGap(ben, anna)];
  for (const watch of watches) stage.keep({ close: () => watch.stop() });
  const since = Date.now();
  await end(first);
  await until('both are in the other weir', 40_000, async () => {
    const answer = await fetch(`http://127.0.0.1:${second.httpPort}/`);
    assert.ok(answer.ok);
    const inside = (second.log().match(/participant joined/g) ?? []).length;
    if (inside < 2) throw new NotYet(`${inside} are`);
    return true;
  }, 50);
  const back = Date.now() - since;
  await allSeeAndHear(everybody, 40_000);
  const gaps = await Promise.all(watches.map((watch) => watch.stop()));
  console.log(`# both were in the other weir after ${back} ms; longest time without media ${gaps.join(' and ')} ms`);
  // A quiet machine needs a tenth of it; this one may be busy with other tests.
  for (const gap of gaps) assert.ok(gap < 15_000, `${gap} ms without media`);
}

scenario('SIGTERM: the call goes on in the other weir, and the first one ends', 150, async (stage) => {
  await callThatMoves(stage, async (weir) => {
    assert.deepEqual(await weir.end('SIGTERM', 15_000), { code: 0, signal: null });
  });
});

scenario('kill -9: the call goes on in the other weir', 150, async (stage) => {
  await callThatMoves(stage, (weir) => weir.end('SIGKILL', 5000));
});
