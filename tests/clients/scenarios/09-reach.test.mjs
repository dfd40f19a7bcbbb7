// Networks that let little through, and networks that change: how a client still reaches the server.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { hears, keepsSeeing, sees } from '../lib/judge.mjs';
import { inBothModes, scenario, withWeir } from '../lib/stage.mjs';
import { UdpProxy } from '../lib/udp-proxy.mjs';
import { NotYet, until } from '../lib/until.mjs';
import { freeTcpPort } from '../lib/weir.mjs';

const certificate = mkdtempSync(join(tmpdir(), 'weir-certificate-'));
after(() => rmSync(certificate, { recursive: true, force: true }));

/** An IPv6 address for the interface of the tests' own namespace, if there is one and the kernel knows IPv6. */
function giveIpv6() {
  const address = (what) => execFileSync('ip', ['-6', 'addr', what, 'fd99::1/64', 'dev', 'weir0', ...(what === 'add' ? ['nodad'] : [])], { stdio: 'ignore' });
  try {
    address('add');
  } catch {
    return false;
  }
  after(() => address('del'));
  return true;
}

function makeCertificate(name) {
  const [chain, key] = ['pem', 'key'].map((end) => join(certificate, `${name}.${end}`));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', key, '-out', chain], { stdio: 'ignore' });
  return { chain, key };
}

const { chain, key } = makeCertificate('turn');
const turnPort = await freeTcpPort();
const tlsPort = await freeTcpPort();
const ipv6 = giveIpv6();

withWeir({
  // One thread, one port: the proxy stands before it.
  rtc: '  media_threads: 1\n',
  extra: `turn:
  enabled: true
  domain: localhost
  udp_port: ${turnPort}
  tcp_port: ${turnPort}
  tls_port: ${tlsPort}
  cert_file: ${chain}
  key_file: ${key}
`,
});

/** Chromium that takes the server's own certificate, in a process of its own. */
const TRUSTING = { own: true, flags: ['--ignore-certificate-errors'] };

/** Both publish; they see and hear each other within `limitMs` from the join of `guest`. */
async function call(stage, kind, options, limitMs) {
  const { own, flags, ...connect } = options;
  const host = await stage.join('chromium', 'anna');
  await Promise.all([host.publishCamera(), host.publishMicrophone()]);
  const guest = await stage.open(kind, 'ben', { own, flags });
  const since = Date.now();
  const answer = await stage.connect(guest, connect);
  assert.equal(answer.error, undefined, JSON.stringify(answer.error));
  await Promise.all([sees(guest, host, { limitMs }), guest.publishCamera(), guest.publishMicrophone()]);
  const took = Date.now() - since;
  await Promise.all([sees(host, guest, { limitMs }), hears(host, guest), hears(guest, host)]);
  console.log(`# the first picture came after ${took} ms`);
  return { host, guest, took };
}

/** The ways the guest's media takes, once they are as expected. */
async function takes(guest, expected) {
  return until(`media of ${guest.identity} takes ${JSON.stringify(expected)}`, 8000, async () => {
    const paths = (await guest.paths()).filter(Boolean);
    const fits = (path) => Object.entries(expected).every(([name, value]) => path[name] === value);
    if (!paths.length || !paths.every(fits)) throw new NotYet(JSON.stringify(paths));
    return paths;
  });
}

inBothModes('with UDP blocked, ICE-TCP carries the call within five seconds', 60, async (stage, mode) => {
  const { guest, took } = await call(stage, 'chromium', { ...mode, reach: { protocol: 'tcp' } }, 10_000);
  await takes(guest, { protocol: 'tcp', port: stage.weir.tcpPort });
  assert.ok(took <= 5000, `it took ${took} ms`);
});

// Chromium checks its path every 2.5 s, Firefox every 4 to 6; then media follows at once.
for (const [kind, seconds, rounds] of [['chromium', 3, 2], ['firefox', 6, 1]]) {
  scenario(`the client's address changes in mid-call and media follows within ${seconds} s (${kind})`, 90, async (stage) => {
    const [udpPort] = stage.weir.udpPorts();
    const proxy = stage.keep(await UdpProxy.to(udpPort));
    const reach = { via: proxy.port, host: proxy.host };
    const { host, guest } = await call(stage, kind, { reach }, 15_000);
    await takes(guest, { protocol: 'udp', port: proxy.port });
    for (let round = 0; round < rounds; round++) {
      await proxy.change();
      // The age of a picture counts from its painting: some of it is what encoding and decoding take on a busy machine.
      const staleMs = seconds * 1000 + 1500;
      const ages = await Promise.all([
        keepsSeeing(host, guest, { forMs: staleMs + 1000, staleMs }),
        keepsSeeing(guest, host, { forMs: staleMs + 1000, staleMs }),
      ]);
      console.log(`# oldest pictures after the change: ${ages.join(' and ')} ms`);
    }
    assert.equal((await guest.look()).state, 'connected');
    assert.equal(await guest.event('reconnecting'), undefined, 'nobody had to reconnect');
  });
}

scenario('IPv6 alone carries a call', 60, async (stage) => {
  if (!ipv6) return console.log('# this machine has no IPv6');
  const { guest } = await call(stage, 'chromium', { reach: { family: 6 } }, 10_000);
  const [{ address }] = await takes(guest, { protocol: 'udp' });
  assert.ok(address.includes(':'), address);
});

const relayOnly = { rtcConfig: { iceTransportPolicy: 'relay' } };

/** Only the TURN server that starts with `scheme` and takes `transport`. */
const only = (scheme, transport) => ({ ...relayOnly, turn: { scheme, transport } });

inBothModes('a client that may only speak to the TURN service over TLS is in the call', 60, async (stage, mode) => {
  const { guest } = await call(stage, 'chromium', { ...TRUSTING, ...mode, ...only('turns:', 'tcp') }, 15_000);
  await takes(guest, { type: 'relay', relayProtocol: 'tls', protocol: 'udp' });
});

for (const transport of ['udp', 'tcp']) {
  for (const kind of ['chromium', 'firefox']) {
    scenario(`a client that may only speak to the TURN service over ${transport.toUpperCase()} is in the call (${kind})`, 60, async (stage) => {
      const { guest } = await call(stage, kind, only('turn:', transport), 15_000);
      await takes(guest, { type: 'relay', relayProtocol: transport, protocol: 'udp' });
    });
  }
}
