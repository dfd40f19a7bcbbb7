// One real weir process with a configuration file of its own.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WEIR } from './paths.mjs';
import { mint } from './token.mjs';
import { NotYet, until, within } from './until.mjs';

export function freeTcpPort() {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

export class Weir {
  constructor() {
    this.key = 'testkey';
    this.secret = randomBytes(24).toString('hex');
    this.home = mkdtempSync(join(tmpdir(), 'weir-test-'));
    this.logFile = join(this.home, 'weir.log');
    this.config = join(this.home, 'weir.yaml');
  }

  /** `like`: another weir, whose keys it takes. */
  static async start(settings = {}) {
    const weir = new Weir();
    if (settings.like) Object.assign(weir, { key: settings.like.key, secret: settings.like.secret });
    weir.httpPort = await freeTcpPort();
    weir.tcpPort = await freeTcpPort();
    weir.adminPort = await freeTcpPort();
    writeFileSync(weir.config, weir.yaml(settings));
    await weir.launch();
    return weir;
  }

  /** `rtc` is more lines of that section; `extra` is more configuration, or a function of this server that returns it. */
  yaml({ level = process.env.WEIR_TEST_LOG ?? 'debug', rtc = '', extra = '' }) {
    const more = typeof extra === 'function' ? extra(this) : extra;
    const admin = more.includes('admin:') ? '' : `admin:\n  port: ${this.adminPort}\n`;
    return `# written by tests/clients/lib/weir.mjs
port: ${this.httpPort}
bind_addresses: ["127.0.0.1"]
rtc:
  udp_port: 0
  tcp_port: ${this.tcpPort}
  enable_loopback_candidate: true
${rtc}keys:
  ${this.key}: ${this.secret}
logging:
  level: ${level}
${admin}${more}`;
  }

  /** Starts the process, again after a stop: same ports, same keys, log appended. */
  async launch() {
    const log = openSync(this.logFile, 'a');
    this.process = spawn(WEIR, ['serve', '--config', this.config], { stdio: ['ignore', log, log] });
    closeSync(log);
    this.exit = new Promise((resolve) => {
      this.process.once('exit', (code, signal) => {
        this.ended = { code, signal };
        resolve(this.ended);
      });
      this.process.once('error', (error) => resolve((this.ended = { code: null, error: error.message })));
    });
    this.ended = null;
    await until('weir answers', 10_000, async () => {
      if (this.ended) throw new Error(`weir (${WEIR}) ended with ${JSON.stringify(this.ended)}:\n${this.logTail()}`);
      try {
        return (await fetch(`http://127.0.0.1:${this.httpPort}/`)).ok;
      } catch (error) {
        throw new NotYet(String(error.cause ?? error));
      }
    }, 50);
  }

  /** Where a homeserver and clients find it over HTTP. */
  get base() {
    return `http://localhost:${this.httpPort}`;
  }

  get url() {
    return `ws://127.0.0.1:${this.httpPort}`;
  }

  get pid() {
    return this.process.pid;
  }

  /** The UDP ports of media, from what it said at its last start. */
  udpPorts() {
    const lines = this.log().match(/^ {2}udp .*$/gm);
    return [...new Set([...lines.at(-1).matchAll(/:(\d+)(?=,|$)/g)].map(([, port]) => Number(port)))];
  }

  token(claims) {
    return mint({ key: this.key, secret: this.secret, ...claims });
  }

  log() {
    return readFileSync(this.logFile, 'utf8');
  }

  /** Every room as the server sees it, for evidence. */
  async debug() {
    const answer = await fetch(`http://127.0.0.1:${this.adminPort}/debug/rooms`, { signal: AbortSignal.timeout(3000) });
    return answer.text();
  }

  logTail(lines = 20) {
    return this.log().split('\n').slice(-lines).join('\n');
  }

  /** Sends a signal and waits for the end of the process. */
  async end(signal = 'SIGTERM', limitMs = 15_000) {
    this.process.kill(signal);
    return within(`weir ends after ${signal}`, limitMs, this.exit);
  }

  async stop() {
    if (!this.ended) {
      try {
        await this.end('SIGTERM', 5000);
      } catch {
        await this.end('SIGKILL', 5000);
      }
    }
    rmSync(this.home, { recursive: true, force: true });
  }
}
