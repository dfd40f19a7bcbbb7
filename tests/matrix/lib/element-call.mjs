// Element Call as it comes from npm, served on loopback, and users who click through it as people do.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as site from '../../../deploy/demo/site.mjs';
import { HERE, OUT } from '../../clients/lib/paths.mjs';
import { NotYet, until } from '../../clients/lib/until.mjs';
import { User } from './homeserver.mjs';

const DIST = join(HERE, 'node_modules', '@element-hq', 'element-call-embedded', 'dist');
const LOAD_MS = 60_000;

/** Serves Element Call for a homeserver and its weir; returns the origin. */
export async function serve({ homeserver, weir }) {
  const { server, port } = await site.serve({ dist: DIST, homeserver: homeserver.base, serverName: homeserver.name, weir: weir.base });
  server.unref();
  return `http://localhost:${port}`;
}

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
    return { shown: box.width > 100 && box.height > 80, width: video.videoWidth, frames: totalVideoFrames, time: video.currentTime, paused: video.paused };
  });
  const inbound = [];
  for (const connection of window.weirConnections) {
    if (connection.connectionState === 'closed') continue;
    for (const report of (await connection.getStats()).values()) {
      if (report.type !== 'inbound-rtp') continue;
      const { kind, packetsReceived: packets, framesDecoded: frames = 0, totalAudioEnergy: energy = 0, lastPacketReceivedTimestamp: last = 0 } = report;
      inbound.push({ kind, packets, frames, energy, last });
    }
  }
  return { videos, inbound, connections: window.weirConnections.length };
}

const total = (look, kind, what) => look.inbound.filter((one) => one.kind === kind).reduce((sum, one) => sum + one[what], 0);

export class Caller {
  static async open(browser, name) {
    const caller = new Caller();
    caller.name = name;
    caller.console = [];
    const context = await browser.createBrowserContext();
    caller.page = await context.newPage();
    await caller.page.setViewport({ width: 900, height: 640 });
    // Both pages count as the one in front: a hidden page asks for no video.
    await (await caller.page.createCDPSession()).send('Emulation.setFocusEmulationEnabled', { enabled: true });
    await caller.page.evaluateOnNewDocument(keepPeerConnections);
    caller.page.on('console', (message) => caller.console.push(`${new Date().toISOString()} ${message.type()} ${message.text()}`));
    return caller;
  }

  on(testId) {
    return this.page.locator(`[data-testid="${testId}"]`).setTimeout(LOAD_MS);
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

  async enter() {
    await this.on('lobby_joinCall').click();
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
    return this.page.evaluate(lookAround);
  }

  text() {
    return this.page.evaluate(() => document.body.innerText);
  }

  /** Waits until `tiles` videos move, pictures of others among them are decoded and the others are heard. */
  async sees(tiles, limitMs) {
    const first = await this.look();
    return until(`${this.name} sees ${tiles} moving tiles and hears the others`, limitMs, async () => {
      const look = await this.look();
      const moving = look.videos.filter((video, at) => video.shown && video.width > 0 && !video.paused && video.time > (first.videos[at]?.time ?? 0));
      const decoded = total(look, 'video', 'frames');
      const heard = total(look, 'audio', 'energy');
      const known = first.connections === look.connections;
      const fresh = decoded > (known ? total(first, 'video', 'frames') : 0) && heard > (known ? total(first, 'audio', 'energy') : 0);
      if (moving.length < tiles || !fresh) throw new NotYet(`saw ${JSON.stringify(look)}`);
      return look;
    }, 300);
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
