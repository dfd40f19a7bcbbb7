// What happens to a call when a page is reloaded, a socket is lost, or the same user comes twice.

import assert from 'node:assert/strict';
import { hears, keepsSeeing, noticed, sees } from '../lib/judge.mjs';
import { passphrase } from '../lib/keys.mjs';
import { Proxy } from '../lib/proxy.mjs';
import { scenario, withWeir } from '../lib/stage.mjs';
import { NotYet, sleep, until } from '../lib/until.mjs';

withWeir();

/** Somebody whose signalling goes through a proxy, and a watcher; both publish a camera. */
async function proxied(stage, kind, mode) {
  const e2ee = passphrase();
  const proxy = stage.keep(await Proxy.to(stage.weir.httpPort));
  const watcher = await stage.join('chromium', 'anna', { ...mode, e2ee });
  const lost = await stage.join(kind, 'ben', { ...mode, e2ee, url: proxy.url });
  await Promise.all([watcher.publishCamera(), lost.publishCamera()]);
  await Promise.all([sees(watcher, lost), sees(lost, watcher)]);
  return { proxy, watcher, lost };
}

const BOTH = [true, false];
// How a session is resumed does not depend on the mode, so one make of client is enough for the second one.
for (const [kind, modes] of [['chromium', BOTH], ['firefox', [true]], ['python', [true]]]) {
  for (const singlePeerConnection of modes) losesItsWebSocket(kind, { singlePeerConnection });
}

function losesItsWebSocket(kind, mode) {
  const how = mode.singlePeerConnection ? 'one peer connection' : 'two peer connections';
  scenario(`${kind} loses its WebSocket: media flows on, the session is resumed (${how})`, 60, async (stage) => {
    const { proxy, watcher, lost } = await proxied(stage, kind, mode);
    const { sid } = await lost.look();
    const since = Date.now();
    const accepted = proxy.accepted;
    proxy.reset();
    // Both directions, from the moment the socket is gone until well after it is back.
    await Promise.all([keepsSeeing(watcher, lost, { forMs: 5000 }), keepsSeeing(lost, watcher, { forMs: 5000 })]);
    await until('the session is back', 8000, async () => {
      if (proxy.accepted === accepted) throw new NotYet('no new connection');
      const { state } = await lost.look();
      if (state !== 'connected') throw new NotYet(`it is ${state}`);
      return true;
    });
    assert.equal((await lost.look()).sid, sid, 'a resume keeps the participant sid');
    const gone = await watcher.event('participantDisconnected', ({ identity }) => identity === lost.identity, since);
    assert.equal(gone, undefined, 'the others must not notice');
    // Signalling works again in both directions.
    const muted = await lost.mute('camera');
    await noticed(watcher, 'trackMuted', ({ identity }) => identity === lost.identity, muted.t, 1000);
    const own = await watcher.mute('camera');
    await noticed(lost, 'trackMuted', ({ identity }) => identity === watcher.identity, own.t, 1000);
  });
}

scenario('a server that swallows everything is noticed within six seconds; media flows on', 60, async (stage) => {
  const { proxy, watcher, lost } = await proxied(stage, 'chromium', {});
  const since = Date.now();
  proxy.become('silent');
  const seeing = keepsSeeing(watcher, lost, { forMs: 6000 });
  const took = await noticed(lost, 'signalReconnecting', () => true, since, 6000);
  console.log(`# noticed after ${took} ms`);
  await seeing;
  proxy.become('open');
  proxy.reset();
  await until('the session is back', 15_000, async () => (await lost.look()).state === 'connected');
  await Promise.all([sees(watcher, lost), sees(lost, watcher)]);
});

scenario('a reloaded page is back in the call, once', 60, async (stage) => {
  const e2ee = passphrase();
  const anna = await stage.join('chromium', 'anna', { e2ee });
  const ben = await stage.join('chromium', 'ben', { e2ee });
  await Promise.all([anna, ben].flatMap((who) => [who.publishCamera(), who.publishMicrophone()]));
  await Promise.all([sees(anna, ben), hears(anna, ben)]);
  const before = (await anna.look()).participants[ben.identity].sid;
  const since = Date.now();
  await ben.load();
  await noticed(anna, 'participantDisconnected', ({ identity }) => identity === ben.identity, since, 3000);
  const answer = await ben.connect(ben.lastConnect);
  assert.equal(answer.error, undefined);
  await Promise.all([ben.publishCamera(), ben.publishMicrophone()]);
  await Promise.all([sees(anna, ben), hears(anna, ben), sees(ben, anna), hears(ben, anna)]);
  const { participants } = await anna.look();
  assert.deepEqual(Object.keys(participants), [ben.identity]);
  assert.notEqual(participants[ben.identity].sid, before, 'a new join is a new participant sid');
});

for (const kind of ['chromium', 'python']) {
  scenario(`a second login with the same identity replaces the first (${kind})`, 60, async (stage) => {
    const anna = await stage.join('chromium', 'anna');
    const first = await stage.join(kind, 'ben', { number: 2 });
    await first.publishCamera();
    await sees(anna, first);
    const since = Date.now();
    const second = await stage.join(kind, 'ben', { number: 2 });
    await second.publishCamera();
    const took = await noticed(first, 'disconnected', ({ reason }) => reason === 'DUPLICATE_IDENTITY', since, 5000);
    console.log(`# the first one was told after ${took} ms`);
    await until('anna sees the second one only', 10_000, async () => {
      const { participants } = await anna.look();
      if (participants[second.identity]?.sid !== second.sid) throw new NotYet(JSON.stringify(Object.keys(participants)));
      return true;
    });
    await sees(anna, second);
    await sleep(2000);
    assert.equal((await second.look()).state, 'connected', 'the first one must not come back and throw out the second');
    assert.deepEqual(Object.keys((await anna.look()).participants), [second.identity]);
  });
}
