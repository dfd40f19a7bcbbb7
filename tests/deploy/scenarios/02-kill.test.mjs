// Measures how soon the people of a node that is killed are back on another one. Not part of any list: it says what there
// is to say with WEIR_TEST_KILLS=20 tests/deploy/run 02-kill, and docs/operations.md has it from there.

import assert from 'node:assert/strict';
import { passphrase } from '../../clients/lib/keys.mjs';
import { allSeeAndHear } from '../../clients/lib/judge.mjs';
import { scenario, withoutWeir } from '../../clients/lib/stage.mjs';
import { NotYet, sleep, until } from '../../clients/lib/until.mjs';
import { Weir } from '../../clients/lib/weir.mjs';
import { directory, inFront, watchGap } from '../lib/front.mjs';

const KILLS = Number(process.env.WEIR_TEST_KILLS ?? 0);
/** Each says once a second what it is. */
const KNOWN_MS = 3000;

function spread(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part) => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
  return `median ${at(0.5)}, p90 ${at(0.9)}, p99 ${at(0.99)}, most ${sorted.at(-1)} ms of ${sorted.length}`;
}

const joins = (weir) => (weir.log().match(/participant joined/g) ?? []).length;

async function killed(stage) {
  const engine = await directory();
  stage.keep(engine);
  const node = (name, like) => Weir.start({
    like,
    extra: (it) => `nodes:\n  directory: ["${engine.url}"]\n  name: ${name}\n  address: http://127.0.0.1:${it.httpPort}\n`,
  });
  const first = await node('first');
  const second = await node('second', first);
  const nodes = [first, second];
  stage.weir = first;
  stage.others = [second];
  for (const it of nodes) stage.keep({ close: () => it.stop() });
  const proxy = await inFront(first, second);
  stage.keep(proxy);
  await sleep(KNOWN_MS);
  const e2ee = passphrase();
  const join = (name, number) => stage.join('chromium', name, { url: proxy.url, e2ee, number });
  const everybody = [await join('anna', 1), await join('ben', 2)];
  await Promise.all(everybody.map(async (who) => [await who.publishCamera(), await who.publishMicrophone()]));
  await allSeeAndHear(everybody, 40_000);
  const [anna, ben] = everybody;
  const [back, gaps] = [[], []];
  for (let round = 0; round < KILLS; round += 1) {
    const busy = (await Promise.all(nodes.map(async (it) => (await it.debug()).includes('PA_')))).indexOf(true);
    const [victim, refuge] = busy === 1 ? [second, first] : [first, second];
    const watches = [watchGap(anna, ben), watchGap(ben, anna)];
    const before = joins(refuge);
    const since = Date.now();
    await victim.end('SIGKILL', 5000);
    let there = 0;
    await until('both are on the other node', 40_000, async () => {
      const now = joins(refuge) - before;
      for (; there < now; there += 1) back.push(Date.now() - since);
      if (there < 2) throw new NotYet(`${there} are`);
      return true;
    }, 20);
    await allSeeAndHear(everybody, 40_000);
    gaps.push(...await Promise.all(watches.map((watch) => watch.stop())));
    await victim.launch();
    await sleep(KNOWN_MS);
  }
  console.log(`# back on the other node: ${spread(back)}`);
  console.log(`# without media: ${spread(gaps)}`);
  assert.ok(Math.max(...back) < 20_000);
}

if (KILLS > 0) {
  withoutWeir();
  scenario('kill -9 of one of two nodes with a directory, again and again', 60 + 40 * KILLS, killed);
}
