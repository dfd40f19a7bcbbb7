// The page under test: an ordinary user of livekit-client. Everything a test asks of it goes through
// window.weirTest; py/participant.py answers to the same names, so that a scenario need not know who it drives.

import * as livekit from 'livekit-client';
import { keyProvider, setKeys } from './keys.js';
import { Meter } from './meter.js';
import { Painter } from './picture.js';
import { pathOf, reachOnly } from './reach.js';
import { Scenery } from './scenery.js';
import { Tone } from './tone.js';
import { Watch } from './watch.js';
import { selfTest } from './selftest.js';

const { Room, RoomEvent, VideoPreset } = livekit;
const [major, minor] = livekit.version.split('.').map(Number);
const isAtLeast = (wantedMajor, wantedMinor) => major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);

const audio = new AudioContext({ sampleRate: 48000 });
let room = null;
let watch = null;
let meter = null;
let provider = null;
let number = 0;
const local = new Map(); // source -> {maker, publication}
const events = [];
const inbox = [];

function note(name, detail = {}) {
  events.push({ t: Date.now(), name, ...detail });
  console.log(`event ${name} ${JSON.stringify(detail)}`);
}

const keyOf = (publication, participant) => `${participant.identity}/${publication.source}`;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function numberOf(identity) {
  return Number(/-(\d+)$/.exec(identity)?.[1] ?? 0);
}

function hex(buffer) {
  return [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Bytes that any receiver can check by their hash, from a small generator both languages have. */
export function patternOf(size) {
  const bytes = new Uint8Array(size);
  let state = 1;
  for (let at = 0; at < size; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

function listen() {
  const who = (participant) => ({ identity: participant?.identity });
  const what = (publication, participant) => ({ identity: participant?.identity, source: publication.source });
  room
    .on(RoomEvent.ConnectionStateChanged, (state) => note('state', { state }))
    .on(RoomEvent.SignalReconnecting, () => note('signalReconnecting'))
    .on(RoomEvent.Reconnecting, () => note('reconnecting'))
    .on(RoomEvent.Reconnected, () => note('reconnected'))
    .on(RoomEvent.Disconnected, (reason) => note('disconnected', { reason: livekit.DisconnectReason[reason] }))
    .on(RoomEvent.ParticipantConnected, (p) => note('participantConnected', who(p)))
    .on(RoomEvent.ParticipantDisconnected, (p) => note('participantDisconnected', who(p)))
    .on(RoomEvent.TrackPublished, (pub, p) => note('trackPublished', what(pub, p)))
    .on(RoomEvent.TrackUnpublished, (pub, p) => note('trackUnpublished', what(pub, p)))
    .on(RoomEvent.TrackMuted, (pub, p) => note('trackMuted', what(pub, p)))
    .on(RoomEvent.TrackUnmuted, (pub, p) => note('trackUnmuted', what(pub, p)))
    .on(RoomEvent.TrackSubscriptionFailed, (sid, p, why) => note('subscriptionFailed', { ...who(p), sid, why: String(why) }))
    .on(RoomEvent.TrackStreamStateChanged, (pub, state, p) => note('streamState', { ...what(pub, p), state }))
    .on(RoomEvent.ActiveSpeakersChanged, (speakers) => note('speakers', { speakers: speakers.map((p) => p.identity) }))
    .on(RoomEvent.EncryptionError, (error) => note('encryptionError', { message: String(error?.message ?? error) }))
    .on(RoomEvent.LocalTrackSubscribed, (pub) => note('localTrackSubscribed', { source: pub.source }))
    .on(RoomEvent.ParticipantMetadataChanged, (_, p) => note('metadata', { ...who(p), metadata: p.metadata }))
    .on(RoomEvent.ParticipantNameChanged, (name, p) => note('name', { ...who(p), displayName: name }))
    .on(RoomEvent.ParticipantAttributesChanged, (changed, p) => note('attributes', { ...who(p), changed }))
    .on(RoomEvent.ConnectionQualityChanged, (quality, p) => note('connectionQuality', { ...who(p), quality }))
    .on(RoomEvent.RoomMetadataChanged, (metadata) => note('roomMetadata', { metadata }))
    .on(RoomEvent.TrackSubscriptionPermissionChanged, (pub, status, p) => note('subscriptionPermission', { ...what(pub, p), status }))
    .on(RoomEvent.TrackSubscribed, (track, pub, p) => {
      note('trackSubscribed', what(pub, p));
      watch.add(keyOf(pub, p), track, numberOf(p.identity));
    })
    .on(RoomEvent.TrackUnsubscribed, (track, pub, p) => {
      note('trackUnsubscribed', what(pub, p));
      watch.remove(keyOf(pub, p));
    })
    .on(RoomEvent.DataReceived, (payload, participant, kind, topic) => {
      const reliable = kind === livekit.DataPacket_Kind.RELIABLE;
      inbox.push({ t: Date.now(), from: participant?.identity, text: new TextDecoder().decode(payload), reliable, topic });
    });
  room.registerByteStreamHandler?.('bytes', async (reader, from) => {
    const entry = { t: Date.now(), from: from.identity, stream: 'bytes' };
    try {
      const whole = await new Blob(await reader.readAll()).arrayBuffer();
      Object.assign(entry, { size: whole.byteLength, sha256: hex(await crypto.subtle.digest('SHA-256', whole)) });
    } catch (error) {
      entry.error = String(error);
    }
    inbox.push(entry);
  });
  room.registerTextStreamHandler?.('text', async (reader, from) => {
    inbox.push({ t: Date.now(), from: from.identity, stream: 'text', text: await reader.readAll() });
  });
  room.registerRpcMethod?.('echo', async ({ callerIdentity, payload }) => `${room.localParticipant.identity}<${callerIdentity}:${payload}`);
}

function publicationOf(source) {
  const publication = local.get(source)?.publication;
  if (!publication) throw new Error(`this participant publishes no ${source}`);
  return publication;
}

// The maps of remote participants and publications had other names before 2.0.
const remotes = () => room?.remoteParticipants ?? room?.participants ?? new Map();
const publicationsOf = (participant) => participant.trackPublications ?? participant.tracks;

function remotePublication(identity, source) {
  const participant = remotes().get(identity);
  const publication = participant?.getTrackPublication?.(source) ?? participant?.getTrack?.(source);
  if (!publication) throw new Error(`${identity} publishes no ${source}`);
  return publication;
}

async function publish(source, maker, options) {
  const publication = await room.localParticipant.publishTrack(maker.track, { source, ...options });
  local.set(source, { maker, publication });
  return { sid: publication.trackSid };
}

const api = {
  version: () => ({ livekit: livekit.version, protocol: livekit.protocolVersion, agent: navigator.userAgent }),

  async connect({ url, token, number: own, singlePeerConnection = true, e2ee, adaptiveStream = false, dynacast = false, reach, rtcConfig, turn }) {
    number = own;
    reachOnly(reach, turn);
    const options = { singlePeerConnection, adaptiveStream, dynacast };
    if (e2ee) {
      provider = await keyProvider(e2ee);
      // Clients before 2.16 know it by the older name, which encrypts media only.
      options[isAtLeast(2, 16) ? 'encryption' : 'e2ee'] = { keyProvider: provider, worker: new Worker('e2ee-worker.js', { type: 'module' }) };
    }
    room = new Room(options);
    watch ??= new Watch(audio);
    listen();
    if (e2ee) await room.setE2EEEnabled(true);
    try {
      await room.connect(url, token, { autoSubscribe: true, rtcConfig });
    } catch (error) {
      return { error: { name: error.name, message: error.message, reason: error.reasonName, status: error.status } };
    }
    await audio.resume();
    return { sid: room.localParticipant.sid, identity: room.localParticipant.identity, room: room.name };
  },

  setKeys: (e2ee) => setKeys(provider, e2ee),

  publishCamera({ width = 640, height = 360, fps = 15, simulcast = true, codec = 'vp8', layers, ...more } = {}) {
    const options = { simulcast, videoCodec: codec, ...more };
    if (layers) options.videoSimulcastLayers = layers.map((l) => new VideoPreset(l.width, l.height, l.bitrate, fps));
    return publish('camera', new Painter(number, 'camera', width, height, fps), options);
  },

  /** A camera whose encodings cost what they may. */
  publishScenery({ width = 960, height = 540, fps = 15, bitrate = 1_700_000, layers, ...more } = {}) {
    const videoSimulcastLayers = layers?.map((l) => new VideoPreset(l.width, l.height, l.bitrate, fps));
    const options = { videoEncoding: { maxBitrate: bitrate, maxFramerate: fps }, degradationPreference: 'maintain-resolution', ...more };
    return publish('camera', new Scenery(width, height, fps), { ...options, ...(layers && { simulcast: true, videoSimulcastLayers }) });
  },

  publishScreen({ width = 800, height = 450, fps = 5, codec, ...more } = {}) {
    const options = { simulcast: false, ...(codec && { videoCodec: codec }), ...more };
    return publish('screen_share', new Painter(number, 'screen_share', width, height, fps), options);
  },

  publishMicrophone: ({ dtx = true } = {}) => publish('microphone', new Tone(audio, number), { dtx, red: false }),

  async unpublish(source) {
    const publication = publicationOf(source);
    await room.localParticipant.unpublishTrack(publication.track);
    local.get(source).maker.stop();
    local.delete(source);
  },

  async mute(source) {
    const t = Date.now();
    await publicationOf(source).mute();
    return { t };
  },

  async unmute(source) {
    const t = Date.now();
    await publicationOf(source).unmute();
    return { t };
  },

  resize: ({ identity, source = 'camera', width, height }) => watch.resize(`${identity}/${source}`, width, height),
  hide: ({ identity, source = 'camera' }) => watch.hide(`${identity}/${source}`),

  setSubscribed({ identity, source, wanted }) {
    remotePublication(identity, source).setSubscribed(wanted);
  },

  /** Any setting of a remote publication by the name of its method. */
  set({ identity, source = 'camera', setting, value }) {
    remotePublication(identity, source)[setting](value);
  },

  allowSubscribers: ({ all, some = [] }) => room.localParticipant.setTrackSubscriptionPermissions(all, some),
  simulate: ({ scenario, value }) => room.simulateScenario(scenario, value),
  roundTrip: () => room.engine.client.rtt,
  quality: () => room.localParticipant.connectionQuality,
  speakers: () => room.activeSpeakers.map(({ identity }) => identity),

  /** Everything this participant sees and hears of the others. */
  async look() {
    const participants = {};
    for (const participant of remotes().values()) {
      const tracks = {};
      for (const publication of publicationsOf(participant).values()) {
        // The SDK swallows events of the room in the two seconds after a full reconnect; what is there, a person sees.
        if (publication.track && !watch.knows(keyOf(publication, participant), publication.track)) {
          watch.add(keyOf(publication, participant), publication.track, numberOf(participant.identity));
        }
        tracks[publication.source] = {
          sid: publication.trackSid,
          muted: publication.isMuted,
          subscribed: publication.isSubscribed,
          encrypted: publication.isEncrypted,
          ...(await watch.report(`${participant.identity}/${publication.source}`)),
        };
      }
      participants[participant.identity] = {
        sid: participant.sid,
        name: participant.name,
        metadata: participant.metadata,
        attributes: participant.attributes,
        tracks,
      };
    }
    return { t: Date.now(), state: room?.state, sid: room?.localParticipant.sid, participants };
  },

  /** Begins to measure what arrives; `measured` gives what was seen since. */
  measure() {
    meter?.stop();
    meter = new Meter(watch);
  },

  measured: () => meter.report(),

  /** Milliseconds from wanting a video to its first picture. */
  async firstPicture({ identity, source = 'camera' }) {
    const publication = remotePublication(identity, source);
    const key = `${identity}/${source}`;
    publication.setSubscribed(false);
    while (watch.tracks.has(key)) await pause(20);
    await pause(500);
    const since = performance.now();
    publication.setSubscribed(true);
    while (!watch.tracks.has(key)) await pause(2);
    await watch.frame(key);
    return performance.now() - since;
  },

  /** Milliseconds from making a video large to a picture of that width. */
  async sharpAfter({ identity, source = 'camera', width, height }) {
    const key = `${identity}/${source}`;
    const since = performance.now();
    watch.resize(key, width, height);
    await watch.frame(key, (frame) => frame.width >= width);
    return performance.now() - since;
  },

  /** What this participant's own senders do: one entry per encoding. */
  async sending() {
    const encodings = [];
    for (const [source, { publication }] of local) {
      const lines = [...((await publication.track?.sender?.getStats())?.values() ?? [])];
      const pair = lines.find(({ type, nominated }) => type === 'candidate-pair' && nominated);
      for (const line of lines.filter(({ type }) => type === 'outbound-rtp')) {
        const { rid, active, framesSent, bytesSent, headerBytesSent, packetsSent, frameWidth, frameHeight, targetBitrate, scalabilityMode } = line;
        const limitedBy = line.qualityLimitationReason;
        const estimate = pair?.availableOutgoingBitrate;
        encodings.push({ source, rid, scalabilityMode, active, framesSent, bytesSent, headerBytesSent, packetsSent, frameWidth, frameHeight, targetBitrate, limitedBy, estimate });
      }
    }
    return encodings;
  },

  /** What comes in, as the browser counts it: one entry per received stream. */
  async receiving() {
    const streams = [];
    for (const participant of remotes().values()) {
      for (const publication of publicationsOf(participant).values()) {
        const lines = [...((await publication.track?.receiver?.getStats())?.values() ?? [])];
        const stream = lines.find(({ type }) => type === 'inbound-rtp');
        streams.push({ from: participant.identity, source: publication.source, playing: publication.track?.mediaStreamTrack?.muted === false, ...stream });
      }
    }
    return streams;
  },

  events: () => events,
  inbox: () => inbox,

  sendData({ text, reliable = true, to, topic }) {
    const bytes = new TextEncoder().encode(text);
    if (isAtLeast(2, 0)) return room.localParticipant.publishData(bytes, { reliable, destinationIdentities: to, topic });
    const kind = reliable ? livekit.DataPacket_Kind.RELIABLE : livekit.DataPacket_Kind.LOSSY;
    return room.localParticipant.publishData(bytes, kind, { destinationIdentities: to, topic });
  },

  rpc: ({ to, method = 'echo', payload }) =>
    room.localParticipant.performRpc({ destinationIdentity: to, method, payload, responseTimeout: 8000 }),

  async sendBytes({ size, to }) {
    const bytes = patternOf(size);
    const sha256 = hex(await crypto.subtle.digest('SHA-256', bytes));
    const writer = await room.localParticipant.streamBytes({ topic: 'bytes', destinationIdentities: to, totalSize: size });
    await writer.write(bytes);
    await writer.close();
    return { size, sha256 };
  },

  async sendText({ text, to }) {
    await room.localParticipant.sendText(text, { topic: 'text', destinationIdentities: to });
  },

  setMetadata: (metadata) => room.localParticipant.setMetadata(metadata),
  setName: (name) => room.localParticipant.setName(name),
  setAttributes: (attributes) => room.localParticipant.setAttributes(attributes),

  /** Picks the transport that carries media, as the browser sees it. */
  async transports() {
    const manager = room.engine?.pcManager;
    return ['publisher', 'subscriber']
      .map((name) => manager?.[name])
      .filter(Boolean)
      .map((transport) => ({ state: transport.getConnectionState(), ice: transport.getICEConnectionState() }));
  },

  /** The ways media takes, one for each peer connection. */
  paths: () => Promise.all(['publisher', 'subscriber'].map((name) => room.engine?.pcManager?.[name]?.pc).filter(Boolean).map(pathOf)),

  async disconnect() {
    await room?.disconnect();
    for (const { maker } of local.values()) maker.stop();
    local.clear();
  },

  selfTest: (seconds) => selfTest(audio, seconds),
};

window.weirTest = api;
window.addEventListener('unhandledrejection', (event) => console.error(`unhandled ${event.reason?.stack ?? event.reason}`));

// What the SDK says, as text: the console of a headless browser shows objects only by name.
function asText(value) {
  const seen = new Set();
  const plain = (_, inner) => {
    if (typeof inner === 'bigint') return String(inner);
    if (typeof inner !== 'object' || inner === null) return inner;
    if (seen.has(inner) || inner instanceof EventTarget) return undefined;
    seen.add(inner);
    return inner instanceof Error ? String(inner.stack ?? inner) : inner;
  };
  try {
    return JSON.stringify(value, plain)?.slice(0, 12000);
  } catch (error) {
    return String(error);
  }
}
livekit.setLogLevel('debug');
livekit.setLogExtension((level, message, context) => console.log(`sdk ${level} ${message} ${asText(context) ?? ''}`));
