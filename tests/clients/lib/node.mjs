// A participant of the npm package @livekit/rtc-node, in this process. It answers to the methods of page/app.js.

import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { Participant } from './participant.mjs';
import { COLS, ROWS, SOURCES, counterAt, ageOf, decode, encode } from '../page/picture.js';

const RATE = 48_000;
const rtc = await import('@livekit/rtc-node').catch(() => null);
const NAMES = rtc && {
  [rtc.TrackSource.SOURCE_CAMERA]: 'camera',
  [rtc.TrackSource.SOURCE_MICROPHONE]: 'microphone',
  [rtc.TrackSource.SOURCE_SCREENSHARE]: 'screen_share',
};

function painted(number, source, width, height, column) {
  const bits = encode(number, SOURCES.indexOf(source), counterAt(Date.now()));
  const image = Buffer.alloc(width * height * 4, 255);
  for (let y = 0; y < height; y++) {
    const row = Math.floor((y * ROWS) / height);
    for (let x = 0; x < width; x++) {
      const cell = row * COLS + Math.floor((x * COLS) / width);
      const colour = (bits >> ((COLS * ROWS - 1 - cell) * 3)) & 7;
      const at = (y * width + x) * 4;
      const bar = y < 6 && x >= column && x < column + 5;
      for (let channel = 0; channel < 3; channel++) image[at + channel] = bar ? 128 : colour & (4 >> channel) ? 255 : 0;
    }
  }
  return image;
}

function readPicture({ data, width, height }) {
  let bits = 0;
  for (let cell = 0; cell < COLS * ROWS; cell++) {
    const x = Math.floor((((cell % COLS) + 0.5) * width) / COLS);
    const y = Math.floor(((Math.floor(cell / COLS) + 0.5) * height) / ROWS);
    for (let channel = 0; channel < 3; channel++) bits = (bits << 1) | (data[(y * width + x) * 4 + channel] > 127 ? 1 : 0);
  }
  return decode(bits);
}

export class NodeParticipant extends Participant {
  static async open(who) {
    if (!rtc) throw new Error('@livekit/rtc-node is not installed: run tests/run.sh sdks');
    const participant = new NodeParticipant({ ...who, kind: 'node' });
    Object.assign(participant, { told: [], inboxed: [], watched: new Map(), made: new Map(), room: new rtc.Room() });
    return participant;
  }

  call(method, args) {
    if (!this[`do_${method}`]) return Promise.reject(new Error(`no ${method} here`));
    return this[`do_${method}`](args);
  }

  note(name, detail = {}) {
    this.told.push({ t: Date.now(), name, ...detail });
  }

  async do_connect({ url, token, e2ee, dynacast = false }) {
    const { RoomEvent: E } = rtc;
    const what = (publication, who) => ({ identity: who.identity, source: NAMES[publication.source] });
    this.room
      .on(E.Reconnecting, () => this.note('reconnecting'))
      .on(E.Reconnected, () => this.note('reconnected'))
      .on(E.Disconnected, (reason) => this.note('disconnected', { reason: rtc.DisconnectReason[reason] }))
      .on(E.ParticipantConnected, ({ identity }) => this.note('participantConnected', { identity }))
      .on(E.ParticipantDisconnected, ({ identity }) => this.note('participantDisconnected', { identity }))
      .on(E.TrackUnpublished, (publication, who) => this.note('trackUnpublished', what(publication, who)))
      .on(E.TrackMuted, (publication, who) => this.note('trackMuted', what(publication, who)))
      .on(E.TrackUnmuted, (publication, who) => this.note('trackUnmuted', what(publication, who)))
      .on(E.ActiveSpeakersChanged, (who) => this.note('speakers', { speakers: who.map(({ identity }) => identity) }))
      .on(E.ConnectionQualityChanged, (quality, who) => this.note('connectionQuality', { identity: who.identity, quality: rtc.ConnectionQuality[quality] }))
      .on(E.TrackSubscribed, (track, publication, who) => {
        this.note('trackSubscribed', what(publication, who));
        this.watch(`${who.identity}/${NAMES[publication.source]}`, track);
      })
      .on(E.TrackUnsubscribed, (_, publication, who) => {
        this.note('trackUnsubscribed', what(publication, who));
        this.watched.delete(`${who.identity}/${NAMES[publication.source]}`);
      })
      .on(E.DataReceived, (data, who, kind, topic) => {
        const reliable = kind === rtc.DataPacketKind.KIND_RELIABLE;
        this.inboxed.push({ t: Date.now(), from: who?.identity, text: Buffer.from(data).toString(), reliable, topic });
      });
    this.room.registerTextStreamHandler('text', async (reader, from) => {
      this.inboxed.push({ t: Date.now(), from: from.identity, stream: 'text', text: await reader.readAll() });
    });
    this.room.registerByteStreamHandler('bytes', async (reader, from) => {
      const whole = Buffer.concat(await reader.readAll());
      const sha256 = createHash('sha256').update(whole).digest('hex');
      this.inboxed.push({ t: Date.now(), from: from.identity, stream: 'bytes', size: whole.length, sha256 });
    });
    const options = { autoSubscribe: true, dynacast };
    if (e2ee) {
      const sharedKey = Buffer.from(e2ee.passphrase);
      options.encryption = { ...rtc.defaultE2EEOptions, keyProviderOptions: { ...rtc.defaultKeyProviderOptions, sharedKey } };
    }
    await this.room.connect(url, token, options);
    const own = this.room.localParticipant;
    own.registerRpcMethod('echo', async ({ callerIdentity, payload }) => `${own.identity}<${callerIdentity}:${payload}`);
    return { sid: own.sid, identity: own.identity, room: this.room.name };
  }

  async watch(key, track) {
    const report = { samples: [], framesDecoded: 0, packets: 0 };
    this.watched.set(key, report);
    if (track.kind === rtc.TrackKind.KIND_AUDIO) {
      for await (const frame of new rtc.AudioStream(track, RATE, 1)) {
        report.packets++;
        const loudest = frame.data.reduce((most, sample) => Math.max(most, Math.abs(sample)), 1);
        report.samples = [...report.samples.slice(-89), [Date.now(), Math.round(20 * Math.log10(loudest / 32768))]];
      }
      return;
    }
    for await (const { frame } of new rtc.VideoStream(track)) {
      const picture = readPicture(frame.convert(rtc.VideoBufferType.RGBA));
      Object.assign(report, { width: frame.width, height: frame.height, framesDecoded: report.framesDecoded + 1 });
      report.packets = report.framesDecoded;
      if (picture) report.picture = picture;
    }
  }

  async publish(source, track, timer, options = {}) {
    const full = new rtc.TrackPublishOptions({ source: Number(Object.keys(NAMES).find((value) => NAMES[value] === source)), ...options });
    const publication = await this.room.localParticipant.publishTrack(track, full);
    this.made.set(source, { publication, track, timer });
    return { sid: publication.sid };
  }

  publishVideo(name, { width, height, fps, ...options }) {
    const source = new rtc.VideoSource(width, height);
    let column = 0;
    const timer = setInterval(() => {
      column = (column + 7) % width;
      source.captureFrame(new rtc.VideoFrame(painted(this.number, name, width, height, column), width, height, rtc.VideoBufferType.RGBA));
    }, 1000 / fps);
    return this.publish(name, rtc.LocalVideoTrack.createVideoTrack(name, source), timer, options);
  }

  do_publishCamera({ width = 640, height = 360, fps = 8, simulcast = true } = {}) {
    return this.publishVideo('camera', { width, height, fps, simulcast });
  }

  do_publishScreen() {
    return this.publishVideo('screen_share', { width: 800, height: 450, fps: 5, simulcast: false });
  }

  do_publishMicrophone() {
    const source = new rtc.AudioSource(RATE, 1);
    let on = true;
    let at = 0;
    const play = async () => {
      while (on) {
        const samples = Int16Array.from({ length: RATE / 50 }, () => 12_000 * Math.sin((2 * Math.PI * (500 + 220 * this.number) * at++) / RATE));
        await source.captureFrame(new rtc.AudioFrame(samples, RATE, 1, RATE / 50)).catch(() => (on = false));
      }
    };
    play();
    return this.publish('microphone', rtc.LocalAudioTrack.createAudioTrack('microphone', source), { stop: () => (on = false) });
  }

  async do_unpublish(source) {
    const { publication, timer } = this.made.get(source);
    await this.room.localParticipant.unpublishTrack(publication.sid);
    this.halt(timer);
    this.made.delete(source);
  }

  halt(timer) {
    if (timer.stop) timer.stop();
    else clearInterval(timer);
  }

  async do_look() {
    const participants = {};
    for (const [identity, who] of this.room.remoteParticipants) {
      const tracks = {};
      for (const publication of who.trackPublications.values()) {
        const source = NAMES[publication.source];
        const { samples, ...report } = this.watched.get(`${identity}/${source}`) ?? {};
        const picture = report.picture && { ...report.picture, age: ageOf(report.picture.counter, Date.now()) };
        tracks[source] = { sid: publication.sid, muted: publication.muted, subscribed: publication.subscribed, ...report, picture, samples };
      }
      participants[identity] = { sid: who.sid, name: who.name, metadata: who.metadata, attributes: { ...who.attributes }, tracks };
    }
    return { t: Date.now(), state: this.room.isConnected ? 'connected' : 'other', participants };
  }

  do_events = async () => this.told;
  do_inbox = async () => this.inboxed;
  do_sendData = ({ text, reliable = true, to = [], topic = '' }) =>
    this.room.localParticipant.publishData(Buffer.from(text), { reliable, destination_identities: to, topic });
  do_sendText = ({ text, to = [] }) => this.room.localParticipant.sendText(text, { topic: 'text', destinationIdentities: to });
  do_rpc = ({ to, payload, method = 'echo' }) => this.room.localParticipant.performRpc({ destinationIdentity: to, method, payload, responseTimeout: 8000 });
  do_setMetadata = (metadata) => this.room.localParticipant.updateMetadata(metadata);
  do_setName = (name) => this.room.localParticipant.updateName(name);
  do_setAttributes = (attributes) => this.room.localParticipant.setAttributes(attributes);
  do_simulate = ({ scenario }) => this.room.simulateScenario(scenario);

  async do_sendBytes({ size, to = [] }) {
    const data = Buffer.alloc(size, 7);
    const writer = await this.room.localParticipant.streamBytes({ name: 'bytes', topic: 'bytes', totalSize: size, destinationIdentities: to });
    await writer.write(data);
    await writer.close();
    return { size, sha256: createHash('sha256').update(data).digest('hex') };
  }

  async do_disconnect() {
    for (const { timer } of this.made.values()) this.halt(timer);
    await this.room.disconnect();
  }

  async save(path) {
    for (const what of ['look', 'events', 'inbox']) {
      await writeFile(`${path}.${what}.json`, JSON.stringify(await this.ask(what, undefined, 5000), (_, value) => (typeof value === 'bigint' ? String(value) : value), 1));
    }
  }

  close = () => this.do_disconnect();
}

/** Ends the native part, without which the process would not end. */
export const closeNative = () => rtc?.dispose();
