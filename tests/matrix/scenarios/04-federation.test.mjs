// Homeservers that federate, each with its own weir, and one without any SFU, whose users' clients name the first one's.
//
// Two people in Element Call show that each publishes to their own server; the rest is asked with LiveKit clients, which
// cost less.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { launch } from '../../clients/lib/browsers.mjs';
import { LIVE_MS, sees, trackOf } from '../../clients/lib/judge.mjs';
import { PythonParticipant } from '../../clients/lib/python.mjs';
import { sleep, until } from '../../clients/lib/until.mjs';
import { Caller, SMALL, serve } from '../lib/element-call.mjs';
import { claimsOf, request } from '../lib/homeserver.mjs';
import { lab } from '../lib/lab.mjs';

const here = lab({ federated: [true, true, false] });
const NAMES = ['alice', 'bob'];
const ALL_SEEN_MS = 90_000;
const INVITED_MS = 20_000;
const EJECTED_MS = 1000;
const browsers = [];
const killBrowsers = () => browsers.splice(0).forEach((browser) => browser.process()?.kill('SIGKILL'));
after(killBrowsers);

/** How many tracks are published on a weir, as its operator sees it. */
async function published({ weir }) {
  const { json } = await request('GET', `http://127.0.0.1:${weir.adminPort}/debug/rooms`);
  return json.flatMap(({ participants }) => participants).reduce((sum, { tracks }) => sum + tracks, 0);
}

/** Remote users join a room of the first homeserver as soon as their invitations have arrived. */
async function joinAll(room, users) {
  const path = `/join/${encodeURIComponent(room)}?via=${encodeURIComponent(here.homeserver.name)}`;
  for (const user of users) {
    await until(`${user.id} has joined`, INVITED_MS, async () => (await user.ask('POST', path, {})).status === 200);
  }
}

/** A LiveKit client of that user in the call of the room, on the first weir, with camera. */
async function enters(t, user, room, number) {
  const answer = await user.callToken(here.weir, room);
  assert.equal(answer.status, 200, JSON.stringify(answer.json));
  const client = await PythonParticipant.open({ name: user.id, number });
  t.after(() => client.close());
  client.jwt = answer.json.jwt;
  client.identity = claimsOf(client.jwt).sub;
  const connected = await client.connect({ url: answer.json.url, token: client.jwt, number });
  assert.ok(!connected.error, JSON.stringify(connected.error));
  await client.publishCamera();
  return client;
}

test('two people of two homeservers in an encrypted call, each on their own weir', { timeout: 240_000 }, async (t) => {
  const homes = here.places.slice(0, 2);
  const users = await Promise.all(homes.map(({ homeserver }, at) => homeserver.user(NAMES[at])));
  const [alice, bob] = users;
  const room = await alice.createRoom({ encrypted: true, invite: [bob] });
  await joinAll(room, [bob]);
  const callers = [];
  try {
    for (const [at, home] of homes.entries()) {
      browsers.push(await launch('chromium', { cameraFps: 5 }));
      callers.push(await Caller.open(browsers.at(-1), `${NAMES[at]}-federated`, { width: 640, height: 480 }));
      await callers[at].arrive(await serve(home, { settings: SMALL }), users[at], room);
    }
    for (const caller of callers) await caller.enter();
    const begin = Date.now();
    for (const caller of callers) await caller.sees(2, ALL_SEEN_MS, 1);
    for (const caller of callers) await caller.shows(2, ALL_SEEN_MS);
    t.diagnostic(`both see and hear each other after ${Date.now() - begin} ms`);
    for (const caller of callers) await caller.keep('federated');
    for (const home of homes) assert.equal(await published(home), 2, 'sound and picture of one person on each weir');

    await alice.moderate('kick', room, bob);
    const answered = Date.now();
    let last = 0;
    await until('packets of the kicked stop', 8000, async () => {
      last = Math.max(last, await callers[0].lastPacket());
      return Date.now() - last > 1500;
    }, 50);
    t.diagnostic(`last packet of the kicked ${Math.round(last - answered)} ms after the homeserver's answer`);
    assert.ok(last - answered <= EJECTED_MS, `packets still came ${last - answered} ms after the answer`);
    for (const { weir } of homes) assert.equal((await bob.callToken(weir, room)).status, 403);
  } catch (error) {
    await Promise.allSettled(callers.map((caller) => caller.keep('failed')));
    throw error;
  } finally {
    killBrowsers();
  }
});

test('a user of a homeserver without SFU publishes through the other one\'s, until kicked', { timeout: 120_000 }, async (t) => {
  const [first, , third] = here.places;
  const alice = await first.homeserver.user('anna');
  const [carol, mallory] = await Promise.all(['carol', 'mallory'].map((name) => third.homeserver.user(name)));
  const room = await alice.createRoom({ invite: [carol] });
  await joinAll(room, [carol]);
  const refused = await mallory.callToken(first.weir, room);
  assert.equal(refused.status, 403, JSON.stringify(refused.json));

  const local = await enters(t, alice, room, 1);
  const remote = await enters(t, carol, room, 2);
  await sees(local, remote, { limitMs: 30_000 });
  await sees(remote, local, { limitMs: 30_000 });
  await alice.moderate('kick', room, carol);
  const answered = Date.now();
  const gone = await until('the kicked client is disconnected', 5000, () => remote.event('disconnected'), 20);
  const left = await until('the other sees her leave', 5000, () => local.event('participantDisconnected', () => true, answered - 5000), 20);
  t.diagnostic(`disconnected ${gone.t - answered} ms after the homeserver's answer, seen by the other at ${left.t - answered} ms`);
  assert.ok(gone.t - answered <= EJECTED_MS && left.t - answered <= EJECTED_MS);
  assert.equal((await request('GET', `${first.weir.base}/rtc/validate?access_token=${remote.jwt}`)).status, 401);
  assert.equal((await carol.callToken(first.weir, room)).status, 403);
});

// The two minutes are for a run by hand; what matters after a few seconds matters after two minutes.
const OUTAGE_MS = Number(process.env.WEIR_TEST_OUTAGE_S ?? 20) * 1000;
const REFUSED_MS = 30_000;
// Both homeservers wait ever longer between attempts, on each other and on weir: usually 11 s.
const CAUGHT_UP_MS = 30_000;

test('a homeserver that is gone for a while leaves the call alone, and catches up', { timeout: 120_000 + OUTAGE_MS }, async (t) => {
  const [first, second] = here.places;
  const alice = await first.homeserver.user('ada');
  const [dave, erin] = await Promise.all(['dave', 'erin'].map((name) => second.homeserver.user(name)));
  const room = await alice.createRoom({ invite: [dave, erin], levels: { [alice.id]: 100, [erin.id]: 100 } });
  await joinAll(room, [dave, erin]);
  const local = await enters(t, alice, room, 1);
  const remote = await enters(t, dave, room, 2);
  await sees(local, remote, { limitMs: 30_000 });
  await sees(remote, local, { limitMs: 30_000 });
  const proof = await alice.must('POST', `/user/${encodeURIComponent(alice.id)}/openid/request_token`, {});

  await first.homeserver.halt();
  const stopped = Date.now();
  const ask = request('POST', `${first.weir.base}/sfu/get`, { room, openid_token: proof, device_id: 'NEW' }).then((answer) => [answer, Date.now() - stopped]);
  let worst = 0;
  let banned = false;
  while (Date.now() - stopped < OUTAGE_MS) {
    for (const [viewer, sender] of [[local, remote], [remote, local]]) {
      const { picture } = await trackOf(viewer, sender, 'camera');
      worst = Math.max(worst, picture.age);
    }
    if (!banned && Date.now() - stopped > OUTAGE_MS / 2) {
      await erin.moderate('ban', room, dave);
      banned = true;
    }
    await sleep(200);
  }
  t.diagnostic(`oldest picture in ${OUTAGE_MS} ms without a homeserver: ${Math.round(worst)} ms`);
  assert.ok(worst < LIVE_MS, `a picture was ${worst} ms old`);
  const [refused, after] = await ask;
  t.diagnostic(`a join was refused with ${refused.status} after ${after} ms`);
  assert.equal(refused.status, 503, JSON.stringify(refused.json));
  assert.ok(after < REFUSED_MS);
  assert.ok(!(await remote.event('disconnected')), 'weir cannot know of the ban yet');

  await first.homeserver.start();
  const back = Date.now();
  // Synapse tries a server that was down when it has something to send to it, or once a minute.
  let said = 0;
  await until('the banned one is sent away', CAUGHT_UP_MS, async () => {
    said += 1;
    await erin.must('PUT', `/rooms/${encodeURIComponent(room)}/send/m.room.message/back-${said}`, { msgtype: 'm.text', body: 'hello again' });
    return remote.event('disconnected');
  }, 500);
  t.diagnostic(`sent away ${Date.now() - back} ms after the homeserver answered again`);
  await until('tokens are given again', CAUGHT_UP_MS, async () => (await alice.callToken(first.weir, room)).status === 200);
  assert.equal((await dave.callToken(first.weir, room)).status, 403);
});
