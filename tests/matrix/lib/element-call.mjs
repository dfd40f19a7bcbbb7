// Element Call as it comes from npm, served on loopback, and users who click through it as people do.

import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as site from '../../../deploy/demo/site.mjs';
import { MODULES, bundleInto } from '../../clients/lib/bundle.mjs';
import { HERE, OUT } from '../../clients/lib/paths.mjs';
import { NotYet, until } from '../../clients/lib/until.mjs';
import { User } from './homeserver.mjs';
import { Picture } from './picture.mjs';

const DIST = join(MODULES, '@element-hq', 'element-call-embedded', 'dist');
const LOAD_MS = 60_000;

/** Small and slow pictures: many of these pages share two cores with everything else. */
export const SMALL = {
  media_quality: { video: { max_resolution: 180, max_framerate: 10, max_bitrate: 150_000, simulcast_layers: [{ height: 90, bitrate: 60_000 }] } },
};

/**
 * Serves Element Call for a homeserver and a weir. With `widget` people meet it inside of a client (page/host.js), else
 * on its own page. The pages can be added to.
 */
export async function serve({ homeserver, weir }, { widget = false, settings = {} } = {}) {
  const pages = {};
  const files = widget ? await hostFiles() : {};
  const { server, port } = await site.serve({ dist: DIST, homeserver: homeserver.base, serverName: homeserver.name, weir: weir.base, pages, files, settings });
  server.unref();
  return { origin: `http://localhost:${port}`, homeserver: homeserver.base, pages, widget };
}

const HOST = join(HERE, '..', 'matrix', 'page', 'host.js');

/** The client around the widget, with everything it imports, and the WebAssembly that keeps its keys. */
async function hostFiles() {
  const script = join(mkdtempSync(join(tmpdir(), 'weir-host-')), 'host.js');
  await bundleInto(script, HOST);
  const keys = 'pkg/matrix_sdk_crypto_wasm_bg.wasm';
  return { '/client/host.js': script, [`/client/${keys}`]: join(MODULES, '@matrix-org', 'matrix-sdk-crypto-wasm', keys) };
}

const hostPage = (settings) => `<!doctype html><meta charset="utf-8"><title>client</title>
<style>html, body, iframe { margin: 0; border: 0; width: 100%; height: 100%; overflow: hidden; display: block }</style>
<script type="module">import { host } from './host.js'; host(${JSON.stringify(settings)});</script>`;

/** Runs in the page before its own code: keeps the peer connections where the test can ask them. */
function keepPeerConnections() {
  const Own = window.RTCPeerConnection;
  window.weirConnections = [];
  window.RTCPeerConnection = class extends Own {
    constructor(...args) {
      super(...args);
      window.weirConnections.push(this);
    }
  };
}

/** Runs in the page: what a person would see and hear, and what arrives. */
async function lookAround() {
  const videos = [...document.querySelectorAll('video')].map((video) => {
    const box = video.getBoundingClientRect();
    const { totalVideoFrames } = video.getVideoPlaybackQuality();
    const { x, y, width, height } = box;
    return { shown: width > 100 && height > 80, box: { x, y, width, height }, width: video.videoWidth, frames: totalVideoFrames, time: video.currentTime, paused: video.paused };
  });
  const inbound = [];
  for (const [at, connection] of window.weirConnections.entries()) {
    if (connection.connectionState === 'closed') continue;
    for (const report of (await connection.getStats()).values()) {
      if (report.type !== 'inbound-rtp') continue;
      const { id, kind, packetsReceived: packets, framesDecoded: frames = 0, totalAudioEnergy: energy = 0, lastPacketReceivedTimestamp: last = 0 } = report;
      inbound.push({ id: `${at} ${id}`, kind, packets, frames, energy, last });
    }
  }
  return { videos, inbound, connections: window.weirConnections.length };
}

/** How many streams of a kind went on between two looks. */
function went(on, kind, what, first) {
  const before = new Map(first.inbound.map((one) => [one.id, one[what]]));
  return on.inbound.filter((one) => one.kind === kind && one[what] > (before.get(one.id) ?? 0)).length;
}

export class Caller {
  static async open(browser, name, size = { width: 900, height: 640 }) {
    const caller = new Caller();
    caller.name = name;
    caller.console = [];
    const context = await browser.createBrowserContext();
    caller.page = await context.newPage();
    await caller.page.setViewport(size);
    // Both pages count as the one in front: a hidden page asks for no video.
    await (await caller.page.createCDPSession()).send('Emulation.setFocusEmulationEnabled', { enabled: true });
    await caller.page.evaluateOnNewDocument(keepPeerConnections);
    caller.page.on('console', (message) => caller.console.push(`${new Date().toISOString()} ${message.type()} ${message.text()}`));
    return caller;
  }

  /** Where Element Call is: the page, or a frame of it. */
  get place() {
    return this.frame ?? this.page;
  }

  on(testId) {
    return this.place.locator(`[data-testid="${testId}"]`).setTimeout(LOAD_MS);
  }

  /** Makes a call and stops in its lobby; returns the link for others. */
  async create(origin, callName) {
    await this.page.goto(`${origin}/`);
    await this.on('home_callName').fill(callName);
    await this.on('home_displayName').fill(this.name);
    await this.on('home_go').click();
    await this.on('lobby_joinCall').wait();
    return this.page.url();
  }

  /** Opens a link and stops in the lobby. */
  async follow(link) {
    await this.page.goto(link);
    await this.on('joincall_displayName').fill(this.name);
    await this.on('joincall_joincall').click();
    await this.on('lobby_joinCall').wait();
  }

  /** Opens the call of a room as a user who is signed in already, and stops in the lobby. */
  async arrive({ origin, homeserver, pages, widget }, user, room) {
    const session = { user_id: user.id, device_id: user.device, access_token: user.token };
    const path = widget ? `/client/${user.id}` : `/door/${user.id}`;
    pages[path] = widget
      ? hostPage({ homeserver, session, room, page: `${origin}/index.html` })
      : site.door(session, `/room/#/call?roomId=${encodeURIComponent(room)}`);
    await this.page.goto(`${origin}${path}`);
    if (widget) this.frame = await (await this.page.waitForSelector('#call', { timeout: LOAD_MS })).contentFrame();
    await this.on('lobby_joinCall').wait();
  }

  async enter() {
    await this.on('lobby_joinCall').click();
  }

  /** Closes the tab as a person does. */
  async close() {
    await this.page.close({ runBeforeUnload: true });
  }

  /** The user whom the page registered. */
  async user(homeserver) {
    return until(`the page of ${this.name} has a user`, LOAD_MS, async () => {
      const kept = await this.page.evaluate(() => Object.values(localStorage).find((text) => text.includes('"access_token"')));
      if (!kept) return false;
      const { user_id: id, device_id: device, access_token: token } = JSON.parse(kept);
      return new User(homeserver, { id, device, token });
    });
  }

  /** Looks without throwing where the page is busy loading something else. */
  async look() {
    return this.place.evaluate(lookAround);
  }

  text() {
    return this.place.evaluate(() => document.body.innerText);
  }

  /** Waits until `tiles` videos move, and of each of the `others` new pictures are decoded and new sound is heard. */
  async sees(tiles, limitMs, others = tiles - 1) {
    const first = await this.look();
    return until(`${this.name} sees ${tiles} moving tiles and hears ${others} others`, limitMs, async () => {
      const look = await this.look();
      const moving = look.videos.filter((video, at) => video.shown && video.width > 0 && !video.paused && video.time > (first.videos[at]?.time ?? 0));
      const seen = went(look, 'video', 'frames', first);
      const heard = went(look, 'audio', 'energy', first);
      if (moving.length < tiles || seen < others || heard < others) throw new NotYet(`saw ${JSON.stringify(look)}`);
      return look;
    }, 300);
  }

  /** Looks at the screen itself: waits until at least `tiles` tiles show a colourful picture that changes. */
  async shows(tiles, limitMs) {
    return until(`${tiles} tiles on the screen of ${this.name} show video`, limitMs, async () => {
      const { videos } = await this.look();
      const [one, other] = [await this.screen(), await this.screen()];
      const alive = videos.filter(({ shown, box }) => shown && one.colourful(box) > 0.3 && one.differs(other, box) > 0.002);
      if (alive.length < tiles) throw new NotYet(`${alive.length} do, of ${JSON.stringify(videos)}`);
      return true;
    }, 500);
  }

  async screen() {
    return new Picture(await this.page.screenshot());
  }

  /** When the last packet of others arrived, by the browser's own book-keeping; milliseconds of the wall clock. */
  async lastPacket() {
    const { inbound } = await this.look();
    return Math.max(0, ...inbound.map(({ last }) => last));
  }

  async keep(what) {
    mkdirSync(OUT, { recursive: true });
    const path = join(OUT, `${what}.${this.name}`);
    writeFileSync(`${path}.console.log`, this.console.join('\n'));
    if (this.page.isClosed()) return;
    await this.page.screenshot({ path: `${path}.png` });
  }
}
