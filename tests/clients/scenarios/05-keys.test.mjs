// The server carries frames and holds no key to them.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { allSeeAndHear, hearsNothing, sees, trackOf } from '../lib/judge.mjs';
import { keysFor, passphrase, secretsOf } from '../lib/keys.mjs';
import { searchMemory } from '../lib/memory.mjs';
import { scenario, withWeir } from '../lib/stage.mjs';
import { NotYet, sleep, until } from '../lib/until.mjs';

// Everything the server would ever write is part of the search.
withWeir({ level: 'trace' });

scenario('who has the wrong key decodes nothing, and everything once the key is right', 60, async (stage) => {
  const right = passphrase();
  const [anna, ben, eve] = await Promise.all([
    stage.join('chromium', 'anna', { e2ee: right, number: 1 }),
    stage.join('firefox', 'ben', { e2ee: right, number: 2 }),
    stage.join('chromium', 'eve', { e2ee: passphrase(), number: 3 }),
  ]);
  await Promise.all([anna.publishCamera(), anna.publishMicrophone()]);
  await sees(ben, anna);
  // Media does reach eve: it is the key that is missing, not the packets.
  await until('eve gets frames', 10_000, async () => {
    const { packets = 0 } = await trackOf(eve, anna, 'camera');
    if (packets < 50) throw new NotYet(`${packets} packets`);
    return true;
  });
  await sleep(3000);
  const camera = await trackOf(eve, anna, 'camera');
  assert.equal(camera.picture, undefined, 'eve must not see the picture');
  assert.equal(camera.framesDecoded ?? 0, 0, 'eve must not decode a frame');
  await hearsNothing(eve, anna);
  await eve.setKeys(right);
  await sees(eve, anna);
});

for (const [how, make] of [['one passphrase', passphrase], ['a key for each', () => keysFor(['anna-1', 'ben-2', 'carl-3'])]]) {
  scenario(`neither memory nor log of the server holds a frame key (${how})`, 90, async (stage) => {
    const e2ee = make();
    const everybody = await Promise.all([
      stage.join('chromium', 'anna', { e2ee, number: 1 }),
      stage.join('chromium', 'ben', { e2ee, number: 2 }),
      stage.join('python', 'carl', { e2ee, number: 3 }),
    ]);
    await Promise.all(everybody.flatMap((who) => [who.publishCamera(), who.publishMicrophone()]));
    await allSeeAndHear(everybody, 40_000);
    await everybody[0].sendData({ text: 'an encrypted packet' });

    const secrets = secretsOf(e2ee);
    // What the server must know proves that the search finds things: in memory, and the same bytes in a haystack.
    const known = { 'room name': Buffer.from(stage.room), 'API secret': Buffer.from(stage.weir.secret) };
    const { found, bytes } = searchMemory(stage.weir.pid, { ...secrets, ...known });
    console.log(`# searched ${(bytes / 1e6).toFixed(0)} MB of memory for ${Object.keys(secrets).length} forms of the keys`);
    for (const label of Object.keys(known)) assert.ok(found.has(label), `the search does not even find the ${label}`);
    assert.deepEqual(Object.keys(secrets).filter((label) => found.has(label)), [], 'the server holds keys');

    for (const name of readdirSync(stage.weir.home)) {
      const text = readFileSync(join(stage.weir.home, name));
      const written = Object.keys(secrets).filter((label) => text.includes(secrets[label]));
      assert.deepEqual(written, [], `${name} holds keys`);
    }
  });
}
