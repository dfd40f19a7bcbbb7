// What arrives at a viewer, moment by moment, as raw series; judging them is the business of the test. Of each video
// every frame shown, [time, width]; of each sound what the browser had to make up, [time, samples so far, concealed so
// far]; and how long the page itself stood still.

const SAMPLE_MS = 50;

export class Meter {
  constructor(watch) {
    this.watch = watch;
    this.series = new Map(); // "identity/source" -> {frames, sound, last}
    this.stalls = [];
    this.last = Date.now();
    this.timer = setInterval(() => this.sample(), SAMPLE_MS);
  }

  sample() {
    const now = Date.now();
    if (now - this.last > 4 * SAMPLE_MS) this.stalls.push([this.last, now]);
    this.last = now;
    for (const entry of this.watch.tracks.values()) {
      if (this.series.get(entry.key)?.entry !== entry) this.begin(entry);
      if (entry.ear) this.listen(entry);
    }
  }

  begin(entry) {
    const before = this.series.get(entry.key);
    const series = { entry, frames: before?.frames ?? [], sound: before?.sound ?? [] };
    this.series.set(entry.key, series);
    if (entry.ear) return;
    const shown = (_, { width }) => {
      series.frames.push([Date.now(), width]);
      entry.element.requestVideoFrameCallback(shown);
    };
    entry.element.requestVideoFrameCallback(shown);
  }

  async listen(entry) {
    const stats = await entry.track.receiver?.getStats();
    for (const line of stats?.values() ?? []) {
      if (line.type !== 'inbound-rtp' || line.totalSamplesReceived === undefined) continue;
      this.series.get(entry.key)?.sound.push([Date.now(), line.totalSamplesReceived, line.concealedSamples]);
    }
  }

  /** Everything so far, and the browser's own count of freezes. */
  async report() {
    const tracks = {};
    for (const [key, { entry, frames, sound }] of this.series) {
      const lines = [...((await entry.track.receiver?.getStats())?.values() ?? [])];
      const line = lines.find(({ type }) => type === 'inbound-rtp') ?? {};
      const { freezeCount, totalFreezesDuration, pliCount, nackCount, packetsLost, packetsReceived, framesDropped } = line;
      const counted = { freezeCount, totalFreezesDuration, pliCount, nackCount, packetsLost, packetsReceived, framesDropped };
      tracks[key] = entry.ear ? { sound, counted } : { frames, counted };
    }
    return { t: Date.now(), tracks, stalls: this.stalls };
  }

  stop() {
    clearInterval(this.timer);
  }
}
