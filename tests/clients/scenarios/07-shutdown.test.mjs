// The server goes, and comes back.

import assert from 'node:assert/strict';
import { noticed, sees } from '../lib/judge.mjs';
import { passphrase } from '../lib/keys.mjs';
import { scenario, withWeir } from '../lib/stage.mjs';
import { NotYet, until } from '../lib/until.mjs';

withWeir();

scenario('SIGTERM: sessions are told to reconnect, the exit is clean, the next process takes them back', 90, async (stage) => {
  const e2ee = passphrase();
  const everybody = await Promise.all([
    stage.join('chromium', 'anna', { e2ee, number: 1 }),
    stage.join('firefox', 'ben', { e2ee, number: 2 }),
    stage.join('python', 'carl', { e2ee, number: 3 }),
  ]);
  await Promise.all(everybody.map((who) => who.publishCamera()));
  await Promise.all(everybody.map((who, at) => sees(who, everybody[(at + 1) % 3], { limitMs: 30_000 })));
  const since = Date.now();
  const ended = await stage.weir.end('SIGTERM', 10_000);
  assert.deepEqual(ended, { code: 0, signal: null });
  console.log(`# the process was gone after ${Date.now() - since} ms`);
  await Promise.all(everybody.map((who) => noticed(who, 'reconnecting', () => true, since, 5000)));
  await stage.weir.launch();
  await until('all are back', 40_000, async () => {
    const looks = await Promise.all(everybody.map((who) => who.look()));
    const states = looks.map(({ state, participants }) => `${state}+${Object.keys(participants).length}`);
    if (states.some((state) => state !== 'connected+2')) throw new NotYet(states.join(' '));
    return true;
  }, 300);
  await Promise.all(everybody.map((who, at) => sees(who, everybody[(at + 1) % 3], { limitMs: 20_000 })));
});
