// The heart of it: a browser of each family and an SDK program in one encrypted call.

import assert from 'node:assert/strict';
import { allSeeAndHear, hears, hearsNothing, noticed, sees, seesNothingNew, trackOf } from '../lib/judge.mjs';
import { keysFor, passphrase } from '../lib/keys.mjs';
import { inBothModes, scenario, withWeir } from '../lib/stage.mjs';
import { until } from '../lib/until.mjs';

withWeir();

const KINDS = [['chromium', 'anna'], ['firefox', 'ben'], ['python', 'carl']];

/** Three participants who publish camera and microphone. */
async function call(stage, options, kinds = KINDS) {
  const everybody = await Promise.all(kinds.map(([kind, name], at) => stage.join(kind, name, { ...options, number: at + 1 })));
  await Promise.all(everybody.flatMap((who) => [who.publishCamera(), who.publishMicrophone()]));
  return everybody;
}

inBothModes('three participants of different makes see and hear each other, encrypted', 75, async (stage, mode) => {
  const identities = KINDS.map(([, name], at) => `${name}-${at + 1}`);
  // Both ways in which clients hold keys are in use out there.
  const e2ee = mode.singlePeerConnection ? keysFor(identities) : passphrase();
  const everybody = await call(stage, { ...mode, e2ee });
  await allSeeAndHear(everybody, 40_000);
  for (const viewer of everybody) {
    for (const sender of everybody.filter((who) => who !== viewer)) {
      for (const source of ['camera', 'microphone']) {
        const track = await trackOf(viewer, sender, source);
        assert.ok(track.encrypted, `${viewer.identity} does not know that the ${source} of ${sender.identity} is encrypted`);
      }
    }
  }
});

inBothModes('mute and unmute are seen within a second, and media stops and goes on', 110, async (stage, mode) => {
  const everybody = await call(stage, { ...mode, e2ee: passphrase() });
  await allSeeAndHear(everybody, 40_000);
  for (const sender of everybody) {
    const others = everybody.filter((who) => who !== sender);
    const of = (source) => (event) => event.identity === sender.identity && event.source === source;
    const muted = { camera: await sender.mute('camera'), microphone: await sender.mute('microphone') };
    await Promise.all(others.flatMap((viewer) => [
      noticed(viewer, 'trackMuted', of('camera'), muted.camera.t, 1000),
      noticed(viewer, 'trackMuted', of('microphone'), muted.microphone.t, 1000),
      seesNothingNew(viewer, sender),
      hearsNothing(viewer, sender),
    ]));
    const back = { camera: await sender.unmute('camera'), microphone: await sender.unmute('microphone') };
    await Promise.all(others.flatMap((viewer) => [
      noticed(viewer, 'trackUnmuted', of('camera'), back.camera.t, 1000),
      noticed(viewer, 'trackUnmuted', of('microphone'), back.microphone.t, 1000),
      sees(viewer, sender),
      hears(viewer, sender),
    ]));
  }
});

inBothModes('a screen share goes beside the camera and comes to its end', 70, async (stage, mode) => {
  const everybody = await call(stage, { ...mode, e2ee: passphrase() });
  for (const sender of everybody) {
    const others = everybody.filter((who) => who !== sender);
    await sender.publishScreen();
    for (const viewer of others) {
      const screen = await sees(viewer, sender, { source: 'screen_share', limitMs: 20_000 });
      assert.equal(screen.width, 800, `${viewer.identity} gets the screen of ${sender.identity} at ${screen.width} px`);
      await sees(viewer, sender, { source: 'camera' });
    }
    const since = Date.now();
    await sender.unpublish('screen_share');
    const isScreen = (event) => event.identity === sender.identity && event.source === 'screen_share';
    await Promise.all(others.map((viewer) => noticed(viewer, 'trackUnpublished', isScreen, since, 2000)));
    await Promise.all(others.map((viewer) => sees(viewer, sender, { source: 'camera' })));
  }
});

scenario('whoever joins late sees who was there before', 50, async (stage) => {
  const [anna, ben] = await call(stage, { e2ee: passphrase() }, KINDS.slice(0, 1).concat([['chromium', 'ben']]));
  await allSeeAndHear([anna, ben]);
  const { e2ee } = anna.lastConnect;
  const late = await Promise.all([stage.join('chromium', 'dora', { e2ee, number: 4 }), stage.join('python', 'emil', { e2ee, number: 5 })]);
  await Promise.all(late.flatMap((who) => [anna, ben].flatMap((sender) => [sees(who, sender), hears(who, sender)])));
});

scenario('leaving, closing the tab and a killed browser are seen', 80, async (stage) => {
  const anna = await stage.join('chromium', 'anna');
  const goners = {
    leaves: [await stage.join('chromium', 'ben'), (who) => who.disconnect(), 1000],
    'leaves in python': [await stage.join('python', 'carl'), (who) => who.disconnect(), 1000],
    'closes the tab': [await stage.join('chromium', 'dora'), (who) => who.closeTab(), 2000],
    // Nothing says goodbye here: the server has to notice that socket and media have gone.
    'is killed': [await stage.join('chromium', 'emil', { own: true }), (who) => who.killBrowser(), 30_000],
  };
  await until('everybody is there', 10_000, async () => Object.keys((await anna.look()).participants).length === 4);
  for (const [how, [who, go, limitMs]] of Object.entries(goners)) {
    await who.publishMicrophone();
    await hears(anna, who);
    const since = Date.now();
    await go(who);
    const took = await noticed(anna, 'participantDisconnected', ({ identity }) => identity === who.identity, since, limitMs);
    console.log(`# ${who.identity} ${how}: seen after ${took} ms`);
  }
});
