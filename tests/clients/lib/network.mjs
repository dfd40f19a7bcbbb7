// A bad network between clients and the server: the emulator of `weir-loadtest net`, told what to be like while it runs.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { LOADTEST } from './paths.mjs';
import { ownAddress } from './udp-proxy.mjs';
import { within } from './until.mjs';

export class Network {
  /** Before the server's media at `port` of `host`; clients use its own `host` and `port`. */
  static async before(port, host = ownAddress(), ...set) {
    const network = new Network();
    const args = ['net', '--control', '--listen', `${ownAddress()}:0`, '--to', `${host}:${port}`, ...set.flatMap((words) => ['--set', words])];
    network.process = spawn(LOADTEST, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    network.waiting = [];
    createInterface({ input: network.process.stdout }).on('line', (line) => network.waiting.shift()?.(JSON.parse(line)));
    network.process.stdin.on('error', () => {});
    const { listening } = await network.answer('the network listens');
    [network.host, network.port] = listening.split(':');
    network.port = Number(network.port);
    return network;
  }

  answer(what) {
    return within(what, 5000, new Promise((resolve) => this.waiting.push(resolve)));
  }

  /** How clients reach it, for their `connect`. */
  get reach() {
    return { via: this.port, host: this.host };
  }

  /** Such as "down rate 500". */
  become(words) {
    this.process.stdin.write(`${words}\n`);
  }

  /** What has happened since it was asked last. */
  stats() {
    this.process.stdin.write('stats\n');
    return this.answer('the network counts');
  }

  close() {
    this.process.stdin.end();
  }
}
