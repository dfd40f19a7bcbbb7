// Headless Chromium and Firefox, one process each per test file, and participants that live in their pages.

import puppeteer from 'puppeteer-core';
import { writeFile } from 'node:fs/promises';
import { CHROMIUM, FIREFOX } from './paths.mjs';
import { Participant } from './participant.mjs';
import { site } from './site.mjs';
import { soundCard } from './sound.mjs';
import { within } from './until.mjs';

// Besides media without devices: loopback candidates with plain addresses, nothing that phones home, and no
// throttling of pages that are not in front.
const FAKE_CAMERA = '--use-fake-device-for-media-stream';
const CHROMIUM_FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-default-apps', '--disable-breakpad', '--no-proxy-server',
  '--disable-dev-shm-usage', '--disable-background-timer-throttling', '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding', '--autoplay-policy=no-user-gesture-required', '--use-fake-ui-for-media-stream',
  FAKE_CAMERA, '--allow-loopback-in-peer-connection', '--force-webrtc-ip-handling-policy=default',
  '--disable-features=WebRtcHideLocalIpsWithMdns,OptimizationHints,MediaRouter,CalculateNativeWinOcclusion',
];

const FIREFOX_PREFS = {
  'media.peerconnection.ice.default_address_only': false,
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  'media.gmp-manager.updateEnabled': false,
  'dom.min_background_timeout_value': 4,
  'network.manage-offline-status': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'network.proxy.type': 0,
  'network.trr.mode': 5,
  'app.normandy.enabled': false,
  'app.update.auto': false,
  'browser.region.network.url': '',
  'browser.safebrowsing.update.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'browser.safebrowsing.phishing.enabled': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'extensions.update.enabled': false,
  'services.settings.server': 'data:,',
  'toolkit.telemetry.enabled': false,
};

const LAUNCH = {
  chromium: { browser: 'chrome', executablePath: CHROMIUM, args: CHROMIUM_FLAGS },
  firefox: { browser: 'firefox', executablePath: FIREFOX, extraPrefsFirefox: FIREFOX_PREFS },
};
const VIEWPORT = { width: 1600, height: 1000 };

const running = new Map();
let sound = null;

/** A fresh browser process, for tests that kill it. Chromium's camera can be told to be slow, where there are many. */
export async function launch(kind, { cameraFps, flags = [] } = {}) {
  const options = { headless: true, defaultViewport: VIEWPORT, protocolTimeout: 60_000, ...LAUNCH[kind] };
  options.args = [...(options.args ?? []), ...flags];
  if (cameraFps) options.args = options.args.map((flag) => (flag === FAKE_CAMERA ? `${flag}=fps=${cameraFps}` : flag));
  if (!options.executablePath) throw new Error(`${kind} is not installed: run tests/run.sh setup`);
  if (kind === 'firefox') {
    sound ??= await soundCard();
    if (sound) options.env = { ...process.env, ...sound.env };
    else options.extraPrefsFirefox = { ...FIREFOX_PREFS, 'media.cubeb.force_mock_context': true };
  }
  return puppeteer.launch(options);
}

/** The browser that the scenarios of one file share. */
function shared(kind) {
  if (!running.has(kind)) running.set(kind, launch(kind));
  return running.get(kind);
}

export async function closeBrowsers() {
  for (const starting of running.values()) {
    const browser = await starting.catch(() => null);
    try {
      await within('browser closes', 5000, browser?.close());
    } catch {
      browser?.process()?.kill('SIGKILL');
    }
  }
  running.clear();
  sound?.close();
  sound = null;
}

export class PageParticipant extends Participant {
  /** `own` starts a browser process for this participant alone, with `flags`; `sdk` names another livekit-client of package.json. */
  static async open({ kind, own = false, flags, sdk, ...who }) {
    const participant = new PageParticipant({ kind, ...who });
    participant.sdk = sdk;
    participant.browser = own ? await launch(kind, { flags }) : await shared(kind);
    participant.owned = own;
    participant.context = await participant.browser.createBrowserContext();
    participant.console = [];
    await participant.newPage();
    return participant;
  }

  async newPage() {
    this.page = await this.context.newPage();
    await this.page.setViewport(VIEWPORT);
    const say = (text) => this.console.push(`${new Date().toISOString()} ${text}`);
    // The SDK logs each line twice: once with objects that have no text here, once as text (see page/app.js).
    this.page.on('console', (message) => {
      if (!message.text().includes('[object Object]')) say(`${message.type()} ${message.text()}`);
    });
    this.page.on('pageerror', (error) => say(`page error ${error.stack ?? error}`));
    await this.load();
  }

  async load() {
    const url = (await site()) + (this.sdk ? `${this.sdk}/` : '');
    await this.page.goto(url, { waitUntil: 'load', timeout: 20_000 });
    await this.page.waitForFunction('window.weirTest !== undefined', { timeout: 10_000 });
  }

  call(method, args) {
    return this.page.evaluate((name, given) => window.weirTest[name](given), method, args);
  }

  /** Closes the tab as a user does. */
  async closeTab() {
    await this.page.close({ runBeforeUnload: true });
  }

  /** The browser process dies on the spot; only for participants with a browser of their own. */
  killBrowser() {
    if (!this.owned) throw new Error('this browser is shared');
    this.browser.process().kill('SIGKILL');
  }

  async save(path) {
    await writeFile(`${path}.console.log`, this.console.join('\n'));
    if (this.page.isClosed()) return;
    await within('screenshot', 8000, this.page.screenshot({ path: `${path}.png` }));
    for (const what of ['look', 'events', 'inbox', 'sending', 'receiving', 'transports']) {
      await writeFile(`${path}.${what}.json`, JSON.stringify(await this.ask(what, undefined, 5000), null, 1));
    }
  }

  async close() {
    const closing = this.owned ? this.browser.close() : this.context.close();
    try {
      await within('page closes', 5000, closing);
    } catch {
      if (this.owned) this.browser.process()?.kill('SIGKILL');
    }
  }
}
