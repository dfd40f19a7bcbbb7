// The results as a table, for people, and as JSON, for comparison.

import { mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { OUT } from '../../clients/lib/paths.mjs';

const COLUMNS = ['network', 'concealed at most, ms', 'concealed, %', 'drop, s', 'rise, s', 'best layers, %', 'freezes', 'frozen, s', 'link used, %', 'queue p50/p95, ms', 'switches/min'];
const seconds = (took) => (took === undefined ? 'never' : (took / 1000).toFixed(1));
const each = (times) => (times.length > 3 ? '' : times.map(seconds).join(', '));

function row({ name, result, network }) {
  const { down } = network;
  const used = down.capacity_bytes ? Math.round((100 * down.bytes) / down.capacity_bytes) : '';
  const share = result.tcp ? `${used} (TCP ${Math.round((100 * down.tcp_bytes) / down.capacity_bytes)})` : used;
  return [
    name, result.longestConcealmentMs, result.concealedPercent, each(result.drops), each(result.rises), result.tcp ? '' : result.bestPercent,
    result.freezes, seconds(result.frozenMs), share, `${down.queue_ms.p50}/${down.queue_ms.p95}`, result.switchesPerMinute,
  ];
}

export class Table {
  constructor() {
    this.rows = [];
  }

  add(one) {
    this.rows.push(one);
    const cells = row(one);
    console.log(`# ${COLUMNS.map((column, at) => `${column} ${cells[at]}`).join('; ')}`);
  }

  write() {
    if (!this.rows.length) return;
    const line = (cells) => `| ${cells.join(' | ')} |`;
    const text = [line(COLUMNS), line(COLUMNS.map(() => '---')), ...this.rows.map((one) => line(row(one)))].join('\n');
    mkdirSync(OUT, { recursive: true });
    writeFileSync(join(OUT, 'quality.md'), `${text}\n`);
    writeFileSync(join(OUT, 'quality.json'), JSON.stringify({ load: loadavg(), rows: this.rows }, null, 1));
    console.log(`${text}\n# load of the machine ${loadavg().map((n) => n.toFixed(1)).join(' ')}; more in ${join(OUT, 'quality.json')}`);
  }
}
