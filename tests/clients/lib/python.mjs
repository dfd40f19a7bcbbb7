// A participant in a process of the PyPI livekit SDK, spoken to in JSON lines.

import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { HERE, PYTHON } from './paths.mjs';
import { Participant } from './participant.mjs';

export class PythonParticipant extends Participant {
  /** `sdk` is the Python interpreter of another environment. */
  static async open(who) {
    const participant = new PythonParticipant({ ...who, kind: 'python' });
    const env = { ...process.env, PYTHONDONTWRITEBYTECODE: '1' };
    participant.process = spawn(who.sdk ?? PYTHON, [join(HERE, 'py', 'participant.py')], { stdio: ['pipe', 'pipe', 'pipe'], env });
    participant.waiting = new Map();
    participant.nextId = 1;
    participant.stderr = [];
    participant.process.stderr.on('data', (chunk) => participant.stderr.push(chunk));
    participant.process.stdin.on('error', () => {});
    createInterface({ input: participant.process.stdout }).on('line', (line) => participant.take(line));
    const fail = (why) => {
      for (const { reject } of participant.waiting.values()) reject(new Error(`the python participant ${why}`));
      participant.waiting.clear();
      participant.ended = why;
    };
    participant.process.on('exit', (code, signal) => fail(`ended (${code ?? signal})`));
    participant.process.on('error', (error) => fail(`did not start: ${error.message}`));
    return participant;
  }

  take(line) {
    if (!line.startsWith('{')) {
      this.stderr.push(`${line}\n`);
      return;
    }
    const { id, result, error } = JSON.parse(line);
    const waiter = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) waiter?.reject(new Error(error));
    else waiter?.resolve(result);
  }

  call(method, args) {
    if (this.ended) return Promise.reject(new Error(`the python participant ${this.ended}`));
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.process.stdin.write(`${JSON.stringify({ id, method, args })}\n`);
    });
  }

  async save(path) {
    await writeFile(`${path}.stderr.log`, this.stderr.join(''));
    if (this.ended) return;
    for (const what of ['look', 'events', 'inbox']) {
      await writeFile(`${path}.${what}.json`, JSON.stringify(await this.ask(what, undefined, 5000), null, 1));
    }
  }

  async close() {
    this.process.kill('SIGKILL');
  }
}
