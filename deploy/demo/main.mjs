// The part of the demo that stays running beside weir and Synapse: makes Alice, Bob and their room once, then serves
// Element Call and, under /alice and /bob, a page that signs its user in and goes on to the call. With two homeservers
// each user is on one, and has a page of that one.
//
// usage: node main.mjs FOLDER, with the settings in FOLDER/demo.json

import { createHmac, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { door, serve } from './site.mjs';

const folder = process.argv[2];
const { dist, places } = JSON.parse(readFileSync(join(folder, 'demo.json'), 'utf8'));
const placeOf = (name) => places.find(({ users }) => users.includes(name));

async function ask(place, method, path, body, token) {
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  const answer = await fetch(place.homeserver + path, { method, headers, body: body && JSON.stringify(body) });
  const json = await answer.json();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${json.error}`);
  return json;
}

async function register(name) {
  const place = placeOf(name);
  const { nonce } = await ask(place, 'GET', '/_synapse/admin/v1/register');
  const password = randomBytes(12).toString('hex');
  const mac = createHmac('sha1', place.secret).update([nonce, name, password, 'notadmin'].join('\0')).digest('hex');
  const body = { nonce, username: name, displayname: name[0].toUpperCase() + name.slice(1), password, admin: false, mac };
  return ask(place, 'POST', '/_synapse/admin/v1/register', body);
}

/** An invitation to another homeserver takes a moment to arrive. */
async function joinSoon(name, user, room) {
  const via = encodeURIComponent(placeOf('alice').serverName);
  for (let left = 30; ; left -= 1) {
    try {
      return await ask(placeOf(name), 'POST', `/_matrix/client/v3/join/${encodeURIComponent(room)}?via=${via}`, {}, user.access_token);
    } catch (error) {
      if (left === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

/** Two users in a private room whose members may join its calls. */
async function makeWorld() {
  const [alice, bob] = [await register('alice'), await register('bob')];
  const room = (await ask(placeOf('alice'), 'POST', '/_matrix/client/v3/createRoom', {
    preset: 'private_chat',
    name: 'weir demo',
    invite: [bob.user_id],
    power_level_content_override: { events: { 'org.matrix.msc3401.call.member': 0 } },
  }, alice.access_token)).room_id;
  await joinSoon('bob', bob, room);
  return { alice, bob, room, mediaPassword: randomBytes(16).toString('base64url') };
}

const call = ({ room, mediaPassword }) => `/room/#/weir-demo?password=${mediaPassword}&roomId=${encodeURIComponent(room)}`;

const file = join(folder, 'world.json');
if (!existsSync(file)) writeFileSync(file, JSON.stringify(await makeWorld(), null, 1), { mode: 0o600 });
const world = JSON.parse(readFileSync(file, 'utf8'));
for (const { users, homeserver, serverName, weir, port } of places) {
  const pages = Object.fromEntries(users.map((name) => [`/${name}`, door(world[name], call(world))]));
  await serve({ dist, homeserver, serverName, weir, pages, port });
}
console.log('ready');
