// What a viewer asks for is what comes: small tiles small, large tiles large, and nothing that nobody looks at.

import assert from 'node:assert/strict';
import { sees, seesNothingNew, trackOf } from '../lib/judge.mjs';
import { passphrase } from '../lib/keys.mjs';
import { inBothModes, scenario, withWeir } from '../lib/stage.mjs';
import { NotYet, sleep, until } from '../lib/until.mjs';

withWeir();

const LAYERS = [{ width: 320, height: 180, bitrate: 150_000 }, { width: 640, height: 360, bitrate: 400_000 }];
const CAMERA = { width: 1280, height: 720, fps: 10, layers: LAYERS };

/**
 * Waits until the picture arrives at this width, still readable. A publisher on a busy machine takes its own network for
 * narrow and sends its largest encoding late; how soon a tile is sharp on an idle one is measured in tests/quality.
 */
async function arrivesAt(viewer, sender, width, limitMs = 30_000) {
  await until(`${viewer.identity} gets ${sender.identity} at ${width} px`, limitMs, async () => {
    const track = await trackOf(viewer, sender, 'camera');
    if (track.width !== width) throw new NotYet(`it comes at ${track.width}x${track.height}`);
    return true;
  });
  return sees(viewer, sender);
}

/** What a picture of this width costs, once it has arrived. */
async function rateAt(viewer, sender, width) {
  await arrivesAt(viewer, sender, width);
  const before = await trackOf(viewer, sender, 'camera');
  await sleep(1500);
  const after = await arrivesAt(viewer, sender, width);
  return Math.round((after.bytes - before.bytes) / 1.5);
}

/** Encodings of the camera whose frames advance, by width. */
async function sentWidths(sender, forMs = 1500) {
  const before = await sender.sending();
  await sleep(forMs);
  const after = await sender.sending();
  return after
    .filter((now) => now.source === 'camera' && now.framesSent > (before.find(({ rid }) => rid === now.rid)?.framesSent ?? 0))
    .map(({ frameWidth }) => frameWidth)
    .sort((a, b) => a - b);
}

inBothModes('a smaller tile arrives smaller, a larger one larger, a hidden one not at all', 150, async (stage, mode) => {
  const e2ee = passphrase();
  const anna = await stage.join('chromium', 'anna', { ...mode, e2ee });
  await anna.publishCamera(CAMERA);
  const ben = await stage.join('chromium', 'ben', { ...mode, e2ee, adaptiveStream: true });
  await sees(ben, anna);
  for (const [tile, arrives] of [[160, 320], [1280, 1280], [640, 640], [320, 320], [1280, 1280]]) {
    await ben.resize({ identity: anna.identity, width: tile, height: (tile * 9) / 16 });
    await arrivesAt(ben, anna, arrives);
  }
  await ben.hide({ identity: anna.identity });
  await seesNothingNew(ben, anna, { limitMs: 12_000 });
  await ben.resize({ identity: anna.identity, width: 160, height: 90 });
  await arrivesAt(ben, anna, 320);
});

// Layers of every codec: encodings of their own, or layers inside one. libwebrtc cannot packetise encrypted AV1.
const CODECS = [
  { codec: 'vp9', encrypted: true, options: { scalabilityMode: 'L3T3_KEY', backupCodec: false } },
  { codec: 'av1', encrypted: false, options: { scalabilityMode: 'L3T3_KEY', backupCodec: false } },
  { codec: 'h264', encrypted: true, options: {} },
];
for (const { codec, encrypted, options } of CODECS) {
  scenario(`a smaller tile arrives smaller and a larger one larger with ${codec}`, 120, async (stage) => {
    const e2ee = encrypted ? passphrase() : undefined;
    const anna = await stage.join('chromium', 'anna', { e2ee });
    await anna.publishCamera({ ...CAMERA, codec, ...options });
    const ben = await stage.join('chromium', 'ben', { e2ee, adaptiveStream: true });
    await sees(ben, anna);
    const bytes = {};
    for (const width of [320, 1280, 640]) {
      await ben.resize({ identity: anna.identity, width, height: (width * 9) / 16 });
      bytes[width] = await rateAt(ben, anna, width);
    }
    const seen = await trackOf(ben, anna, 'camera');
    assert.equal(seen.codec?.toLowerCase(), `video/${codec}`);
    console.log(`# ${codec}: ${JSON.stringify(bytes)} bytes a second`);
  });
}

scenario('two viewers of one camera each get their own size', 90, async (stage) => {
  const e2ee = passphrase();
  const anna = await stage.join('chromium', 'anna', { e2ee });
  await anna.publishCamera(CAMERA);
  const small = await stage.join('chromium', 'ben', { e2ee, adaptiveStream: true });
  const large = await stage.join('firefox', 'carl', { e2ee, adaptiveStream: true });
  await Promise.all([sees(small, anna), sees(large, anna)]);
  await small.resize({ identity: anna.identity, width: 160, height: 90 });
  await large.resize({ identity: anna.identity, width: 1280, height: 720 });
  await Promise.all([arrivesAt(small, anna, 320), arrivesAt(large, anna, 1280)]);
});

scenario('a publisher does not encode what nobody looks at', 100, async (stage) => {
  const anna = await stage.join('chromium', 'anna', { dynacast: true });
  await anna.publishCamera(CAMERA);
  const ben = await stage.join('chromium', 'ben', { adaptiveStream: true });
  await sees(ben, anna);
  await ben.resize({ identity: anna.identity, width: 160, height: 90 });
  await until('only the smallest encoding is sent', 20_000, async () => {
    const widths = await sentWidths(anna);
    if (widths.join() !== '320') throw new NotYet(`sent: ${widths.join(' ') || 'nothing'}`);
    return true;
  });
  await ben.resize({ identity: anna.identity, width: 1280, height: 720 });
  await arrivesAt(ben, anna, 1280);
  assert.ok((await sentWidths(anna)).includes(1280));
});
