// A call over a bad network, case by case: one publisher on a good network, its viewers behind one bottleneck.

import assert from 'node:assert/strict';
import { cpus, loadavg } from 'node:os';
import { after } from 'node:test';
import { Network } from '../../clients/lib/network.mjs';
import { scenario, withServer, withWeir } from '../../clients/lib/stage.mjs';
import { ownAddress } from '../../clients/lib/udp-proxy.mjs';
import { NotYet, sleep, until } from '../../clients/lib/until.mjs';
import { chosen } from '../lib/cases.mjs';
import { Elsewhere } from '../lib/elsewhere.mjs';
import { bestSum, figures } from '../lib/figures.mjs';
import { Table } from '../lib/table.mjs';

if (Elsewhere.wanted) withServer(() => new Elsewhere());
// One thread, one port: the network stands before it.
else withWeir({ level: 'info', rtc: '  media_threads: 1\n' });

const table = new Table();
after(() => table.write());

const WIDTHS = [240, 480, 960];
const LAYERS = [{ width: 240, height: 135, bitrate: 150_000 }, { width: 480, height: 270, bitrate: 700_000 }];
const KEY = 'anna-1';
/** A burst of the encoder or of the machine is not yet what a layer costs. */
const WARM_UP_MS = 4000;
/** IP, UDP, the tag of SRTP. */
const BELOW_RTP = 38;

/** What each stream of `sender` takes of a link, in bits per second, lowest first: sound and the layers of the camera. */
function costsOf(before, after, seconds) {
  const rate = (now) => {
    const then = before.find(({ source, rid }) => source === now.source && rid === now.rid) ?? { bytesSent: 0, headerBytesSent: 0, packetsSent: 0 };
    const bytes = now.bytesSent + now.headerBytesSent - then.bytesSent - then.headerBytesSent + (now.packetsSent - then.packetsSent) * BELOW_RTP;
    return (bytes * 8) / seconds;
  };
  const of = (wanted) => after.filter(({ source }) => source === wanted).map(rate).sort((a, b) => a - b);
  return { voice: of('microphone')[0], layers: of('camera') };
}

/** Until the viewers show what fits, or some time has passed: how a call begins is another measurement. */
async function settle(viewers, wanted) {
  const look = async () => {
    const looks = await Promise.all(viewers.map((viewer) => viewer.look()));
    const widths = looks.map(({ participants }) => participants[KEY]?.tracks.camera?.width ?? 0);
    const shown = widths.reduce((sum, width) => sum + WIDTHS.filter((one) => one <= width).length, 0);
    if (shown < wanted) throw new NotYet(`shown: ${widths.join(' ')}`);
    return true;
  };
  await until('a picture comes', 40_000, async () => {
    const [{ participants }] = await Promise.all(viewers.map((viewer) => viewer.look()));
    return participants[KEY]?.tracks.camera?.width > 0;
  });
  await until('the best picture comes', 12_000, look, 250).catch((error) => console.log(`# ${error.message}`));
}

async function measure(stage, { name, line, phases, viewers: count = 1, tcp }) {
  const { weir: server } = stage;
  const anna = await stage.join('chromium', 'anna', { number: 1 });
  await Promise.all([anna.publishScenery({ layers: LAYERS }), anna.publishMicrophone({ dtx: false })]);
  const host = server.host ?? ownAddress();
  const network = stage.keep(await Network.before(server.mediaPort ?? server.udpPorts()[0], host, line, `down rate ${phases[0].rate}`));
  const viewers = [];
  for (const who of ['ben', 'carl'].slice(0, count)) {
    viewers.push(await stage.join('chromium', who, { reach: network.reach }));
  }
  const nominal = { voice: 70_000, layers: [165_000, 740_000, 1_830_000] };
  await settle(viewers, tcp ? 0 : bestSum(phases[0].rate * 1000, count, nominal));
  await sleep(WARM_UP_MS);
  await Promise.all(viewers.map((viewer) => viewer.measure()));
  await network.stats();
  const before = await anna.sending();
  const done = [];
  let beside = null;
  for (const { seconds, rate, words } of phases) {
    network.become(`down rate ${rate} ${words}`);
    if (words.includes('tcp on')) beside = await network.stats();
    const from = Date.now();
    await sleep(seconds * 1000);
    done.push({ from, to: Date.now(), rate: rate * 1000 });
  }
  const counted = await network.stats();
  const sent = await anna.sending();
  const costs = costsOf(before, sent, (done.at(-1).to - done[0].from) / 1000);
  const reports = await Promise.all(viewers.map((viewer) => viewer.measured()));
  const seen = reports.map(({ tracks, stalls }) => ({
    frames: tracks[`${KEY}/camera`]?.frames ?? [], sound: tracks[`${KEY}/microphone`]?.sound ?? [], stalls,
  }));
  const result = { ...figures({ phases: done, viewers: seen, costs, widths: WIDTHS }), tcp: Boolean(tcp) };
  const limited = sent.filter(({ source }) => source === 'camera').map(({ rid, limitedBy }) => `${rid} ${limitedBy}`);
  table.add({ name, result, network: counted, before: beside, costs, limited, browser: reports.map(({ tracks }) => Object.values(tracks).map((one) => one.counted)) });
  return result;
}

const full = Boolean(process.env.WEIR_QUALITY_FULL);
for (const one of chosen({ full, only: process.env.WEIR_QUALITY_ONLY })) {
  const seconds = one.phases.reduce((sum, phase) => sum + phase.seconds, 0);
  scenario(one.name, seconds + 120, async (stage) => {
    const result = await measure(stage, one);
    // Twice and more what it should be: this says that something is broken, the table says how good it is.
    assert.ok(result.lastFrameAgeMs < 4000, `the picture stands still for ${result.lastFrameAgeMs} ms at the end`);
    if (full) return;
    if (loadavg()[0] > 2 * cpus().length) return console.log('# this machine has too much to do to judge by more than that');
    assert.ok(result.longestConcealmentMs < 1000, `no sound for ${result.longestConcealmentMs} ms`);
    if (!one.goals) return;
    for (const took of result.drops) assert.ok(took <= 4000 || one.phases[1].rate < 300, `after the drop the picture fits after ${took} ms`);
    for (const took of result.rises) assert.ok(took <= 16_000, `after the rise the picture is back after ${took} ms`);
  });
}
