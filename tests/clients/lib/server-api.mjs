// The server API as two server SDKs speak it: npm livekit-server-sdk (JSON) and PyPI livekit-api (protobuf). Both take
// a method of RoomService with its request's fields, and give the answer in JSON form, or throw an error with `code`.

import { spawn } from 'node:child_process';
import { webcrypto } from 'node:crypto';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DataPacket_Kind, RoomServiceClient } from 'livekit-server-sdk';
import { HERE, PYTHON } from './paths.mjs';
import { within } from './until.mjs';

// Node 18 has it, but not where the npm package looks.
globalThis.crypto ??= webcrypto;

const PLAIN = (message) => message?.toJson?.() ?? message ?? {};

export class NodeApi {
  static kind = 'npm livekit-server-sdk';

  constructor({ url, key, secret }) {
    const client = new RoomServiceClient(url, key, secret);
    this.methods = {
      CreateRoom: (ask) => client.createRoom(ask),
      ListRooms: async ({ names }) => ({ rooms: (await client.listRooms(names)).map(PLAIN) }),
      DeleteRoom: ({ room }) => client.deleteRoom(room),
      ListParticipants: async ({ room }) => ({ participants: (await client.listParticipants(room)).map(PLAIN) }),
      GetParticipant: ({ room, identity }) => client.getParticipant(room, identity),
      RemoveParticipant: ({ room, identity }) => client.removeParticipant(room, identity),
      ForwardParticipant: (ask) => client.forwardParticipant(ask.room, ask.identity, ask.destinationRoom),
      MoveParticipant: (ask) => client.moveParticipant(ask.room, ask.identity, ask.destinationRoom),
      MutePublishedTrack: async (ask) => ({ track: PLAIN(await client.mutePublishedTrack(ask.room, ask.identity, ask.trackSid, ask.muted)) }),
      UpdateParticipant: ({ room, identity, ...changes }) => client.updateParticipant(room, identity, changes),
      UpdateSubscriptions: (ask) => client.updateSubscriptions(ask.room, ask.identity, ask.trackSids, ask.subscribe),
      SendData: ({ room, text, ...options }) => client.sendData(room, Buffer.from(text), DataPacket_Kind.RELIABLE, options),
      UpdateRoomMetadata: ({ room, metadata }) => client.updateRoomMetadata(room, metadata),
    };
  }

  async call(method, ask) {
    return PLAIN(await within(`${method} by npm`, 15_000, this.methods[method](ask)));
  }

  close() {}
}

export class PythonApi {
  static kind = 'PyPI livekit-api';

  constructor({ url, key, secret }) {
    const env = { ...process.env, LIVEKIT_URL: url, LIVEKIT_API_KEY: key, LIVEKIT_API_SECRET: secret, PYTHONDONTWRITEBYTECODE: '1' };
    this.process = spawn(PYTHON, [join(HERE, 'py', 'server_api.py')], { stdio: ['pipe', 'pipe', 'inherit'], env });
    this.waiting = [];
    createInterface({ input: this.process.stdout }).on('line', (line) => {
      const { result, error } = JSON.parse(line);
      const { resolve, reject } = this.waiting.shift();
      if (error) reject(Object.assign(new Error(error.message), error));
      else resolve(result);
    });
    this.process.on('exit', (code) => {
      for (const { reject } of this.waiting) reject(new Error(`the python program ended (${code})`));
    });
    this.process.stdin.on('error', () => {});
  }

  call(method, ask) {
    const answer = new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
    this.process.stdin.write(`${JSON.stringify({ method, ask })}\n`);
    // Long enough for a busy machine to start Python.
    return within(`${method} by python`, 40_000, answer);
  }

  /** Checks webhooks with the package's own receiver; returns the names of their events. */
  verify(received) {
    return this.call('verify', { received });
  }

  close() {
    this.process.kill();
  }
}
