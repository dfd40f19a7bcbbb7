// What a scenario holds in its hand: somebody in a room. Browser pages and the Python program answer to the same
// methods, listed here.

import { within } from './until.mjs';

const METHODS = [
  'connect', 'disconnect', 'setKeys', 'publishCamera', 'publishScreen', 'publishMicrophone', 'unpublish', 'mute', 'unmute',
  'setSubscribed', 'look', 'events', 'inbox', 'sendData', 'rpc', 'sendBytes', 'sendText', 'setMetadata', 'selfTest',
  // browsers only
  'version', 'resize', 'hide', 'sending', 'receiving', 'setName', 'setAttributes', 'transports', 'set', 'allowSubscribers',
  'simulate', 'roundTrip', 'quality', 'speakers', 'paths', 'publishScenery', 'measure', 'measured',
  'firstPicture', 'sharpAfter',
];

const GLANCE_MS = 200;

export class Participant {
  constructor({ name, number, kind }) {
    Object.assign(this, { name, number, kind, identity: `${name}-${number}` });
  }

  /** Calls one method of the far side; `limitMs` covers a machine that is busy with other browsers. */
  async ask(method, args, limitMs = 20_000) {
    return within(`${method} of ${this.identity} (${this.kind})`, limitMs, this.call(method, args));
  }

  /** What `look` says, shared by everybody who asks within a moment: many judges wait on one busy page. */
  glance() {
    const now = Date.now();
    if (!this.glanced || now - this.glanced.at > GLANCE_MS) this.glanced = { at: now, look: this.look() };
    return this.glanced.look;
  }

  /** The first event of that name that fits, no older than `since`. */
  async event(name, fits = () => true, since = 0) {
    return (await this.events()).find((event) => event.name === name && event.t >= since && fits(event));
  }
}

for (const method of METHODS) {
  Participant.prototype[method] = function ask(args, limitMs) {
    return this.ask(method, args, limitMs);
  };
}
