// Every release line of livekit-client against the newest, in the signalling it chooses itself.

import assert from 'node:assert/strict';
import { Checklist, allFlow, flows, receives, rests, tells } from '../lib/checklist.mjs';
import { scenario, withWeir } from '../lib/stage.mjs';

withWeir();

const VERSIONS = (process.env.WEIR_TEST_SDKS ?? '1.15 2.5 2.9 2.13 2.15 2.17 2.18 2.22').split(' ');
const CAMERA = { fps: 8 };

scenario('older clients meet the newest', 1500, async (stage) => {
  const list = new Checklist();
  const fresh = await stage.join('chromium', 'fresh', { dynacast: true, number: 1 });
  await fresh.publishCamera(CAMERA);
  await fresh.publishMicrophone();
  for (const [at, version] of VERSIONS.entries()) {
    let old;
    const joined = await list.check(`${version} joins and publishes`, async () => {
      old = await stage.join('chromium', `old${version.replace('.', '')}`, { sdk: `livekit-client-${version}`, dynacast: true, number: 2 + at });
      assert.ok((await old.version()).livekit.startsWith(`${version}.`));
      await old.publishCamera(CAMERA);
      await old.publishMicrophone();
    });
    if (!joined) continue;
    const both = [old, fresh];
    await list.check(`${version} media both ways`, () => allFlow(both));
    for (const [sender, viewer] of [both, [fresh, old]]) {
      const way = `${version}, ${sender === old ? 'old to new' : 'new to old'}`;
      const is = (source) => (event) => event.identity === sender.identity && event.source === source;
      await list.check(`${way}: mute and unmute`, async () => {
        const since = Date.now();
        await Promise.all(['camera', 'microphone'].map((source) => sender.mute(source)));
        await Promise.all(['camera', 'microphone'].flatMap((source) => [tells(viewer, 'trackMuted', is(source), since), rests(viewer, sender, { source })]));
        await Promise.all(['camera', 'microphone'].map((source) => sender.unmute(source)));
        await Promise.all(['camera', 'microphone'].map((source) => flows(viewer, sender, { source })));
      });
      await list.check(`${way}: data`, async () => {
        for (const reliable of [true, false]) {
          const text = `${reliable ? 'reliable' : 'lossy'} from ${sender.identity} at ${Date.now()}`;
          for (let n = 0; n < 5; n++) await sender.sendData({ text, reliable, topic: 't', to: n ? undefined : [viewer.identity] });
          await receives(viewer, text, (entry) => entry.text === text && entry.from === sender.identity);
        }
      });
      await list.check(`${way}: screen share`, async () => {
        await sender.publishScreen();
        await flows(viewer, sender, { source: 'screen_share' });
        await sender.unpublish('screen_share');
        await tells(viewer, 'trackUnpublished', is('screen_share'));
      });
    }
    await list.check(`${version}: resumes`, async () => {
      const since = Date.now();
      await old.simulate({ scenario: 'signal-reconnect' });
      await tells(old, 'state', ({ state }) => state === 'connected', since, 20_000);
      await allFlow(both, ['camera']);
    });
    await list.check(`${version}: comes back whole`, async () => {
      const since = Date.now();
      await old.simulate({ scenario: 'full-reconnect' });
      await tells(old, 'reconnected', undefined, since, 30_000);
      await allFlow(both, ['camera'], 30_000);
    });
    await list.check(`${version}: leaves`, async () => {
      const since = Date.now();
      await old.disconnect();
      await tells(fresh, 'participantDisconnected', ({ identity }) => identity === old.identity, since);
      await old.close();
    });
  }
  list.end();
});
