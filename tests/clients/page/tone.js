// The test sound: a sine whose frequency tells the sender, on for the even seconds of the wall clock and off for the
// odd ones. A receiver on the same machine can so tell whose sound it is, that it comes at the right moment, and how
// late. py/tone.py makes and measures the same sound.

export const PHASE_MS = 1000;

export function frequencyOf(number) {
  return 500 + 220 * number;
}

export function isOnAt(now) {
  return Math.floor(now / PHASE_MS) % 2 === 0;
}

/** Plays the tone of one sender into an audio track. */
export class Tone {
  constructor(audio, number) {
    const oscillator = audio.createOscillator();
    const gain = audio.createGain();
    const destination = audio.createMediaStreamDestination();
    oscillator.frequency.value = frequencyOf(number);
    gain.gain.value = 0;
    oscillator.connect(gain).connect(destination);
    oscillator.start();
    let on = false;
    this.timer = setInterval(() => {
      const wanted = isOnAt(Date.now());
      if (wanted === on) return;
      on = wanted;
      gain.gain.setTargetAtTime(on ? 0.5 : 0, audio.currentTime, 0.004);
    }, 20);
    this.oscillator = oscillator;
    this.track = destination.stream.getAudioTracks()[0];
  }

  stop() {
    clearInterval(this.timer);
    this.oscillator.stop();
    this.track.stop();
  }
}

/** Measures the energy of one track at one frequency, in dB of full scale. */
export class Ear {
  constructor(audio, track, number) {
    this.source = audio.createMediaStreamSource(new MediaStream([track]));
    this.analyser = audio.createAnalyser();
    this.analyser.fftSize = 2048;
    this.analyser.smoothingTimeConstant = 0;
    this.source.connect(this.analyser);
    this.bins = new Float32Array(this.analyser.frequencyBinCount);
    this.bin = Math.round((frequencyOf(number) * this.analyser.fftSize) / audio.sampleRate);
  }

  level() {
    this.analyser.getFloatFrequencyData(this.bins);
    return Math.max(-120, ...this.bins.subarray(this.bin - 1, this.bin + 2));
  }

  stop() {
    this.source.disconnect();
  }
}
