// Many small checks on a few participants that stay: each says what it is, none keeps the next from running, and the
// scenario fails at its end with the list of all that did not hold. Limits are those of a machine that is very busy.

import { trackOf } from './judge.mjs';
import { NotYet, sleep, until, within } from './until.mjs';

export class Checklist {
  constructor(limitMs = 60_000) {
    this.limitMs = limitMs;
    this.failed = [];
    this.lines = [];
  }

  /** Runs one check; true when it held. */
  async check(name, body) {
    const begin = Date.now();
    let error = null;
    try {
      await within(name, this.limitMs, body());
    } catch (caught) {
      error = caught;
    }
    const line = `${error ? 'FAILED' : 'ok    '} ${name} (${((Date.now() - begin) / 1000).toFixed(1)} s)`;
    this.lines.push(line);
    console.log(`# ${line}${error ? `: ${String(error.message).slice(0, 600)}` : ''}`);
    if (error) this.failed.push(`${name}: ${error.message}`);
    return !error;
  }

  end() {
    if (this.failed.length) throw new Error(`\n${this.failed.join('\n')}`);
  }
}

/** Waits until the sender's own video or audio goes on arriving at the viewer: pictures that only its key and its
 * source can have made, or audio packets. */
export async function flows(viewer, sender, { source = 'camera', limitMs = 25_000, frames = 4, codec } = {}) {
  let first;
  return until(`${viewer.identity} gets the ${source} of ${sender.identity}`, limitMs, async () => {
    const { samples = [], ...track } = await trackOf(viewer, sender, source);
    const seen = JSON.stringify(track);
    if (source === 'microphone') {
      const loud = samples.some(([t, level]) => level > -50 && t > Date.now() - 4000);
      first ??= track;
      if (!loud || !(track.packets > (first.packets ?? 0) + 10)) throw new NotYet(`only ${seen} since ${first.packets}`);
      return track;
    }
    if (!track.picture) throw new NotYet(`only ${seen}`);
    if (track.picture.number !== sender.number || track.picture.source !== source) throw new NotYet(`another picture: ${seen}`);
    if (track.picture.age > 4000) throw new NotYet(`an old picture: ${seen}`);
    first ??= track;
    if (track.framesDecoded < first.framesDecoded) first = track;
    if (!(track.framesDecoded >= first.framesDecoded + frames)) throw new NotYet(`only ${seen} since ${first.framesDecoded}`);
    if (codec && !new RegExp(codec, 'i').test(track.codec)) throw new NotYet(`it comes as ${track.codec}`);
    return track;
  }, 250);
}

/** Waits until nothing of that source arrives for 2 s. */
export async function rests(viewer, sender, { source = 'camera', limitMs = 20_000 } = {}) {
  return until(`${viewer.identity} gets no ${source} of ${sender.identity}`, limitMs, async () => {
    const before = (await trackOf(viewer, sender, source)).packets ?? 0;
    await sleep(2000);
    const after = (await trackOf(viewer, sender, source)).packets ?? 0;
    // Silence still sends a packet now and then (DTX).
    if (after > before + (source === 'microphone' ? 12 : 0)) throw new NotYet(`${after - before} packets in 2 s`);
    return true;
  });
}

/** Everybody gets camera and microphone of everybody else. */
export async function allFlow(everybody, sources = ['camera', 'microphone'], limitMs = 25_000) {
  const pairs = everybody.flatMap((a) => everybody.filter((b) => b !== a).map((b) => [a, b]));
  const found = await Promise.allSettled(pairs.flatMap(([viewer, sender]) => sources.map((source) => flows(viewer, sender, { source, limitMs }))));
  const failed = found.filter(({ status }) => status === 'rejected').map(({ reason }) => reason.message);
  if (failed.length) throw new Error(failed.join('; '));
}

/** Waits until something in the inbox fits. */
export function receives(who, what, fits, limitMs = 10_000) {
  return until(`${who.identity} receives ${what}`, limitMs, async () => {
    const inbox = await who.inbox();
    const found = inbox.find(fits);
    if (!found) throw new NotYet(`its inbox has ${JSON.stringify(inbox.slice(-4))}`);
    return found;
  });
}

/** Waits for an event since then. */
export function tells(who, name, fits = () => true, since = 0, limitMs = 10_000) {
  return until(`${who.identity} tells of ${name}`, limitMs, async () => {
    const found = await who.event(name, fits, since);
    if (found) return found;
    const lately = (await who.events()).filter(({ t }) => t >= since).slice(-6);
    throw new NotYet(`it told of ${JSON.stringify(lately)}`);
  });
}
