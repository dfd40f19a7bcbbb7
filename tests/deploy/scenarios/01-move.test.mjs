// Two weirs behind the nginx of deploy/proxies: one ends, its calls go on in the other.

import assert from 'node:assert/strict';
import { allSeeAndHear } from '../../clients/lib/judge.mjs';
import { passphrase } from '../../clients/lib/keys.mjs';
import { scenario, withoutWeir } from '../../clients/lib/stage.mjs';
import { NotYet, until } from '../../clients/lib/until.mjs';
import { Weir } from '../../clients/lib/weir.mjs';
import { inFront, watchGap } from '../lib/front.mjs';

withoutWeir();

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
