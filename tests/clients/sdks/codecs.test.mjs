// Every codec a browser can send, as the SDK sends it: simulcast or SVC, plain and encrypted, camera and screen.

import { Checklist, flows } from '../lib/checklist.mjs';
import { passphrase } from '../lib/keys.mjs';
import { scenario, withWeir } from '../lib/stage.mjs';

withWeir();

const CAMERA = { fps: 8 };

async function publishAll(list, sender, viewers, cases, kind) {
  for (const { name, options, codec } of cases) {
    await list.check(`${kind} ${name}`, async () => {
      await sender.publishCamera({ ...CAMERA, ...options });
      await Promise.all(viewers.map((viewer) => flows(viewer, sender, { codec: viewer.kind === 'python' ? undefined : codec, limitMs: 30_000 })));
    });
    await sender.unpublish('camera').catch(() => {});
  }
}

const CHROMIUM = [
  { name: 'vp8 simulcast', options: { codec: 'vp8' }, codec: 'vp8' },
  { name: 'vp8 alone', options: { codec: 'vp8', simulcast: false }, codec: 'vp8' },
  { name: 'h264 simulcast', options: { codec: 'h264' }, codec: 'h264' },
  { name: 'vp9 L3T3_KEY', options: { codec: 'vp9', scalabilityMode: 'L3T3_KEY', backupCodec: false }, codec: 'vp9' },
  { name: 'vp9 with a backup codec', options: { codec: 'vp9' }, codec: 'vp9' },
  { name: 'vp9 L1T3', options: { codec: 'vp9', scalabilityMode: 'L1T3', backupCodec: false }, codec: 'vp9' },
  { name: 'av1 L3T3_KEY', options: { codec: 'av1', scalabilityMode: 'L3T3_KEY', backupCodec: false }, codec: 'av1' },
  { name: 'av1 with a backup codec', options: { codec: 'av1', backupCodec: { codec: 'vp8' } }, codec: 'av1' },
  { name: 'av1 L1T3', options: { codec: 'av1', scalabilityMode: 'L1T3', backupCodec: false }, codec: 'av1' },
];
// Not AV1: libwebrtc cannot packetise encrypted frames of it.
const ENCRYPTED = CHROMIUM.filter(({ name }) => /^(vp8 sim|h264|vp9 L3|vp9 with)/.test(name));
const SCREENS = [
  { name: 'vp8', options: { codec: 'vp8' }, codec: 'vp8' },
  { name: 'vp9 L1T3', options: { codec: 'vp9', scalabilityMode: 'L1T3', backupCodec: false }, codec: 'vp9' },
  { name: 'av1 L1T3', options: { codec: 'av1', scalabilityMode: 'L1T3', backupCodec: false }, codec: 'av1' },
];

for (const mode of [{ singlePeerConnection: true }, { singlePeerConnection: false }]) {
  const how = mode.singlePeerConnection ? 'one peer connection' : 'two peer connections';
  scenario(`codecs of Chromium (${how})`, 600, async (stage) => {
    const list = new Checklist();
    const sender = await stage.join('chromium', 'anna', { ...mode, dynacast: true });
    const viewer = await stage.join('chromium', 'ben', mode);
    await publishAll(list, sender, [viewer], CHROMIUM, 'plain');
    for (const { name, options, codec } of SCREENS) {
      await list.check(`screen ${name}`, async () => {
        await sender.publishScreen(options);
        await flows(viewer, sender, { source: 'screen_share', codec });
      });
      await sender.unpublish('screen_share').catch(() => {});
    }
    list.end();
  });
}

scenario('codecs of Chromium, encrypted', 600, async (stage) => {
  const list = new Checklist();
  const e2ee = passphrase();
  const sender = await stage.join('chromium', 'anna', { e2ee, dynacast: true });
  const viewer = await stage.join('chromium', 'ben', { e2ee });
  await publishAll(list, sender, [viewer], ENCRYPTED, 'encrypted');
  list.end();
});

scenario('codecs of Firefox', 400, async (stage) => {
  const list = new Checklist();
  const sender = await stage.join('firefox', 'anna', { dynacast: true });
  const viewer = await stage.join('chromium', 'ben', {});
  // The SDK sends VP8 in place of VP9 from Firefox.
  const fromFirefox = CHROMIUM.filter(({ name }) => /^(vp8|vp9 with)/.test(name)).map((one) => ({ ...one, codec: 'vp8' }));
  await publishAll(list, sender, [viewer], fromFirefox, 'Firefox');
  // Not H.264: a Firefox without OpenH264 has no decoder for it.
  await publishAll(list, viewer, [sender], CHROMIUM.filter(({ name }) => /^(vp8 sim|vp9 L3|av1 L3)/.test(name)), 'Chromium to Firefox');
  list.end();
});
