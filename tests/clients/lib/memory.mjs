// Searches the whole readable memory of a process for byte strings (Linux, /proc/PID/mem; our own child or root).

import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

const CHUNK = 4 << 20;

function readableRegions(pid) {
  return readFileSync(`/proc/${pid}/maps`, 'utf8')
    .split('\n')
    .map((line) => /^([0-9a-f]+)-([0-9a-f]+) (....) \S+ \S+ \S+\s*(.*)$/.exec(line))
    .filter((match) => match && match[3].startsWith('r') && !/^\[(vvar|vsyscall)/.test(match[4]))
    .map(([, from, to, , name]) => ({ from: BigInt(`0x${from}`), to: BigInt(`0x${to}`), name }));
}

/** `needles` is {label: Buffer}; returns {found: Set of labels, bytes: how much was read}. */
export function searchMemory(pid, needles) {
  const longest = Math.max(...Object.values(needles).map((needle) => needle.length));
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  const buffer = Buffer.alloc(CHUNK + longest);
  const found = new Set();
  let bytes = 0;
  try {
    for (const { from, to } of readableRegions(pid)) {
      // Chunks overlap by the longest needle, so that none is missed on a border.
      for (let at = from; at < to; at += BigInt(CHUNK)) {
        const left = to - at;
        const want = left < BigInt(buffer.length) ? Number(left) : buffer.length;
        let got;
        try {
          got = readSync(memory, buffer, 0, want, at);
        } catch {
          break; // a guard page or a region that went away
        }
        bytes += got;
        const seen = buffer.subarray(0, got);
        for (const [label, needle] of Object.entries(needles)) {
          if (!found.has(label) && seen.includes(needle)) found.add(label);
        }
      }
    }
  } finally {
    closeSync(memory);
  }
  return { found, bytes };
}
