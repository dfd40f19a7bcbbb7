// Debian's Prometheus: one process with a configuration of its own, and promtool.

import { execFile, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT } from '../../clients/lib/paths.mjs';
import { NotYet, until, within } from '../../clients/lib/until.mjs';
import { freeTcpPort } from '../../clients/lib/weir.mjs';

const CACHED = join(ROOT, 'tests', '.cache', 'prometheus', 'usr', 'bin');
const program = (name) => [join(CACHED, name), `/usr/bin/${name}`].find((path) => existsSync(path)) ?? name;

/** Runs promtool; the error of a failure has what it said. */
export async function promtool(args, { input, cwd } = {}) {
  const running = promisify(execFile)(program('promtool'), args, { cwd, timeout: 60_000 });
  if (input !== undefined) running.child.stdin.end(input);
  try {
    const { stdout, stderr } = await running;
    return stdout + stderr;
  } catch (error) {
    throw new Error(`promtool ${args.join(' ')}: ${error.stdout}${error.stderr}`);
  }
}

export class Prometheus {
  static async start({ targets, rules }) {
    const prometheus = new Prometheus();
    prometheus.home = mkdtempSync(join(tmpdir(), 'weir-prometheus-'));
    prometheus.port = await freeTcpPort();
    const config = join(prometheus.home, 'prometheus.yml');
    writeFileSync(config, JSON.stringify({
      global: { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' },
      rule_files: [rules],
      scrape_configs: [{ job_name: 'weir', static_configs: [{ targets }] }],
    }));
    const log = openSync(join(prometheus.home, 'log'), 'a');
    prometheus.process = spawn(program('prometheus'), [
      `--config.file=${config}`, `--storage.tsdb.path=${prometheus.home}/data`, `--web.listen-address=127.0.0.1:${prometheus.port}`,
    ], { stdio: ['ignore', log, log] });
    closeSync(log);
    prometheus.exit = new Promise((resolve) => prometheus.process.once('exit', resolve).once('error', resolve));
    await until('prometheus is ready', 30_000, async () => {
      try {
        const answer = await fetch(`http://127.0.0.1:${prometheus.port}/-/ready`);
        if (answer.ok) return true;
        throw new NotYet(`it answers ${answer.status}`);
      } catch (error) {
        throw error instanceof NotYet ? error : new NotYet(`${error.cause ?? error}: ${prometheus.log()}`);
      }
    });
    return prometheus;
  }

  log() {
    return readFileSync(join(this.home, 'log'), 'utf8').split('\n').slice(-5).join('\n');
  }

  async get(path, query = {}) {
    const answer = await fetch(`http://127.0.0.1:${this.port}/api/v1/${path}?${new URLSearchParams(query)}`);
    const { status, data, error } = await answer.json();
    if (status !== 'success') throw new Error(`${JSON.stringify(query)}: ${error}`);
    return data;
  }

  /** What a query gives now: labels and values. */
  async query(query) {
    const { result } = await this.get('query', { query });
    return result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
  }

  /** Alerts that are not silent, by name. */
  async alerts() {
    return (await this.get('alerts')).alerts.map(({ labels, state }) => ({ name: labels.alertname, state }));
  }

  async close() {
    this.process.kill('SIGTERM');
    await within('prometheus ends', 10_000, this.exit).catch(() => this.process.kill('SIGKILL'));
    rmSync(this.home, { recursive: true, force: true });
  }
}
