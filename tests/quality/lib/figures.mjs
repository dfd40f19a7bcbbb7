// From raw series to what a user notices. Pure: times are milliseconds of one clock.

const BIN = 100;
/** A picture this old is no picture. */
const FRESH = 500;
/** So long must it be right to count as right. */
const STEADY = 500;
export const FREEZE = 200;

/** The best layers for `viewers` of one camera within 0.9 of `rate` (bits/s): the lowest for all first, then one more
 * for each, and so on. Returns the sum of layers, each counted from one. */
export function bestSum(rate, viewers, { voice, layers }) {
  let left = 0.9 * rate - viewers * voice;
  const held = Array(viewers).fill(0);
  for (let round = 1; round <= layers.length; round++) {
    for (let viewer = 0; viewer < viewers; viewer++) {
      const more = layers[round - 1] - (layers[round - 2] ?? 0);
      if (held[viewer] !== round - 1 || more > left) continue;
      held[viewer] = round;
      left -= more;
    }
  }
  return held.reduce((sum, one) => sum + one, 0);
}

/** The layer shown at `t`, counted from one; 0: none. `frames` is [time, width] in order. */
function shownAt(frames, t, widths, cursor) {
  while (cursor.at < frames.length && frames[cursor.at][0] <= t) cursor.at++;
  const last = frames[cursor.at - 1];
  if (!last || t - last[0] > FRESH) return 0;
  return widths.findIndex((width) => last[1] <= width) + 1 || widths.length;
}

/** For each tenth of a second from `from` to `to`: the sum of layers shown. */
function shownOver(tracks, from, to, widths) {
  const cursors = tracks.map(() => ({ at: 0 }));
  const bins = [];
  for (let t = from; t < to; t += BIN) {
    bins.push(tracks.reduce((sum, { frames }, n) => sum + shownAt(frames, t, widths, cursors[n]), 0));
  }
  return bins;
}

/** Milliseconds until it holds and has held for STEADY; undefined: never. */
function untilHolds(bins, holds) {
  const need = STEADY / BIN;
  for (let at = 0; at + need <= bins.length; at++) {
    if (bins.slice(at, at + need).every(holds)) return at * BIN;
  }
  return undefined;
}

/** Gaps between frames longer than FREEZE, as [from, to]; `until` is when watching ended. */
export function gapsOf(frames, until) {
  const times = [...frames.map(([t]) => t), until];
  return times.slice(1).map((t, at) => [times[at], t]).filter(([from, to]) => to - from > FREEZE);
}

/** Stretches of sound the browser made up, as [from, to, ms]. A sample says how much there has been so far. */
export function concealedOf(sound) {
  const runs = [];
  let run = null;
  for (let at = 1; at < sound.length; at++) {
    const ms = (sound[at][2] - sound[at - 1][2]) / 48;
    if (ms <= 0) {
      // Between two looks nothing need have been played at all.
      if (sound[at][1] > sound[at - 1][1]) run = null;
      continue;
    }
    if (!run) runs.push((run = [sound[at - 1][0], 0, 0]));
    run[1] = sound[at][0];
    run[2] += ms;
  }
  return runs;
}

const overlaps = ([from, to], stalls) => stalls.some(([a, b]) => a < to && b > from);
const sum = (values) => values.reduce((all, value) => all + value, 0);

/**
 * `phases`: [{from, to, rate in bits/s}]; `viewers`: [{frames, sound, stalls}]; `costs`: {voice, layers} in bits/s;
 * `widths` of the layers, lowest first.
 */
export function figures({ phases, viewers, costs, widths }) {
  const end = phases.at(-1).to;
  const begin = phases[0].from;
  let right = 0;
  let all = 0;
  const changes = [];
  for (const [at, { from, to, rate }] of phases.entries()) {
    const wanted = bestSum(rate, viewers.length, costs);
    const bins = shownOver(viewers, from, to, widths);
    all += bins.length;
    right += bins.filter((shown) => shown >= wanted).length;
    if (at === 0) continue;
    const most = Math.max(wanted, bestSum(rate / 0.9, viewers.length, costs));
    const took = untilHolds(bins, (shown) => shown >= wanted && shown <= most);
    const before = phases[at - 1].rate;
    changes.push({ to: rate, drop: rate < before, took });
  }
  const pictured = phases.filter(({ rate }) => bestSum(rate, viewers.length, costs) >= viewers.length);
  const inPicture = ([from]) => pictured.some((phase) => from >= phase.from && from < phase.to);
  const stalls = viewers.flatMap((viewer) => viewer.stalls);
  const gaps = viewers.flatMap(({ frames, stalls: own }) => gapsOf(frames.filter(([t]) => t >= begin), end).filter((gap) => inPicture(gap) && !overlaps(gap, own)));
  const concealed = viewers.flatMap(({ sound }) => concealedOf(sound.filter(([t]) => t >= begin)));
  const quiet = viewers.flatMap(({ sound, stalls: own }) => concealedOf(sound.filter(([t]) => t >= begin)).filter((run) => !overlaps(run, own)));
  const heard = sum(viewers.map(({ sound }) => (sound.length ? sound.at(-1)[1] - sound[0][1] : 0)));
  const switches = sum(viewers.map(({ frames }) => frames.filter(([t, width], at) => t >= begin && at && frames[at - 1][1] !== width).length));
  return {
    drops: changes.filter(({ drop }) => drop).map(({ took }) => took),
    rises: changes.filter(({ drop }) => !drop).map(({ took }) => took),
    bestPercent: Math.round((100 * right) / all),
    freezes: gaps.length,
    frozenMs: sum(gaps.map(([from, to]) => to - from)),
    longestFreezeMs: Math.max(0, ...gaps.map(([from, to]) => to - from)),
    lastFrameAgeMs: Math.max(...viewers.map(({ frames }) => (frames.length ? end - frames.at(-1)[0] : Infinity))),
    longestConcealmentMs: Math.round(Math.max(0, ...quiet.map(([, , ms]) => ms))),
    concealedPercent: Math.round((1000 * sum(concealed.map(([, , ms]) => ms))) / Math.max(1, heard / 48)) / 10,
    switchesPerMinute: Math.round((600 * switches) / viewers.length / ((end - begin) / 6000)) / 100,
    pageStalledMs: sum(stalls.map(([from, to]) => to - from)),
  };
}
