// Data packets, remote calls and data streams between all makes of clients.

import assert from 'node:assert/strict';
import { passphrase } from '../lib/keys.mjs';
import { inBothModes, scenario, withWeir } from '../lib/stage.mjs';
import { NotYet, sleep, until } from '../lib/until.mjs';

withWeir();

const MEGABYTE = 1 << 20;

async function three(stage, options) {
  const everybody = await Promise.all([
    stage.join('chromium', 'anna', { ...options, number: 1 }),
    stage.join('firefox', 'ben', { ...options, number: 2 }),
    stage.join('python', 'carl', { ...options, number: 3 }),
  ]);
  await until('everybody knows everybody', 10_000, async () => {
    const known = await Promise.all(everybody.map(async (who) => Object.keys((await who.look()).participants).length));
    if (known.some((count) => count !== 2)) throw new NotYet(`they know ${known.join(' ')} others`);
    return true;
  });
  return everybody;
}

async function received(who, fits, what, limitMs = 8000) {
  return until(`${who.identity} receives ${what}`, limitMs, async () => {
    const inbox = await who.inbox();
    const found = inbox.find(fits);
    if (!found) throw new NotYet(`its inbox has ${JSON.stringify(inbox.slice(-5))}`);
    return found;
  });
}

inBothModes('data packets reach everybody, or only those named', 60, async (stage, mode) => {
  const everybody = await three(stage, mode);
  for (const sender of everybody) {
    const [named, other] = everybody.filter((who) => who !== sender);
    const text = (kind) => `${kind} from ${sender.identity}`;
    await sender.sendData({ text: text('to all'), topic: 'greeting' });
    await sender.sendData({ text: text('named'), to: [named.identity] });
    for (const receiver of [named, other]) {
      const packet = await received(receiver, (entry) => entry.text === text('to all'), text('to all'));
      assert.equal(packet.from, sender.identity);
      assert.equal(packet.topic, 'greeting');
      assert.ok(packet.reliable);
    }
    await received(named, (entry) => entry.text === text('named'), text('named'));
    // Lossy packets may get lost, on loopback hardly all of ten.
    for (let at = 0; at < 10; at++) await sender.sendData({ text: text('lossy'), reliable: false });
    for (const receiver of [named, other]) {
      const packet = await received(receiver, (entry) => entry.text === text('lossy'), text('lossy'));
      assert.equal(packet.reliable, false);
    }
    const leaked = (await other.inbox()).filter((entry) => entry.text === text('named'));
    assert.equal(leaked.length, 0, `${other.identity} got a packet that was not for it`);
  }
});

scenario('reliable packets arrive in order and once', 40, async (stage) => {
  const [anna, ben, carl] = await three(stage, {});
  const sent = Array.from({ length: 200 }, (_, at) => `packet ${at}`);
  for (const text of sent) await anna.sendData({ text });
  for (const receiver of [ben, carl]) {
    await received(receiver, (entry) => entry.text === sent.at(-1), 'the last packet');
    assert.deepEqual((await receiver.inbox()).map(({ text }) => text), sent, receiver.identity);
  }
});

inBothModes('remote calls are answered', 50, async (stage, mode) => {
  const everybody = await three(stage, mode);
  for (const caller of everybody) {
    for (const called of everybody.filter((who) => who !== caller)) {
      const answer = await caller.rpc({ to: called.identity, payload: 'ping' });
      assert.equal(answer, `${called.identity}<${caller.identity}:ping`);
    }
  }
});

inBothModes('a data stream of 1 MB arrives intact, encrypted', 90, async (stage, mode) => {
  const everybody = await three(stage, { ...mode, e2ee: passphrase() });
  for (const sender of everybody) {
    const { size, sha256 } = await sender.sendBytes({ size: MEGABYTE }, 40_000);
    assert.equal(size, MEGABYTE);
    for (const receiver of everybody.filter((who) => who !== sender)) {
      const fits = (entry) => entry.stream === 'bytes' && entry.from === sender.identity;
      const stream = await received(receiver, fits, `the stream of ${sender.identity}`, 25_000);
      assert.deepEqual([stream.size, stream.sha256, stream.error], [size, sha256, undefined]);
    }
  }
});

scenario('a text stream reaches only those it is for; metadata reaches all', 40, async (stage) => {
  const [anna, ben, carl] = await three(stage, {});
  await anna.sendText({ text: 'for carl', to: [carl.identity] });
  const stream = await received(carl, (entry) => entry.stream === 'text', 'the text');
  assert.deepEqual([stream.from, stream.text], [anna.identity, 'for carl']);
  await sleep(500);
  assert.equal((await ben.inbox()).length, 0);
  await anna.setMetadata('about anna');
  for (const receiver of [ben, carl]) {
    await until(`${receiver.identity} sees the metadata`, 5000, () => receiver.event('metadata', ({ metadata }) => metadata === 'about anna'));
  }
});
