// What operators look at, held against what is known of the call they look at.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { launch } from '../../clients/lib/browsers.mjs';
import { OUT, ROOT } from '../../clients/lib/paths.mjs';
import { scenario, withWeir } from '../../clients/lib/stage.mjs';
import { NotYet, until } from '../../clients/lib/until.mjs';
import { freeTcpPort } from '../../clients/lib/weir.mjs';
import { Prometheus, promtool } from '../lib/prometheus.mjs';

const RULES = join(ROOT, 'deploy', 'prometheus', 'weir.rules.yml');
const GRAFANA = join(ROOT, 'deploy', 'grafana');
const AXE = createRequire(join(ROOT, 'tests', 'clients', 'package.json')).resolve('axe-core/axe.min.js');
const metricsPort = await freeTcpPort();
const adminPort = await freeTcpPort();
const homePort = await freeTcpPort();
const admin = `http://127.0.0.1:${adminPort}`;

// A homeserver that is not there: its metrics are, and its alert has something to fire about.
withWeir({
  level: 'info',
  extra: `prometheus_port: ${metricsPort}
admin: {port: ${adminPort}}
room: {empty_timeout: 1, departure_timeout: 1}
matrix:
  state_file: ""
  homeservers:
    - server_name: hs.test
      client_api_url: "http://127.0.0.1:${homePort}"
      as_token: ${'a'.repeat(32)}
      hs_token: ${'b'.repeat(32)}
`,
});

const page = async (path) => (await fetch(`http://127.0.0.1:${metricsPort}${path}`)).text();

/** A metric of the page, summed over the labels that are left open. */
function total(text, name, labels = '') {
  const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  return lines.filter((line) => line.includes(labels)).reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

scenario('rules and dashboards are well-formed, and each alert fires on its fault alone', 60, async () => {
  await promtool(['check', 'rules', RULES]);
  await promtool(['test', 'rules', 'weir.rules.test.yml'], { cwd: join(ROOT, 'deploy', 'prometheus') });
  execFileSync('python3', [join(GRAFANA, 'make.py'), '--check'], { stdio: 'pipe' });
  const alerts = [...readFileSync(RULES, 'utf8').matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
  const explained = readFileSync(join(ROOT, 'docs', 'operations.md'), 'utf8');
  assert.deepEqual(alerts.filter((name) => !explained.includes(name)), [], 'explained in docs/operations.md');
  assert.deepEqual(await fetch(`http://127.0.0.1:${metricsPort}/debug/rooms`).then(({ status }) => status), 404, "rooms are the admin listener's");
});

scenario('a call shows on every panel, and the status page tells of it as it is', 150, async (stage) => {
  const prometheus = stage.keep(await Prometheus.start({ targets: [`127.0.0.1:${metricsPort}`], rules: RULES }));
  // Lints of names, help texts and types, as Prometheus' own authors want them. LiveKit's names are what they are.
  const lints = await promtool(['check', 'metrics'], { input: await page('/metrics') }).catch((error) => error.message);
  const ours = lints.split('\n').filter((line) => /^weir_|^process_/.test(line));
  assert.deepEqual(ours, [], 'promtool has something to say');

  // One room that ends soon, and one with a camera and three microphones.
  const gone = await stage.join('python', 'gone', { room: `${stage.room}-short` });
  await gone.disconnect();
  const anna = await stage.join('chromium', 'anna');
  const others = [await stage.join('python', 'ben'), await stage.join('python', 'carl')];
  await anna.publishCamera();
  for (const who of [anna, ...others]) await who.publishMicrophone();

  const room = await until('the status page has the call', 20_000, async () => {
    const { rooms } = await (await fetch(`${admin}/status.json`)).json();
    const full = rooms.find(({ participants }) => participants === 3);
    if (!full || full.downtracks < 8 || full.received_bps === 0) throw new NotYet(JSON.stringify(rooms));
    return full;
  });
  assert.deepEqual([room.tracks, room.downtracks], [4, 8], 'a camera and three microphones, each to two others');

  await check_panels(prometheus);
  await check_sums(prometheus);
  await until('the homeserver that is not there is on its way to be told of', 20_000, async () => {
    const alerts = await prometheus.alerts();
    if (!alerts.some(({ name }) => name === 'WeirHomeserverDown')) throw new NotYet(JSON.stringify(alerts));
    const wrong = alerts.filter(({ name, state }) => state === 'firing' && name !== 'WeirHomeserverDown');
    assert.deepEqual(wrong, [], 'nothing else is wrong');
    return true;
  });
  const { warnings } = await (await fetch(`${admin}/status.json`)).json();
  assert.deepEqual(warnings, ['homeserver hs.test does not answer: calls go on, joins wait']);
  await look(room.room);
});

/** Every query of every panel gives something. */
async function check_panels(prometheus) {
  const queries = readdirSync(GRAFANA).filter((name) => name.endsWith('.json')).flatMap((name) => {
    const { panels } = JSON.parse(readFileSync(join(GRAFANA, name), 'utf8'));
    return panels.flatMap(({ title, targets }) => targets.map(({ expr }) => ({ panel: `${name}: ${title}`, expr })));
  });
  assert.ok(queries.length > 50, `${queries.length} queries`);
  await until('every panel shows something', 30_000, async () => {
    const empty = [];
    for (const { panel, expr } of queries) {
      const found = await prometheus.query(expr.replaceAll('$__rate_interval', '15s').replaceAll('$node', '.*'));
      if (found.length === 0) empty.push(`${panel}: ${expr}`);
    }
    if (empty.length > 0) throw new NotYet(empty.join('\n'));
    return true;
  }, 1000);
}

/** What is offered is forwarded, dropped or pending; and numbers are those of the call. */
async function check_sums(prometheus) {
  const text = await page('/metrics');
  const offered = total(text, 'weir_shard_packets_offered_total');
  const ends = ['forwarded_total', 'dropped_total', 'pending'].map((end) => total(text, `weir_shard_packets_${end}`));
  assert.ok(offered > 100, `${offered} copies`);
  assert.equal(ends.reduce((sum, end) => sum + end, 0), offered, `forwarded, dropped, pending: ${ends}`);
  assert.equal(total(text, 'weir_shard_objects', 'kind="participant"'), 3);
  assert.equal(total(text, 'livekit_track_published_total', 'kind="AUDIO"'), 3);
  assert.equal(total(text, 'livekit_track_published_total', 'kind="VIDEO"'), 1);
  assert.equal(total(text, 'livekit_track_subscribed_total'), 8);
  const [{ value: participants }] = await prometheus.query('sum(livekit_participant_total)');
  assert.equal(participants, 3);
  const load = total(text, 'weir_load');
  assert.ok(load > 0 && load <= 1, `load ${load}`);
  assert.equal(await page('/readyz'), 'ready\n');
  assert.equal(await page('/healthz'), 'OK');
}

/** In a browser: whole without its script, good for everybody, on a wide screen and on a phone, by day and by night. */
async function look(number) {
  mkdirSync(OUT, { recursive: true });
  const browser = await launch('chromium');
  try {
    for (const [name, viewport, scheme] of [
      ['wide', { width: 1280, height: 900 }, 'light'],
      ['phone', { width: 360, height: 740, isMobile: true, hasTouch: true, deviceScaleFactor: 2 }, 'dark'],
    ]) {
      for (const path of ['/', `/rooms/${number}`, '/rooms/999999']) {
        const view = await browser.newPage();
        const asked = [];
        view.on('request', (request) => asked.push(request.url()));
        await view.setViewport(viewport);
        await view.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
        await view.goto(admin + path, { waitUntil: 'load' });
        assert.deepEqual(asked.filter((url) => !url.startsWith(`${admin}/`) && !url.startsWith('data:')), [], 'asks nobody else');
        const shown = `${name}${path.replaceAll('/', '-')}`;
        await view.screenshot({ path: join(OUT, `status-${shown}.png`), fullPage: true });
        const width = await view.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(width <= viewport.width, `${shown} is ${width} wide`);
        // Past the page's policy, which forbids what is not its own.
        await view.setBypassCSP(true);
        await view.reload({ waitUntil: 'load' });
        await view.evaluate(readFileSync(AXE, 'utf8'));
        const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
        const { violations, passes } = await view.evaluate((values) => axe.run(document, { runOnly: values }), tags);
        assert.ok(passes.length > 10, `${shown}: ${passes.length} rules`);
        const said = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(' ')}`);
        assert.deepEqual(said, [], `${shown} is not for everybody`);
        await view.close();
      }
    }
  } finally {
    await browser.close();
  }
}
