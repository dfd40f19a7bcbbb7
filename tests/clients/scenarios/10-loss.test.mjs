// What gets lost on the way to a viewer is sent again, and the picture goes on.

import assert from 'node:assert/strict';
import { sees, trackOf } from '../lib/judge.mjs';
import { passphrase } from '../lib/keys.mjs';
import { Network } from '../lib/network.mjs';
import { scenario, withWeir } from '../lib/stage.mjs';
import { sleep } from '../lib/until.mjs';

// One thread, one port: the network stands before it.
withWeir({ rtc: '  media_threads: 1\n' });

/** Several packets a frame: with one in ten lost and none repaired, half of the frames never become whole. */
const CAMERA = { width: 640, height: 360, fps: 15, layers: [] };
const LOSSY_MS = 8000;

for (const kind of ['chromium', 'firefox']) {
  scenario(`${kind} gets again what it lost`, 70, async (stage) => {
    const e2ee = passphrase();
    const anna = await stage.join('chromium', 'anna', { e2ee });
    const network = stage.keep(await Network.before(stage.weir.udpPorts()[0]));
    const ben = await stage.join(kind, 'ben', { e2ee, reach: network.reach });
    // Afterwards, so that packets may overtake the description of their section.
    await anna.publishCamera(CAMERA);
    await sees(ben, anna);
    network.become('down loss 10');
    const sentBefore = (await anna.sending())[0].framesSent;
    const before = await trackOf(ben, anna, 'camera');
    await sleep(LOSSY_MS);
    const after = await trackOf(ben, anna, 'camera');
    const sent = (await anna.sending())[0].framesSent - sentBefore;
    const decoded = after.framesDecoded - before.framesDecoded;
    console.log(`# ${kind}: ${decoded} of ${sent} frames, ${JSON.stringify(await network.stats())}`);
    assert.ok(decoded >= sent * 0.7, `${decoded} of ${sent} frames were decoded`);
  });
}
