// The networks that are tried. A case has a line (what holds all the time), and phases with their rate towards the
// viewers in kbit/s; `words` changes more. Where `short` is given, it is part of the short set, with these seconds.

const LINE = 'both delay 25 queue 300';
const phase = (seconds, rate, words = '') => ({ seconds, rate, words });
const steady = (seconds, rate) => [phase(seconds, rate)];
const step = (high, low) => [phase(20, high), phase(25, low), phase(30, high)];
const saw = Array.from({ length: 24 }, (_, at) => phase(3, 600 + 400 * (at % 6)));

export const CASES = [
  { name: 'good network, 25 ms', line: LINE, phases: steady(40, 10_000) },
  { name: '3 to 0.5 and back to 3 Mbit/s', line: LINE, phases: step(3000, 500), short: [8, 12, 20], goals: true },
  { name: '1 to 0.15 and back to 1 Mbit/s', line: LINE, phases: step(1000, 150), short: [6, 10, 14], goals: true },
  { name: 'sawtooth, 0.6 to 2.6 Mbit/s', line: LINE, phases: saw },
  { name: '5 % loss', line: `${LINE} loss 5`, phases: steady(60, 3000) },
  { name: '20 % loss', line: `${LINE} loss 20`, phases: steady(60, 3000), short: [15] },
  { name: 'bursts: 5 % loss, 8 in a row', line: `${LINE} loss 5 burst 8`, phases: steady(60, 3000) },
  { name: '50 ms, 3 to 0.5 and back', line: 'both delay 50 queue 300', phases: step(3000, 500), goals: true },
  { name: '150 ms, 3 to 0.5 and back', line: 'both delay 150 queue 300', phases: step(3000, 500), goals: true },
  { name: '300 ms, 3 to 0.5 and back', line: 'both delay 300 queue 300', phases: step(3000, 500), goals: true },
  { name: '30 ms jitter, 3 to 0.5 and back', line: `${LINE} jitter 30`, phases: step(3000, 500), goals: true },
  { name: '2 % late by 20 ms', line: `${LINE} late 2 late-by 20`, phases: steady(40, 3000) },
  { name: 'two viewers behind 3 Mbit/s', line: LINE, phases: steady(60, 3000), viewers: 2 },
  { name: 'beside a TCP flow, 3 Mbit/s', line: LINE, phases: [phase(15, 3000), phase(60, 3000, 'tcp on')], tcp: true },
];

/** The cases to run: all, or the short set. */
export function chosen({ full, only = '' }) {
  const some = full ? CASES : CASES.filter(({ short }) => short);
  return some
    .filter(({ name }) => name.includes(only))
    .map((one) => (full ? one : { ...one, phases: one.phases.map((phase, at) => ({ ...phase, seconds: one.short[at] })) }));
}
