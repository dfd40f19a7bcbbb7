// The room's state decides who is in the call.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sees } from '../../clients/lib/judge.mjs';
import { PythonParticipant } from '../../clients/lib/python.mjs';
import { until } from '../../clients/lib/until.mjs';
import { claimsOf, request } from '../lib/homeserver.mjs';
import { lab } from '../lib/lab.mjs';

const here = lab();
const EJECTED_MS = 1000;
const GHOST_MS = 15_000;

/** A LiveKit client of that user, in the call of the room, with camera. */
async function enters(t, user, room, number) {
  const answer = await user.callToken(here.weir, room);
  assert.equal(answer.status, 200, JSON.stringify(answer.json));
  await user.standInCall(here.weir, room);
  const client = await PythonParticipant.open({ name: user.id, number });
  t.after(() => client.close());
  client.jwt = answer.json.jwt;
  client.identity = claimsOf(client.jwt).sub;
  const connected = await client.connect({ url: answer.json.url, token: client.jwt, number });
  assert.ok(!connected.error, JSON.stringify(connected.error));
  await client.publishCamera();
  return client;
}

const validate = (jwt) => request('GET', `${here.weir.base}/rtc/validate?access_token=${jwt}`);

test('who is not in the room is refused; who is kicked loses the call at once, and may come back when let in', { timeout: 120_000 }, async (t) => {
  const [alice, bob, mallory] = await Promise.all(['alice', 'bob', 'mallory'].map((name) => here.homeserver.user(name)));
  const room = await alice.createRoom();
  await alice.moderate('invite', room, bob);
  assert.equal((await bob.callToken(here.weir, room)).status, 403, 'an invitation is not a membership');
  await bob.join(room);

  const refused = await mallory.callToken(here.weir, room);
  assert.equal(refused.status, 403, JSON.stringify(refused.json));
  assert.equal(refused.json.errcode, 'M_FORBIDDEN');
  const forged = await request('POST', `${here.weir.base}/sfu/get`,
    { room, openid_token: { access_token: 'forged', token_type: 'Bearer', matrix_server_name: here.homeserver.name, expires_in: 3600 }, device_id: 'D' });
  assert.ok([401, 403].includes(forged.status), JSON.stringify(forged));

  const watching = await enters(t, alice, room, 1);
  const kicked = await enters(t, bob, room, 2);
  await sees(watching, kicked, { limitMs: 30_000 });
  await sees(kicked, watching, { limitMs: 30_000 });
  assert.equal((await validate(kicked.jwt)).status, 200);

  await alice.moderate('kick', room, bob);
  const answered = Date.now();
  const gone = await until('the kicked client is disconnected', 5000, () => kicked.event('disconnected'), 20);
  const left = await until('the other sees him leave', 5000, () => watching.event('participantDisconnected', () => true, answered - 5000), 20);
  t.diagnostic(`kicked client disconnected ${gone.t - answered} ms after the homeserver's answer, seen by the other at ${left.t - answered} ms`);
  assert.ok(gone.t - answered <= EJECTED_MS, `disconnected only ${gone.t - answered} ms after the homeserver's answer`);
  assert.ok(left.t - answered <= EJECTED_MS, `others saw it only ${left.t - answered} ms after the homeserver's answer`);
  const old = await validate(kicked.jwt);
  assert.ok([401, 403].includes(old.status), `the old token is answered with ${old.status}`);
  assert.equal((await bob.callToken(here.weir, room)).status, 403);

  const emptied = await until('his call membership is emptied by weir', GHOST_MS, async () => {
    return !(await alice.standing(room)).includes(bob.memberKey) && Date.now();
  });
  t.diagnostic(`membership of the kicked emptied after ${emptied - answered} ms`);

  await alice.moderate('invite', room, bob);
  await bob.join(room);
  const again = await enters(t, bob, room, 3);
  await sees(watching, again, { limitMs: 30_000 });
  assert.notEqual((await validate(kicked.jwt)).status, 200, 'a revoked token stays revoked');
});

test('a client program that dies leaves no ghost', { timeout: 90_000 }, async (t) => {
  const [carol, dave] = await Promise.all(['carol', 'dave'].map((name) => here.homeserver.user(name)));
  const room = await carol.createRoom();
  await carol.moderate('invite', room, dave);
  await dave.join(room);
  await enters(t, carol, room, 1);
  const dying = await enters(t, dave, room, 2);
  assert.ok((await carol.standing(room)).includes(dave.memberKey));
  dying.close();
  const killed = Date.now();
  const gone = await until('the membership of the dead client is emptied', GHOST_MS, async () => {
    return !(await carol.standing(room)).includes(dave.memberKey) && Date.now();
  });
  t.diagnostic(`membership emptied ${gone - killed} ms after the kill`);
  assert.ok((await carol.standing(room)).includes(carol.memberKey), 'the other one is still in the call');
});

// weir learns nothing of the death; what it knows is who was in the call when it was killed itself.
const RESTARTED_MS = 3000;

test('nor does one that dies while weir is being restarted', { timeout: 90_000 }, async (t) => {
  const erin = await here.homeserver.user('erin');
  const room = await erin.createRoom();
  const dying = await enters(t, erin, room, 1);
  await until('weir has noted that she is in the call', 5000, async () => {
    const rooms = (await request('GET', `http://127.0.0.1:${here.weir.adminPort}/debug/rooms`)).json;
    return rooms.flatMap(({ participants }) => participants).some(({ connected, tracks }) => connected && tracks > 0);
  });
  dying.close();
  const killed = Date.now();
  await here.weir.end('SIGKILL');
  await here.weir.launch();
  const gone = await until('her membership is emptied', GHOST_MS + RESTARTED_MS, async () => {
    return !(await erin.standing(room)).includes(erin.memberKey) && Date.now();
  });
  t.diagnostic(`membership emptied ${gone - killed} ms after the kill`);
});
