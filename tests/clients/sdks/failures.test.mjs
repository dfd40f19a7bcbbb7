// Room.simulateScenario of the JavaScript SDK: whatever the client plays or asks us to play, it ends connected with
// media both ways, or out of the room where that is what was asked for.

import { Checklist, allFlow, tells } from '../lib/checklist.mjs';
import { scenario, withWeir } from '../lib/stage.mjs';
import { sleep, until } from '../lib/until.mjs';

withWeir();

const COMES_BACK = [
  ['signal-reconnect'], ['resume-reconnect'], ['full-reconnect'], ['migration'], ['node-failure'],
  ['disconnect-signal-on-resume'], ['disconnect-signal-on-resume-no-messages'], ['leave-full-reconnect'], ['force-tcp'], ['force-tls'],
];

const ONLY = process.env.WEIR_TEST_FAILURES?.split(' ');

for (const mode of [{ singlePeerConnection: true }, { singlePeerConnection: false }]) {
  const how = mode.singlePeerConnection ? 'one peer connection' : 'two peer connections';
  scenario(`simulated failures (${how})`, 900, async (stage) => {
    const list = new Checklist(90_000);
    const anna = await stage.join('chromium', 'anna', mode);
    const ben = await stage.join('chromium', 'ben', mode);
    const both = [anna, ben];
    for (const who of both) {
      await who.publishCamera({ fps: 8 });
      await who.publishMicrophone();
    }
    await list.check('media before', () => allFlow(both));
    await list.check('speaker', async () => {
      const since = Date.now();
      await anna.simulate({ scenario: 'speaker' });
      await tells(anna, 'speakers', ({ speakers }) => speakers.includes(anna.identity), since);
    });
    await list.check('subscriber-bandwidth', async () => {
      await anna.simulate({ scenario: 'subscriber-bandwidth', value: 60_000 });
      await tells(anna, 'streamState', ({ state }) => state === 'paused', 0, 25_000).catch(async () => {
        const width = (await anna.look()).participants[ben.identity].tracks.camera.width;
        if (width > 320) throw new Error(`not paused, and still ${width} px wide`);
      });
      await anna.simulate({ scenario: 'subscriber-bandwidth', value: 0 });
      await allFlow(both, ['camera'], 40_000);
    });
    for (const [what, value] of COMES_BACK.filter(([what]) => ONLY?.includes(what) ?? true)) {
      await list.check(what, async () => {
        const since = Date.now();
        await anna.simulate({ scenario: what, value });
        await tells(anna, 'state', () => true, since, 20_000).catch(() => {});
        await until('connected again', 45_000, async () => (await anna.look()).state === 'connected');
        await sleep(1500);
        await allFlow(both, ['camera', 'microphone'], 40_000);
        const told = (await anna.events()).filter(({ t, name }) => t >= since && /econnect|state|disconnected/.test(name));
        console.log(`#    ${told.map(({ t, name, state }) => `${name}${state ? `=${state}` : ''}+${t - since}`).join(' ')}`);
      });
    }
    await list.check('server-leave', async () => {
      const since = Date.now();
      await anna.simulate({ scenario: 'server-leave' });
      await tells(anna, 'disconnected', () => true, since, 15_000);
      await tells(ben, 'participantDisconnected', ({ identity }) => identity === anna.identity, since, 15_000);
    });
    list.end();
  });
}
