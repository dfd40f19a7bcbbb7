// People in a call of an encrypted room, in each mode of Element Call: keys go from client to client through Matrix,
// nobody but the members has them. First two, then all. Then two leave, each in another way.
//
// WEIR_TEST_PEOPLE says how many, up to four: more browsers than two want a machine of their own.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { launch } from '../../clients/lib/browsers.mjs';
import { until } from '../../clients/lib/until.mjs';
import { Caller, SMALL, serve } from '../lib/element-call.mjs';
import { lab } from '../lib/lab.mjs';

const here = lab();
const NAMES = ['alice', 'bob', 'carol', 'dave'].slice(0, Number(process.env.WEIR_TEST_PEOPLE ?? 2));
const ALL_SEEN_MS = 90_000;
// Under two seconds where nothing else runs; here four browsers share the machine with both servers.
const CLOSED_MS = 8000;
const GHOST_MS = 15_000;

const browsers = [];
after(() => browsers.forEach((browser) => browser.process()?.kill('SIGKILL')));

// `left`: whether the membership of this user ended, as the room tells it. On its own page Element Call 0.26.1 does not
// read encrypted sticky events, so Matrix 2.0 needs a client around it.
const MODES = {
  compatibility: {
    widget: false,
    left: async (watching, room, gone) => (await watching.standing(room)).every((key) => !key.includes(gone.id)),
  },
  matrix_2_0: { widget: true, left: (watching, room, gone) => watching.saidGoodBye(room, gone) },
};

for (const [mode, { widget, left }] of Object.entries(MODES)) {
  test(`${NAMES.length} people in an encrypted room, mode ${mode}`, { timeout: 300_000 }, async (t) => {
    const site = await serve(here, { widget, settings: { ...SMALL, matrix_rtc_mode: mode } });
    const users = await Promise.all(NAMES.map((name) => here.homeserver.user(`${name}-${mode.replaceAll('_', '-')}`)));
    const room = await users[0].createRoom({ encrypted: true, invite: users.slice(1) });
    for (const user of users.slice(1)) await user.join(room);
    const callers = [];
    const arrive = async (at) => {
      browsers.push(await launch('chromium', { cameraFps: 5 }));
      const caller = await Caller.open(browsers.at(-1), `${NAMES[at]}-${mode}`, { width: 640, height: 480 });
      callers.push(caller);
      await caller.arrive(site, users[at], room);
    };
    const allSee = async (count) => {
      const begin = Date.now();
      const inside = callers.slice(0, count);
      for (const caller of inside) await caller.sees(count, ALL_SEEN_MS, count - 1);
      t.diagnostic(`${count} people all see and hear each other after ${Date.now() - begin} ms`);
    };

    try {
      // All are there before anybody enters: to a device that was not, nobody has sent the keys of encrypted memberships.
      for (const at of NAMES.keys()) await arrive(at);
      await Promise.all(callers.slice(0, 2).map((caller) => caller.enter()));
      await allSee(2);
      if (NAMES.length > 2) {
        await Promise.all(callers.slice(2).map((caller) => caller.enter()));
        await allSee(NAMES.length);
      }
      for (const caller of callers) await caller.shows(NAMES.length, ALL_SEEN_MS);
      for (const caller of callers) await caller.keep('all');
      if (mode === 'matrix_2_0') assert.deepEqual(await users[0].standing(room), [], 'nothing of Matrix 2.0 stands in state');
      else assert.equal((await users[0].standing(room)).length, NAMES.length);

      const closed = Date.now();
      await callers.at(-1).close();
      await until('the one who closed the tab is gone', CLOSED_MS, () => left(users[0], room, users.at(-1)), 50);
      t.diagnostic(`gone ${Date.now() - closed} ms after the tab was closed`);

      const killed = Date.now();
      browsers.at(-2).process().kill('SIGKILL');
      await until('the one whose browser died is gone', GHOST_MS, () => left(users[0], room, users.at(-2)));
      t.diagnostic(`gone ${Date.now() - killed} ms after the browser was killed`);
    } catch (error) {
      await Promise.allSettled(callers.map((caller) => caller.keep('failed')));
      throw error;
    } finally {
      browsers.splice(0).forEach((browser) => browser.process()?.kill('SIGKILL'));
    }
  });
}
