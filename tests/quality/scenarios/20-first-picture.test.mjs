// On a good network: how soon a new viewer has a picture, and how soon a tile made large is sharp.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sees, trackOf } from '../../clients/lib/judge.mjs';
import { OUT } from '../../clients/lib/paths.mjs';
import { scenario, withWeir } from '../../clients/lib/stage.mjs';
import { NotYet, until } from '../../clients/lib/until.mjs';

withWeir({ level: 'info' });

const LAYERS = [{ width: 320, height: 180, bitrate: 150_000 }, { width: 640, height: 360, bitrate: 400_000 }];
const ROUNDS = process.env.WEIR_QUALITY_FULL ? 20 : 6;
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const round = (values) => values.map((value) => Math.round(value));

scenario('a new viewer has a picture soon, and a large tile is sharp soon', 120, async (stage) => {
  const anna = await stage.join('chromium', 'anna');
  await anna.publishCamera({ width: 1280, height: 720, fps: 15, layers: LAYERS });
  const ben = await stage.join('chromium', 'ben', { adaptiveStream: true });
  await sees(ben, anna);
  const who = { identity: anna.identity };
  const first = [];
  const sharp = [];
  for (let n = 0; n < ROUNDS; n++) first.push(await ben.firstPicture(who));
  for (let n = 0; n < ROUNDS; n++) {
    await ben.resize({ ...who, width: 160, height: 90 });
    await until('it is small', 10_000, async () => {
      const { width } = await trackOf(ben, anna, 'camera');
      if (width !== 320) throw new NotYet(`${width} px`);
      return true;
    });
    sharp.push(await ben.sharpAfter({ ...who, width: 1280, height: 720 }));
  }
  console.log(`# first picture after ${median(first).toFixed(0)} ms at the median (${round(first)}), sharp after ${median(sharp).toFixed(0)} ms (${round(sharp)})`);
  mkdirSync(OUT, { recursive: true });
  writeFileSync(join(OUT, 'first-picture.json'), JSON.stringify({ first: round(first), sharp: round(sharp) }));
  // Twice what they should be, on a machine that does other things as well.
  assert.ok(median(first) <= 1000, `first pictures after ${round(first)} ms`);
  assert.ok(median(sharp) <= 2000, `sharp after ${round(sharp)} ms`);
});
