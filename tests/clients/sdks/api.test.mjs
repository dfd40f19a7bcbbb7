// What else applications ask of the SDK: settings of subscriptions, who may subscribe, what is told about people and
// rooms, and the numbers the SDK shows.

import assert from 'node:assert/strict';
import { Checklist, allFlow, flows, receives, rests, tells } from '../lib/checklist.mjs';
import { trackOf } from '../lib/judge.mjs';
import { passphrase } from '../lib/keys.mjs';
import { scenario, withWeir } from '../lib/stage.mjs';
import { NotYet, sleep, until } from '../lib/until.mjs';

withWeir();

const LAYERS = [{ width: 320, height: 180, bitrate: 150_000 }, { width: 640, height: 360, bitrate: 400_000 }];
const CAMERA = { width: 1280, height: 720, fps: 10, layers: LAYERS };
const HIGH = 2;
const LOW = 0;

async function comesAt(viewer, sender, width) {
  await until(`${viewer.identity} gets ${width} px`, 25_000, async () => {
    const track = await trackOf(viewer, sender, 'camera');
    if (track.width !== width) throw new NotYet(`it comes at ${track.width} px`);
    return true;
  });
  await flows(viewer, sender);
}

async function framesPerSecond(viewer, sender) {
  const before = await trackOf(viewer, sender, 'camera');
  const begin = Date.now();
  await sleep(4000);
  const after = await viewer.look();
  return ((after.participants[sender.identity].tracks.camera.framesReceived - before.framesReceived) * 1000) / (Date.now() - begin);
}

for (const mode of [{ singlePeerConnection: true }, { singlePeerConnection: false }]) {
  const how = mode.singlePeerConnection ? 'one peer connection' : 'two peer connections';
  scenario(`settings and permissions (${how})`, 600, async (stage) => {
    const list = new Checklist();
    const grants = { canUpdateOwnMetadata: true };
    const anna = await stage.join('chromium', 'anna', { ...mode, grants });
    const ben = await stage.join('chromium', 'ben', { ...mode, grants });
    const identity = anna.identity;
    const set = (setting, value) => ben.set({ identity, setting, value });
    await anna.publishCamera(CAMERA);
    await anna.publishMicrophone();
    await ben.publishMicrophone();
    await list.check('media', async () => Promise.all([flows(ben, anna), flows(ben, anna, { source: 'microphone' }), flows(anna, ben, { source: 'microphone' })]));
    await list.check('setVideoQuality', async () => {
      await set('setVideoQuality', LOW);
      await comesAt(ben, anna, 320);
      await set('setVideoQuality', HIGH);
      await comesAt(ben, anna, 1280);
    });
    await list.check('setVideoDimensions', async () => {
      await set('setVideoDimensions', { width: 640, height: 360 });
      await comesAt(ben, anna, 640);
      await set('setVideoDimensions', { width: 1280, height: 720 });
      await comesAt(ben, anna, 1280);
    });
    await list.check('setVideoFPS', async () => {
      await set('setVideoFPS', 3);
      await sleep(1000);
      const slow = await framesPerSecond(ben, anna);
      await set('setVideoFPS', 30);
      await sleep(1000);
      const full = await framesPerSecond(ben, anna);
      console.log(`#    ${slow.toFixed(1)} of ${full.toFixed(1)} frames a second`);
      await flows(ben, anna);
      assert.ok(slow < full * 0.75, `${slow} of ${full} frames a second`);
    });
    await list.check('setEnabled', async () => {
      await set('setEnabled', false);
      await rests(ben, anna);
      await set('setEnabled', true);
      await flows(ben, anna);
    });
    for (const source of ['camera', 'microphone']) {
      await list.check(`setSubscribed of the ${source}, three times`, async () => {
        for (let at = 0; at < 3; at++) {
          const since = Date.now();
          await ben.setSubscribed({ identity, source, wanted: false });
          await tells(ben, 'trackUnsubscribed', (event) => event.source === source, since);
          await ben.setSubscribed({ identity, source, wanted: true });
          await tells(ben, 'trackSubscribed', (event) => event.source === source, since);
          await flows(ben, anna, { source });
        }
      });
    }
    await list.check('setTrackSubscriptionPermissions', async () => {
      const since = Date.now();
      await anna.allowSubscribers({ all: false });
      await tells(ben, 'trackUnsubscribed', () => true, since);
      await until('ben is told that it may not', 10_000, async () => (await ben.events()).some(({ t, name }) => t >= since && name === 'subscriptionPermission'));
      const again = Date.now();
      await anna.allowSubscribers({ all: false, some: [{ participantIdentity: ben.identity, allowAll: true }] });
      await tells(ben, 'trackSubscribed', () => true, again);
      await flows(ben, anna);
      await flows(ben, anna, { source: 'microphone' });
      await anna.allowSubscribers({ all: true });
      await flows(ben, anna);
    });
    await list.check('name, metadata, attributes', async () => {
      await anna.setName('Anna');
      await anna.setMetadata('of anna');
      await anna.setAttributes({ mood: 'good', hand: 'up' });
      await anna.setAttributes({ hand: '' });
      await until('ben knows them', 10_000, async () => {
        const { name, metadata, attributes } = (await ben.look()).participants[identity];
        const found = JSON.stringify({ name, metadata, attributes });
        if (found !== JSON.stringify({ name: 'Anna', metadata: 'of anna', attributes: { mood: 'good' } })) throw new NotYet(found);
        return true;
      });
    });
    await list.check('a participant without the right may not', async () => {
      const carl = await stage.join('chromium', 'carl', { ...mode, grants: { canUpdateOwnMetadata: false } });
      await assert.rejects(carl.setMetadata('of carl'), /permission|does not have|NOT_ALLOWED|allowed/i);
      await carl.disconnect();
    });
    await list.check('round trip', async () => {
      await until('measured', 15_000, async () => (await anna.roundTrip()) > 0);
      assert.ok((await anna.roundTrip()) < 2000, `${await anna.roundTrip()} ms`);
    });
    await list.check('connection quality', () => tells(ben, 'connectionQuality', (event) => event.identity === identity && event.quality === 'excellent', 0, 20_000));
    await list.check('active speakers', () => tells(ben, 'speakers', ({ speakers }) => speakers.includes(identity)));
    await list.check('a second session of the same identity takes over', async () => {
      const since = Date.now();
      const twin = await stage.open('chromium', 'anna', { number: 1 });
      const answer = await stage.connect(twin, { ...mode, grants });
      assert.equal(answer.error, undefined);
      await tells(anna, 'disconnected', ({ reason }) => reason === 'DUPLICATE_IDENTITY', since);
      await twin.publishMicrophone();
      await flows(ben, twin, { source: 'microphone' });
    });
    list.end();
  });
}

scenario('encrypted data of browsers', 120, async (stage) => {
  const list = new Checklist();
  const e2ee = passphrase();
  const anna = await stage.join('chromium', 'anna', { e2ee });
  const ben = await stage.join('chromium', 'ben', { e2ee, singlePeerConnection: false });
  await until('they know each other', 10_000, async () => (await anna.look()).participants[ben.identity] && (await ben.look()).participants[anna.identity]);
  for (const [from, to] of [[anna, ben], [ben, anna]]) {
    await list.check(`${from.identity} to ${to.identity}`, async () => {
      await from.sendData({ text: 'secret' });
      await receives(to, 'the packet', ({ text }) => text === 'secret');
      await from.sendText({ text: 'long'.repeat(20_000) });
      await receives(to, 'the text', ({ stream, text }) => stream === 'text' && text.length === 80_000);
      assert.equal(await from.rpc({ to: to.identity, payload: 'x'.repeat(12_000) }), `${to.identity}<${from.identity}:${'x'.repeat(12_000)}`);
    });
  }
  await list.check('media too', async () => {
    await Promise.all([anna, ben].map((who) => who.publishMicrophone()));
    await allFlow([anna, ben], ['microphone']);
  });
  list.end();
});
