// What a user would notice: seeing somebody, hearing somebody, and no longer doing so.

import assert from 'node:assert/strict';
import { NotYet, sleep, until } from './until.mjs';

const PHASE_MS = 1000; // of the tone, see page/tone.js
const LOUD_DB = -50;
const QUIET_DB = -75;
const CONTRAST_DB = 20;
/** How old the newest picture may be that still counts as live. A key frame may be on its way. */
export const LIVE_MS = 2000;
/** How late a tone may be heard, with jitter buffers filled by a busy machine. */
export const LATE_MS = 1000;

export async function trackOf(viewer, sender, source) {
  const look = await viewer.glance();
  const found = look.participants[sender.identity];
  if (!found) throw new NotYet(`${viewer.identity} knows only ${Object.keys(look.participants).join(' ') || 'nobody'}`);
  const track = found.tracks[source];
  if (!track) throw new NotYet(`${viewer.identity} knows of ${sender.identity} only ${Object.keys(found.tracks).join(' ') || 'no track'}`);
  return track;
}

function brief(track) {
  const { samples = [], ...rest } = track;
  return `${JSON.stringify(rest)}, lately ${samples.slice(-8).map(([, value]) => value).join(' ')}`;
}

function livePicture(track, viewer, sender, source) {
  const { picture } = track;
  if (!picture || picture.age > LIVE_MS) throw new NotYet(`${viewer.identity} has of ${sender.identity}: ${brief(track)}`);
  assert.equal(picture.number, sender.number, `${viewer.identity} sees somebody else's picture as ${sender.identity}'s`);
  assert.equal(picture.source, source, `${viewer.identity} sees the wrong source of ${sender.identity}`);
  return track;
}

/** Waits until `viewer` decodes the sender's own picture, no older than LIVE_MS; frames must advance. */
export async function sees(viewer, sender, { source = 'camera', limitMs = 15_000 } = {}) {
  let first;
  return until(`${viewer.identity} sees the ${source} of ${sender.identity}`, limitMs, async () => {
    const track = livePicture(await trackOf(viewer, sender, source), viewer, sender, source);
    // A look can come between the first picture and the first count of frames.
    if (track.framesDecoded === undefined) throw new NotYet('frames are not counted yet');
    first ??= track;
    if (!(track.framesDecoded > first.framesDecoded)) throw new NotYet(`frames stand at ${track.framesDecoded}`);
    return track;
  });
}

/** Waits until the picture is stale and packets have stopped. */
export async function seesNothingNew(viewer, sender, { source = 'camera', limitMs = 8000 } = {}) {
  return until(`${viewer.identity} gets no more ${source} of ${sender.identity}`, limitMs, async () => {
    const before = await trackOf(viewer, sender, source);
    await sleep(1500);
    const after = await trackOf(viewer, sender, source);
    if (after.packets > before.packets) throw new NotYet(`${after.packets - before.packets} packets in 1.5 s`);
    return after;
  });
}

function percentile(values, part) {
  return [...values].sort((a, b) => a - b)[Math.floor(part * (values.length - 1))];
}

/** How well the levels of the last seconds follow the sender's on and off, and at what delay they do so best. */
export function hearing(samples, now) {
  // Two cycles are enough; a page that is too busy to sample often gets four.
  const [short, long] = [4600, 8800].map((span) => match(samples.filter(([t]) => t > now - span)));
  return short.contrast >= long.contrast ? short : long;
}

function match(recent) {
  let best = { contrast: -Infinity };
  for (let lag = 0; lag < 1.75 * PHASE_MS; lag += 50) {
    const on = [];
    const off = [];
    for (const [t, level] of recent) {
      const at = (t - lag) % (2 * PHASE_MS);
      const inPhase = at % PHASE_MS;
      if (inPhase < 150 || inPhase > PHASE_MS - 100) continue;
      (at < PHASE_MS ? on : off).push(level);
    }
    if (on.length < 6 || off.length < 6) continue;
    const entry = { lag, on: percentile(on, 0.3), off: percentile(off, 0.7) };
    entry.contrast = entry.on - entry.off;
    // Neighbouring lags fit about as well: the first good one is meant.
    if (entry.contrast > best.contrast + 3) best = entry;
  }
  return best;
}

/** Waits until `listener` hears the sender's tone come and go at the right moments. */
export async function hears(listener, sender, { limitMs = 15_000 } = {}) {
  return until(`${listener.identity} hears ${sender.identity}`, limitMs, async () => {
    const track = await trackOf(listener, sender, 'microphone');
    const heard = hearing(track.samples ?? [], Date.now());
    if (!(heard.on > LOUD_DB && heard.contrast > CONTRAST_DB)) {
      const recent = (track.samples ?? []).filter(([t]) => t > Date.now() - 4600);
      throw new NotYet(`on ${heard.on}, off ${heard.off} dB, ${recent.length} samples in 4.6 s, ${brief(track)}`);
    }
    if (heard.lag > LATE_MS) throw new NotYet(`heard ${heard.lag} ms late`);
    return { ...track, heard };
  }, 250);
}

/** Waits until a whole on phase has passed without a sound. */
export async function hearsNothing(listener, sender, { limitMs = 8000 } = {}) {
  return until(`${listener.identity} no longer hears ${sender.identity}`, limitMs, async () => {
    const track = await trackOf(listener, sender, 'microphone');
    const recent = (track.samples ?? []).filter(([t]) => t > Date.now() - 2200);
    const loudest = Math.max(-120, ...recent.map(([, level]) => level));
    if (loudest > QUIET_DB) throw new NotYet(`${loudest} dB in the last 2.2 s`);
    return track;
  });
}

/** Watches for `forMs` that the picture never gets older than `staleMs`. */
export async function keepsSeeing(viewer, sender, { source = 'camera', forMs = 3000, staleMs = LIVE_MS } = {}) {
  const end = Date.now() + forMs;
  let oldest = 0;
  while (Date.now() < end) {
    const { picture } = await trackOf(viewer, sender, source);
    oldest = Math.max(oldest, picture?.age ?? Infinity);
    assert.ok(oldest <= staleMs, `${viewer.identity} lost the ${source} of ${sender.identity} for ${oldest} ms`);
    await sleep(100);
  }
  return oldest;
}

/** Waits for an event at `who` that came no later than `limitMs` after `since`; returns how long it took. */
export async function noticed(who, name, fits, since, limitMs) {
  const event = await until(`${who.identity} notices ${name}`, limitMs + 2000, () => who.event(name, fits, since), 50);
  const took = event.t - since;
  assert.ok(took <= limitMs, `${who.identity} noticed ${name} after ${took} ms, more than ${limitMs}`);
  return took;
}

/** Everybody sees and hears everybody else. */
export async function allSeeAndHear(everybody, limitMs = 20_000) {
  const pairs = everybody.flatMap((a) => everybody.filter((b) => b !== a).map((b) => [a, b]));
  const found = await Promise.allSettled(
    pairs.flatMap(([viewer, sender]) => [sees(viewer, sender, { limitMs }), hears(viewer, sender, { limitMs })]),
  );
  const failed = found.filter(({ status }) => status === 'rejected').map(({ reason }) => `  ${reason.message}`);
  assert.equal(failed.length, 0, `\n${failed.join('\n')}`);
}
