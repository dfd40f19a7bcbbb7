// The load test as Matrix users in one encrypted call with a person in Element Call: everybody sees and hears everybody,
// and every frame that arrives at a complete participant is checked.
//
// WEIR_TEST_MATRIX_USERS says how many users there are beside the person. Three of them (WEIR_TEST_MATRIX_SPEAKERS) are
// complete and have camera and microphone on; the others are light and listen. With 20, the homeserver and the browser want
// more than the two processors that eight get by with.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { launch } from '../../clients/lib/browsers.mjs';
import { LOADTEST } from '../../clients/lib/paths.mjs';
import { NotYet, until, within } from '../../clients/lib/until.mjs';
import { Caller, SMALL, serve } from '../lib/element-call.mjs';
import { SHARED_SECRET } from '../lib/homeserver.mjs';
import { lab } from '../lib/lab.mjs';

const here = lab();
const USERS = Number(process.env.WEIR_TEST_MATRIX_USERS ?? 8);
const SPEAKERS = Number(process.env.WEIR_TEST_MATRIX_SPEAKERS ?? 3);
const ALL_IN_MS = 30_000 + 5_000 * USERS;
const SEEN_MS = 40_000;
const REPLACED_MS = 60_000;
const DONE_MS = 40_000;
const GONE_MS = 20_000;
// Longer than everything else together: the load test is told when it is enough.
const AT_MOST_S = 300;
const REPLACED_PER_MINUTE = 6;

/** The load test; its words are kept, and `report` waits for its end. */
function load(room, home) {
  const json = join(home, 'report.json');
  const flags = ['matrix', '--homeserver', here.homeserver.base, '--room', room, '--participants', USERS, '--full', SPEAKERS,
    '--microphones', SPEAKERS, '--cameras', SPEAKERS, '--churn', REPLACED_PER_MINUTE, '--duration', AT_MOST_S, '--json', json];
  const env = { ...process.env, REGISTRATION_SHARED_SECRET: SHARED_SECRET };
  const child = spawn(LOADTEST, flags.map(String), { stdio: ['ignore', 'pipe', 'pipe'], env });
  const running = { child, words: '' };
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (running.words += text));
  const end = new Promise((resolve) => child.once('exit', resolve));
  running.ended = false;
  end.then(() => (running.ended = true));
  running.report = async () => {
    child.kill('SIGINT');
    await within(`the load test ends (${running.words.slice(-500)})`, DONE_MS, end);
    return JSON.parse(readFileSync(json, 'utf8'));
  };
  return running;
}

async function call(t, attempt) {
  const home = mkdtempSync(join(tmpdir(), 'weir-load-'));
  const site = await serve(here, { settings: { ...SMALL, matrix_rtc_mode: 'compatibility' } });
  const alice = await here.homeserver.user(`alice-${attempt}`);
  const room = await alice.createRoom({ encrypted: true });
  await alice.must('PUT', `/rooms/${encodeURIComponent(room)}/state/m.room.join_rules`, { join_rule: 'public' });
  const browser = await launch('chromium', { cameraFps: 5 });
  let person;
  let bots;
  try {
    person = await Caller.open(browser, `alice-load-${attempt}`, { width: 900, height: 640 });
    await person.arrive(site, alice, room);
    const begin = Date.now();
    bots = load(room, home);
    await until('all users are in the call', ALL_IN_MS, async () => {
      if (bots.ended) throw new Error(`the load test ended: ${bots.words}`);
      const { length } = await alice.standing(room);
      if (length < USERS) throw new NotYet(`${length} are: ${bots.words.slice(-500)}`);
      return true;
    });
    t.diagnostic(`${USERS} users are in the call after ${Date.now() - begin} ms`);
    await person.enter();
    await until('the person is in the call', SEEN_MS, async () => (await alice.standing(room)).length === USERS + 1);
    const before = await alice.standing(room);
    await person.sees(SPEAKERS + 1, SEEN_MS, SPEAKERS);
    await person.shows(SPEAKERS + 1, SEEN_MS);
    t.diagnostic(`the person sees and hears ${SPEAKERS} users ${Date.now() - begin} ms after the first began`);
    await person.keep('with users');

    // Somebody leaves and another comes: keys of all the others change, and the person follows.
    const [leaver] = await until('a user is replaced by another', REPLACED_MS, async () => {
      const standing = await alice.standing(room);
      const gone = before.filter((key) => !standing.includes(key));
      return gone.length > 0 && standing.length === before.length && gone;
    });
    t.diagnostic(`${leaver} left`);
    await person.sees(SPEAKERS + 1, SEEN_MS, SPEAKERS);

    const report = await bots.report();
    t.diagnostic(JSON.stringify({ frames: report.frames, others: report.others, faults: report.faults, join: report.join_ms, busy: report.generator_cpu_percent }));
    assert.equal(report.participants, USERS, bots.words);
    assert.equal(report.failed_joins, 0, bots.words);
    // Audio alone is 50 frames a second from each to each; some are in between.
    assert.ok(report.frames.right > SPEAKERS * (SPEAKERS - 1) * 20 * report.seconds, bots.words);
    assert.equal(report.frames.wrong, 0, bots.words);
    assert.deepEqual(report.faults.filter(({ name }) => ['corrupted', 'swapped', 'keyless'].includes(name)), [], bots.words);
    // Each frame of the person that had a key opened: each of its bits is right.
    assert.ok(report.others.opened > 100, bots.words);
    assert.equal(report.others.failed, 0, bots.words);
    await until('nobody but the person stands in the call', GONE_MS, async () => (await alice.standing(room)).length === 1);
  } catch (error) {
    await person?.keep('failed').catch(() => {});
    throw new Error(`${error.message}\n${bots?.words ?? ''}`, { cause: error });
  } finally {
    bots?.child.kill('SIGKILL');
    browser.process()?.kill('SIGKILL');
    rmSync(home, { recursive: true, force: true });
  }
}

test(`${USERS} Matrix users of the load test and a person in Element Call`, { timeout: 400_000 }, async (t) => {
  try {
    await call(t, 1);
  } catch (error) {
    console.log(`# once more: ${error.message}`);
    await call(t, 2);
  }
});
