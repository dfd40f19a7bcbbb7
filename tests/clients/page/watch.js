// Watches the remote tracks of a room the way a user would: what picture does each video show and how old is it, how
// loud is each sender's tone. Keeps a few seconds of history per track, as [time, age in ms] or [time, dB]; judging it is
// the business of the test.

import { Reader, ageOf } from './picture.js';
import { Ear } from './tone.js';

const SAMPLE_MS = 100;
const KEEP = 90; // nine seconds

export class Watch {
  constructor(audio) {
    this.audio = audio;
    this.reader = new Reader();
    this.tracks = new Map(); // "identity/source" -> entry
    this.timer = setInterval(() => this.sample(), SAMPLE_MS);
  }

  add(key, track, sender) {
    this.remove(key);
    const element = track.attach();
    const entry = { key, track, element, samples: [] };
    if (track.kind === 'video') {
      const tile = document.createElement('div');
      tile.className = 'tile';
      element.muted = true;
      tile.append(element, key);
      document.getElementById('tiles').append(tile);
      entry.tile = tile;
    } else {
      document.body.append(element);
      entry.ear = new Ear(this.audio, track.mediaStreamTrack, sender);
    }
    this.tracks.set(key, entry);
  }

  knows(key, track) {
    return this.tracks.get(key)?.track === track;
  }

  remove(key) {
    const entry = this.tracks.get(key);
    if (!entry) return;
    entry.ear?.stop();
    entry.track.detach(entry.element);
    entry.element.remove();
    entry.tile?.remove();
    this.tracks.delete(key);
  }

  sample() {
    const now = Date.now();
    for (const entry of this.tracks.values()) {
      if (entry.ear) {
        entry.samples.push([now, Math.round(entry.ear.level())]);
        if (entry.samples.length > KEEP) entry.samples.shift();
        continue;
      }
      if (!entry.element.videoWidth) continue;
      const picture = this.reader.read(entry.element);
      entry.reads = (entry.reads ?? 0) + 1;
      if (!picture) continue;
      entry.good = (entry.good ?? 0) + 1;
      entry.picture = { ...picture, readAt: now };
      entry.samples.push([now, ageOf(picture.counter, now)]);
      if (entry.samples.length > KEEP) entry.samples.shift();
    }
  }

  /** What one track looks or sounds like now, with the receiver's own counters. */
  async report(key) {
    const entry = this.tracks.get(key);
    if (!entry) return null;
    const report = { samples: entry.samples };
    if (!entry.ear) {
      const { videoWidth, videoHeight } = entry.element;
      Object.assign(report, { width: videoWidth, height: videoHeight, reads: entry.reads ?? 0, good: entry.good ?? 0 });
      if (entry.picture) {
        report.picture = { ...entry.picture, age: ageOf(entry.picture.counter, Date.now()) };
      }
    }
    const stats = await entry.track.receiver?.getStats();
    for (const line of stats?.values() ?? []) {
      if (line.type !== 'inbound-rtp') continue;
      report.packets = line.packetsReceived;
      report.bytes = line.bytesReceived;
      report.lost = line.packetsLost;
      report.framesReceived = line.framesReceived;
      report.framesDecoded = line.framesDecoded;
      report.codec = stats.get(line.codecId)?.mimeType;
    }
    return report;
  }

  /** Resolves at the first frame shown from now on that fits. */
  frame(key, fits = () => true) {
    const { element } = this.tracks.get(key);
    return new Promise((resolve) => {
      const shown = (_, frame) => (fits(frame) ? resolve() : element.requestVideoFrameCallback(shown));
      element.requestVideoFrameCallback(shown);
    });
  }

  resize(key, width, height) {
    const entry = this.tracks.get(key);
    if (!entry?.tile) throw new Error(`no video of ${key} to resize`);
    Object.assign(entry.element.style, { display: 'block', width: `${width}px`, height: `${height}px` });
  }

  hide(key) {
    this.tracks.get(key).element.style.display = 'none';
  }

  stop() {
    clearInterval(this.timer);
    for (const key of [...this.tracks.keys()]) this.remove(key);
  }
}
