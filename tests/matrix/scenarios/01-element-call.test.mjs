// Two people in an encrypted call of Element Call, and what may happen to it.
//
// The steps follow each other in one call: browsers with such pages are the dearest part of all.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { launch } from '../../clients/lib/browsers.mjs';
import { NotYet, until } from '../../clients/lib/until.mjs';
import { Caller, serve } from '../lib/element-call.mjs';
import { lab } from '../lib/lab.mjs';

const here = lab();
const TILES = 2;
const FIRST_PICTURE_MS = 60_000;
const EJECTED_MS = 1000;
const BACK_MS = 20_000;
const GHOST_MS = 15_000;

// A browser each: one browser's fake camera is shared by its pages, and may stay dark when both open it anew at once.
const browsers = [];
const killBrowsers = () => browsers.forEach((browser) => browser.process()?.kill('SIGKILL'));
after(killBrowsers);

test('two people in an encrypted call of Element Call', { timeout: 230_000 }, async (t) => {
  const { origin } = await serve(here);
  for (let count = 0; count < 2; count += 1) browsers.push(await launch('chromium', { cameraFps: 10 }));
  const alice = await Caller.open(browsers[0], 'Alice');
  const bob = await Caller.open(browsers[1], 'Bob');
  const both = [alice, bob];
  const users = {};
  let room;
  let broken = false;
  const step = (name, body) => t.test(name, async (inner) => {
    if (broken) return inner.skip('an earlier step failed');
    try {
      await body(inner);
    } catch (error) {
      broken = true;
      await Promise.allSettled(both.map((caller) => caller.keep(`failed ${name}`)));
      throw error;
    }
  });

  await step('each sees moving video of both and hears the other', async (inner) => {
    const link = await alice.create(origin, 'A call');
    // Without a password in the link Element Call does not encrypt media.
    assert.match(link, /password=/);
    await bob.follow(link);
    users.alice = await alice.user(here.homeserver);
    users.bob = await bob.user(here.homeserver);
    [room] = (await users.alice.must('GET', '/joined_rooms')).joined_rooms;
    const begin = Date.now();
    await alice.enter();
    await bob.enter();
    for (const caller of both) await caller.sees(TILES, FIRST_PICTURE_MS);
    for (const caller of both) await caller.shows(TILES, FIRST_PICTURE_MS);
    inner.diagnostic(`both see and hear each other ${Date.now() - begin} ms after the first click`);
    for (const caller of both) await caller.keep('in the call');
    assert.equal((await users.alice.standing(room)).length, 2);
  });

  await step('weir is killed and started again: both pages come back by themselves', async (inner) => {
    const before = await Promise.all(both.map((caller) => caller.look()));
    await here.weir.end('SIGKILL');
    const begin = Date.now();
    await here.weir.launch();
    await Promise.all(both.map((caller, at) => until(`${caller.name} is on a new connection`, BACK_MS, async () => {
      const look = await caller.look();
      if (look.connections <= before[at].connections) throw new NotYet('no new connection yet');
      return look;
    }, 300)));
    await Promise.all(both.map((caller) => caller.sees(TILES, Math.max(begin + BACK_MS - Date.now(), 1))));
    inner.diagnostic(`both see and hear each other again after ${Date.now() - begin} ms`);
    for (const caller of both) await caller.keep('after the restart');
    assert.equal((await users.alice.standing(room)).length, 2, 'nobody was taken for gone');
  });

  await step('the one who is kicked is told so, and the other gets nothing more from him', async (inner) => {
    await users.alice.moderate('kick', room, users.bob);
    const answered = Date.now();
    let last = 0;
    await until('packets of the kicked stop', 4000, async () => {
      last = Math.max(last, await alice.lastPacket());
      return Date.now() - last > 1500;
    }, 50);
    inner.diagnostic(`last packet of the kicked ${Math.round(last - answered)} ms after the homeserver's answer`);
    assert.ok(last - answered <= EJECTED_MS, `packets still came ${last - answered} ms after the homeserver's answer`);
    await until('his page says why', 10_000, async () => {
      const text = await bob.text();
      if (!/removed from the call/i.test(text)) throw new NotYet(`it says ${text.slice(0, 200)}`);
      return true;
    });
    await bob.keep('kicked');
    await until('his call membership is emptied', GHOST_MS, async () => (await users.alice.standing(room)).length === 1);
    inner.diagnostic(`his membership was emptied after ${Date.now() - answered} ms`);
  });

  await step('a browser that is killed leaves no ghost', async (inner) => {
    killBrowsers();
    const killed = Date.now();
    await until('no call member stands', GHOST_MS, async () => (await users.alice.standing(room)).length === 0);
    inner.diagnostic(`membership emptied ${Date.now() - killed} ms after the kill`);
  });
});
