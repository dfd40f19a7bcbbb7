// The judge itself, on series made up for it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bestSum, concealedOf, figures, gapsOf } from '../lib/figures.mjs';

const COSTS = { voice: 60_000, layers: [170_000, 540_000, 1_800_000] };
const WIDTHS = [240, 480, 960];

test('the best layers are the lowest for all before a higher one for one', () => {
  assert.equal(bestSum(3_000_000, 1, COSTS), 3);
  assert.equal(bestSum(3_000_000, 2, COSTS), 5);
  assert.equal(bestSum(700_000, 2, COSTS), 2);
  assert.equal(bestSum(150_000, 1, COSTS), 0);
});

test('gaps and made-up sound are found', () => {
  assert.deepEqual(gapsOf([[0, 1], [100, 1], [400, 1]], 500), [[100, 400]]);
  assert.deepEqual(concealedOf([[0, 0, 0], [50, 2400, 960], [100, 4800, 1920], [150, 7200, 1920], [200, 9600, 2400]]), [[0, 100, 40], [150, 200, 10]]);
});

test('a drop and a rise are timed', () => {
  const frames = [];
  for (let t = 0; t < 30_000; t += 50) {
    if (t > 10_000 && t < 11_000) continue;
    frames.push([t, t > 10_000 && t < 23_000 ? 240 : 960]);
  }
  const phases = [[0, 10_000, 3e6], [10_000, 20_000, 5e5], [20_000, 30_000, 3e6]].map(([from, to, rate]) => ({ from, to, rate }));
  const sound = Array.from({ length: 600 }, (_, at) => [at * 50, at * 2400, at < 210 ? 0 : 4800]);
  const found = figures({ phases, viewers: [{ frames, sound, stalls: [] }], costs: COSTS, widths: WIDTHS });
  assert.deepEqual([found.drops, found.rises], [[1000], [3000]]);
  assert.deepEqual([found.freezes, found.frozenMs, found.longestConcealmentMs], [1, 1000, 100]);
  assert.ok(found.bestPercent > 80 && found.bestPercent < 90, JSON.stringify(found));
  assert.ok(found.lastFrameAgeMs <= 50);
});
