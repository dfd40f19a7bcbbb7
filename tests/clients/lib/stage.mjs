// A scenario: a room of its own on the file's server, participants that come and go, and everything worth keeping
// when it fails.

import { test, before, after } from 'node:test';
import { mkdirSync, rmSync, copyFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { PageParticipant, closeBrowsers } from './browsers.mjs';
import { NodeParticipant } from './node.mjs';
import { OUT } from './paths.mjs';
import { PythonParticipant } from './python.mjs';
import { within } from './until.mjs';
import { Weir } from './weir.mjs';

// A browser on a busy machine fails for reasons of its own now and then. What failed once is kept and counted in the
// summary of tests/run.sh; what fails twice in a row, from a fresh start each, is wrong.
const TRIES = 2;
const FILE = basename(process.argv[1] ?? 'clients').replace(/\.test\.mjs$/, '');
let server = null;

/** One server for all scenarios of the file that calls this. */
export function withWeir(settings = {}) {
  withServer(() => Weir.start(settings));
}

/** The same for a server of another kind, which `start` gives. */
export function withServer(start) {
  before(async () => {
    server = await start();
  });
  after(async () => {
    await closeBrowsers();
    await server?.stop();
  });
}

export function withoutWeir() {
  after(closeBrowsers);
}

class Stage {
  constructor(name) {
    this.name = name;
    this.weir = server;
    this.people = [];
    this.closers = [];
    /** Further servers whose logs are worth keeping. */
    this.others = [];
    this.room = `room-${FILE}-${Math.random().toString(36).slice(2, 8)}`;
  }

  /** A client program, not yet connected. `kind` is chromium, firefox, python or node. */
  async open(kind, name, options = {}) {
    const who = { kind, name, number: options.number ?? this.people.length + 1, own: options.own, sdk: options.sdk, flags: options.flags };
    const make = { python: PythonParticipant, node: NodeParticipant }[kind] ?? PageParticipant;
    const participant = await make.open(who);
    this.people.push(participant);
    return participant;
  }

  /** Connects an opened client; returns what the client says, errors included. */
  async connect(participant, { url = this.weir.url, room = this.room, token, grants, identity, ...options } = {}) {
    token ??= this.weir.token({ room, identity: identity ?? participant.identity, grants });
    participant.lastConnect = { url, token, number: participant.number, ...options };
    return participant.connect(participant.lastConnect, 30_000);
  }

  /** Opens and connects a client, and fails when it does not get in. */
  async join(kind, name, { number, own, sdk, ...options } = {}) {
    const participant = await this.open(kind, name, { number, own, sdk });
    const answer = await this.connect(participant, options);
    if (answer.error) throw new Error(`${participant.identity} (${kind}) could not join: ${JSON.stringify(answer.error)}`);
    participant.sid = answer.sid;
    return participant;
  }

  /** Closed at the end of the scenario. */
  keep(closable) {
    this.closers.push(closable);
    return closable;
  }

  async saveEvidence(error) {
    const folder = join(OUT, FILE, this.name.replace(/[^a-z0-9]+/gi, '-').slice(-90));
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'error.txt'), `${error.stack}\n`);
    for (const [at, weir] of [this.weir, ...this.others].entries()) {
      if (!weir) continue;
      const name = at === 0 ? 'weir' : `weir-${at + 1}`;
      copyFileSync(weir.logFile, join(folder, `${name}.log`));
      await weir.debug().then((rooms) => writeFileSync(join(folder, `${name}.rooms.txt`), rooms), () => {});
    }
    for (const participant of this.people) {
      try {
        await participant.save(join(folder, `${participant.identity}.${participant.kind}`));
      } catch (trouble) {
        writeFileSync(join(folder, `${participant.identity}.trouble.txt`), `${trouble.stack}\n`);
      }
    }
    console.log(`# kept in ${folder}`);
  }

  async close() {
    await Promise.allSettled(this.people.map((participant) => participant.close()));
    await Promise.allSettled(this.closers.map((closable) => closable.close()));
  }
}

/** Declares a scenario with a time limit in seconds. */
export function scenario(name, limitSeconds, body) {
  test(name, { timeout: TRIES * (limitSeconds + 40) * 1000 }, async () => {
    for (let left = TRIES - 1; ; left--) {
      const stage = new Stage(name);
      try {
        await within(name, limitSeconds * 1000, body(stage));
        return;
      } catch (error) {
        await stage.saveEvidence(error);
        if (left === 0) throw error;
        console.log(`# once more: ${name}: ${error.message}`);
      } finally {
        await stage.close();
      }
    }
  });
}

/** Declares the scenario once per way in which a client may set up its peer connections. */
export function inBothModes(name, limitSeconds, body) {
  scenario(`${name} (one peer connection)`, limitSeconds, (stage) => body(stage, { singlePeerConnection: true }));
  scenario(`${name} (two peer connections)`, limitSeconds, (stage) => body(stage, { singlePeerConnection: false }));
}
