// The SDKs that are built on the Rust one: the npm package @livekit/rtc-node, and older versions of the PyPI package.
// WEIR_TEST_PYTHONS lists interpreters of environments that have such versions installed.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { Checklist, allFlow, flows, receives, rests, tells } from '../lib/checklist.mjs';
import { passphrase } from '../lib/keys.mjs';
import { closeNative } from '../lib/node.mjs';
import { scenario, withWeir } from '../lib/stage.mjs';
import { NotYet, until } from '../lib/until.mjs';

withWeir();
after(closeNative);

const PYTHONS = (process.env.WEIR_TEST_PYTHONS ?? '').split(' ').filter(Boolean);
const CAMERA = { fps: 8, width: 640, height: 360 };

async function everything(list, one, other, { old = false } = {}) {
  const both = [one, other];
  for (const who of both) {
    await who.publishCamera(CAMERA);
    await who.publishMicrophone();
  }
  await list.check('media both ways', () => allFlow(both));
  for (const [from, to] of [both, [other, one]]) {
    const way = `${from.identity} to ${to.identity}`;
    const is = (source) => (event) => event.identity === from.identity && event.source === source;
    if (from.kind !== 'node') {
      await list.check(`${way}: mute and unmute`, async () => {
        const since = Date.now();
        await Promise.all(['camera', 'microphone'].map((source) => from.mute(source)));
        await Promise.all(['camera', 'microphone'].map((source) => tells(to, 'trackMuted', is(source), since)));
        await rests(to, from);
        await Promise.all(['camera', 'microphone'].map((source) => from.unmute(source)));
        await Promise.all(['camera', 'microphone'].map((source) => flows(to, from, { source })));
      });
    }
    await list.check(`${way}: data`, async () => {
      for (const reliable of [true, false]) {
        const text = `${reliable} from ${from.identity}`;
        for (let n = 0; n < 5; n++) await from.sendData({ text, reliable, topic: 't' });
        await receives(to, text, (entry) => entry.text === text && entry.from === from.identity);
      }
    });
    await list.check(`${way}: screen share, twice`, async () => {
      for (let at = 0; at < 2; at++) {
        const since = Date.now();
        await from.publishScreen();
        await flows(to, from, { source: 'screen_share' });
        await from.unpublish('screen_share');
        await tells(to, 'trackUnpublished', is('screen_share'), since);
      }
    });
    await list.check(`${way}: metadata`, async () => {
      await from.setMetadata(`of ${from.identity}`);
      await until('known', 8000, async () => (await to.look()).participants[from.identity].metadata === `of ${from.identity}`);
    });
    if (old) continue;
    await list.check(`${way}: remote call`, async () => {
      assert.equal(await from.rpc({ to: to.identity, payload: 'p'.repeat(9000) }), `${to.identity}<${from.identity}:${'p'.repeat(9000)}`);
    });
    await list.check(`${way}: streams`, async () => {
      await from.sendText({ text: 'text'.repeat(10_000), to: [to.identity] });
      await receives(to, 'the text', ({ stream, text }) => stream === 'text' && text.length === 40_000);
      const { sha256 } = await from.sendBytes({ size: 300_000 }, 40_000);
      await receives(to, 'the bytes', (entry) => entry.sha256 === sha256);
    });
    if (from.kind === 'python') continue;
    await list.check(`${way}: name and attributes`, async () => {
      await from.setName('Named');
      await from.setAttributes({ mood: 'good' });
      await until('known', 8000, async () => {
        const { name, attributes } = (await to.look()).participants[from.identity];
        if (name !== 'Named' || attributes.mood !== 'good') throw new NotYet(JSON.stringify({ name, attributes }));
        return true;
      });
    });
  }
}

const LEAVES = (list, who, viewer) => list.check(`${who.identity} leaves`, async () => {
  const since = Date.now();
  await who.disconnect();
  await tells(viewer, 'participantDisconnected', ({ identity }) => identity === who.identity, since);
});

for (const e2ee of [undefined, passphrase()]) {
  scenario(`@livekit/rtc-node and Python${e2ee ? ', encrypted' : ''}`, 400, async (stage) => {
    const list = new Checklist();
    const node = await stage.join('node', 'node', { e2ee });
    const python = await stage.join('python', 'py', { e2ee, singlePeerConnection: false });
    await everything(list, node, python);
    await LEAVES(list, python, node);
    list.end();
  });
}

scenario('@livekit/rtc-node and Chromium, with simulated failures', 500, async (stage) => {
  const list = new Checklist();
  const node = await stage.join('node', 'node');
  const page = await stage.join('chromium', 'page');
  await everything(list, node, page);
  const { SimulateScenarioKind } = await import('@livekit/rtc-node');
  for (const [name, value] of Object.entries(SimulateScenarioKind ?? {}).filter(([name]) => Number.isNaN(Number(name)))) {
    if (/SERVER_LEAVE|SPEAKER/.test(name)) continue;
    await list.check(`simulate ${name}`, async () => {
      await node.simulate({ scenario: value });
      await new Promise((resolve) => setTimeout(resolve, 3000));
      await until('connected again', 40_000, async () => (await node.look()).state === 'connected');
      await allFlow([node, page], ['camera', 'microphone'], 40_000);
    });
  }
  await LEAVES(list, node, page);
  list.end();
});

for (const sdk of PYTHONS) {
  for (const e2ee of [undefined, passphrase()]) {
    scenario(`the Python of ${sdk} and today's${e2ee ? ', encrypted' : ''}`, 300, async (stage) => {
      const list = new Checklist();
      const old = await stage.join('python', 'old', { e2ee, sdk });
      const fresh = await stage.join('python', 'new', { e2ee });
      await everything(list, old, fresh, { old: true });
      await LEAVES(list, old, fresh);
      list.end();
    });
  }
}
