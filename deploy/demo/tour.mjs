// The steps of `deploy/demo.sh tour`: each says what to expect, does it to the running demo, and how long it took.
//
// usage: node tour.mjs FOLDER STEP; what has to be stopped and started between the steps is the script's part.

import { createHmac, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const [, , folder, stepName] = process.argv;
const { places } = JSON.parse(readFileSync(join(folder, 'demo.json'), 'utf8'));
const { alice, bob, room } = JSON.parse(readFileSync(join(folder, 'world.json'), 'utf8'));
// The only place, or the first has Alice and the last has Bob.
const [first, last] = [places[0], places.at(-1)];
const isFederated = places.length > 1;
const placeOf = (user) => (user === bob ? last : first);
const { homeserver, secret } = first;
const inRoom = `/_matrix/client/v3/rooms/${encodeURIComponent(room)}`;
const links = { alice: `http://localhost:${first.port}/alice`, bob: `http://127.0.0.1:${last.port}/bob` };
const HUMAN_MS = 180_000;

const say = (text) => console.log(`  ${text}`);
const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(2)} s`;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function ask(method, url, body, token) {
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  const answer = await fetch(url, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(40_000) });
  const text = await answer.text();
  try {
    return { status: answer.status, json: JSON.parse(text) };
  } catch {
    return { status: answer.status, json: { error: text } };
  }
}

async function must(...request) {
  const { status, json } = await ask(...request);
  if (status !== 200) throw new Error(`${request[0]} ${request[1]}: ${status} ${json.error}`);
  return json;
}

const openid = (user) =>
  must('POST', `${placeOf(user).homeserver}/_matrix/client/v3/user/${encodeURIComponent(user.user_id)}/openid/request_token`, {}, user.access_token);
const callToken = async (user, proof) =>
  ask('POST', `${placeOf(user).weir}/sfu/get`, { room, openid_token: proof ?? (await openid(user)), device_id: user.device_id });

/** How many participants publish, as each weir counts them: everybody publishes to the one of their own homeserver. */
async function connected() {
  const counts = places.map(async ({ operator }) => {
    try {
      const rooms = await (await fetch(`${operator}/debug/rooms`, { signal: AbortSignal.timeout(3000) })).json();
      return rooms.flatMap((one) => one.participants).filter((one) => one.connected && one.tracks > 0).length;
    } catch {
      return 0;
    }
  });
  return (await Promise.all(counts)).reduce((sum, count) => sum + count, 0);
}

async function standing() {
  const state = await must('GET', `${homeserver}${inRoom}/state`, undefined, alice.access_token);
  return state.filter((event) => event.type === 'org.matrix.msc3401.call.member' && Object.keys(event.content).length > 0).length;
}

async function until(what, limitMs, probe, everyMs = 100) {
  const begin = performance.now();
  while (performance.now() - begin < limitMs) {
    if (await probe()) return;
    await pause(everyMs);
  }
  throw new Error(`${what}: not within ${limitMs / 1000} s`);
}

/** Both are in the call, in the room's state as well, and have been for a moment: a page that joins tries twice. */
async function settled() {
  let since = performance.now();
  await until('Alice and Bob in the call', HUMAN_MS, async () => {
    if ((await connected()) !== 2 || (await standing()) !== 2) since = performance.now();
    return performance.now() - since > 5000;
  });
}

async function bothInCall() {
  if ((await connected()) >= 2) return settled();
  say(`Join the call as Alice and as Bob, with cameras: ${links.alice} and ${links.bob}`);
  return settled();
}

const steps = {
  async outsider() {
    console.log('\n1. Mallory has an account, but is not in the room. Expected: no token.');
    const name = `mallory-${randomBytes(3).toString('hex')}`;
    const { nonce } = await must('GET', `${homeserver}/_synapse/admin/v1/register`);
    const mac = createHmac('sha1', secret).update([nonce, name, nonce, 'notadmin'].join('\0')).digest('hex');
    const body = { nonce, username: name, password: nonce, admin: false, mac };
    const mallory = await must('POST', `${homeserver}/_synapse/admin/v1/register`, body);
    const proof = await openid(mallory);
    const begin = performance.now();
    const { status, json } = await callToken(mallory, proof);
    say(`refused with ${status} "${json.error}" after ${seconds(begin)}`);
    if (status !== 403) throw new Error('she should have been refused with 403');
  },

  async kick() {
    console.log('\n2. Alice kicks Bob from the room. Expected: his media is gone within a second, his old token is worth nothing.');
    if (isFederated) console.log('   (It is the other homeserver that tells its weir: what it takes to hear of the kick comes on top.)');
    await bothInCall();
    const { jwt } = (await callToken(bob)).json;
    const before = await connected();
    await must('POST', `${homeserver}${inRoom}/kick`, { user_id: bob.user_id, reason: 'tour' }, alice.access_token);
    const begin = performance.now();
    await until('Bob out of the call', 10_000, async () => (await connected()) < before, 20);
    say(`out of the call ${seconds(begin)} after the homeserver's answer; his page says that he was removed`);
    const old = (await ask('GET', `${last.weir}/rtc/validate?access_token=${jwt}`)).status;
    const fresh = (await callToken(bob)).status;
    say(`his old token: ${old}; a new one: ${fresh}`);
    if (old !== 401 || fresh !== 403) throw new Error('both should have been refused');
    if (isFederated) {
      say('his membership of the call stays in the room, where no client shows it: nobody of his homeserver is left to empty it');
    } else {
      await until('his call membership emptied', 20_000, async () => (await standing()) < before);
      say(`his membership of the call is gone from the room after ${seconds(begin)}`);
    }
    await must('POST', `${homeserver}${inRoom}/invite`, { user_id: bob.user_id }, alice.access_token);
    const door = `${last.homeserver}/_matrix/client/v3/join/${encodeURIComponent(room)}?via=${encodeURIComponent(first.serverName)}`;
    await until('Bob in the room again', 30_000, async () => (await ask('POST', door, {}, bob.access_token)).status === 200, 1000);
    say(`Alice has let him in again. Open his link once more and join: ${links.bob}`);
    await settled();
    say('he is back');
  },

  async without() {
    console.log(`\n3. ${isFederated ? "Alice's" : 'The'} homeserver is stopped. Expected: nobody falls out of the call. (Element Call itself says "Reconnecting…" and mutes`);
    console.log('   what it sends while it cannot reach its homeserver.)');
    const begin = performance.now();
    const before = await connected();
    for (let left = 50; left > 0; left -= 1) {
      if ((await connected()) < before) throw new Error('somebody fell out of the call');
      await pause(200);
    }
    say(`${before} in the call after ${seconds(begin)} without a homeserver`);
  },

  async with() {
    const begin = performance.now();
    await until('a token for Alice', 60_000, async () => (await callToken(alice)).status === 200, 200);
    say(`the homeserver is back, and tokens are given again after ${seconds(begin)}`);
  },

  async back() {
    console.log('\n4. weir was killed and started again. Expected: both are back by themselves within twenty seconds.');
    const begin = performance.now();
    await until('both back', 60_000, async () => (await connected()) >= 2);
    say(`both are back after ${seconds(begin)}, with the tokens they had`);
  },

  async ghost() {
    console.log('\n5. A browser dies. Expected: within 15 seconds nobody of it stands in the call any more.');
    await until('both members standing', 30_000, async () => (await standing()) >= 2);
    say('Kill the browser as with kill -9, all of it (closing a window says good-bye, which is no ghost), and press Enter.');
    await new Promise((resolve) => process.stdin.once('data', resolve).once('end', resolve));
    const begin = performance.now();
    await until('members gone', 60_000, async () => (await standing()) === 0);
    say(`gone from the room ${seconds(begin)} after you pressed Enter`);
    process.stdin.destroy();
  },
};

try {
  await steps[stepName]();
} catch (error) {
  console.error(`  FAILED: ${error.message}`);
  process.exit(1);
}
