// Makes clip.bin: a moving picture in three sizes (VP8) and something like speech (Opus), encoded by Chromium.
//
//   node loadtest/assets/make.mjs            needs Chromium and tests/clients/node_modules
//
// The picture and the sound are drawn and reckoned here, so nobody else's rights are in them.

import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { launch } from '../../tests/clients/lib/browsers.mjs';

const SECONDS = 2;
const FPS = 15;
const SIZES = [[320, 180, 110_000], [640, 360, 300_000], [960, 540, 600_000]];

async function inPage(seconds, fps, sizes) {
  const bytes = (chunk) => {
    const data = new Uint8Array(chunk.byteLength);
    chunk.copyTo(data);
    return { key: chunk.type === 'key', data: Array.from(data) };
  };
  const video = async ([width, height, bitrate]) => {
    const frames = [];
    const encoder = new VideoEncoder({ output: (chunk) => frames.push(bytes(chunk)), error: (error) => { throw error; } });
    encoder.configure({ codec: 'vp8', width, height, bitrate, framerate: fps, latencyMode: 'realtime' });
    const canvas = new OffscreenCanvas(width, height);
    const pen = canvas.getContext('2d');
    const count = seconds * fps;
    for (let at = 0; at < count; at += 1) {
      const turn = (at / count) * 2 * Math.PI;
      pen.fillStyle = `hsl(${(at / count) * 360} 80% 45%)`;
      pen.fillRect(0, 0, width, height);
      for (let dot = 0; dot < 6; dot += 1) {
        const angle = turn + (dot * Math.PI) / 3;
        pen.fillStyle = `hsl(${dot * 60} 90% 60%)`;
        pen.beginPath();
        pen.arc(width / 2 + Math.cos(angle) * height * 0.32, height / 2 + Math.sin(angle) * height * 0.32, height * 0.11, 0, 7);
        pen.fill();
      }
      const frame = new VideoFrame(canvas, { timestamp: (at * 1e6) / fps });
      encoder.encode(frame, { keyFrame: at % fps === 0 });
      frame.close();
    }
    await encoder.flush();
    return { width, height, frames };
  };
  const audio = async () => {
    const frames = [];
    const encoder = new AudioEncoder({ output: (chunk) => frames.push(bytes(chunk)), error: (error) => { throw error; } });
    encoder.configure({ codec: 'opus', sampleRate: 48_000, numberOfChannels: 1, bitrate: 32_000, opus: { frameDuration: 20_000, application: 'voip' } });
    const total = 48_000 * seconds;
    const samples = new Float32Array(total);
    for (let at = 0; at < total; at += 1) {
      const time = at / 48_000;
      // A voice: harmonics of a pitch that moves, in syllables of a quarter of a second.
      const pitch = 130 + 25 * Math.sin(2 * Math.PI * time);
      const syllable = Math.max(0, Math.sin(2 * Math.PI * 4 * time)) ** 0.5;
      let sum = 0;
      for (let harmonic = 1; harmonic < 20; harmonic += 1) {
        const formant = Math.exp(-(((harmonic * pitch - 600) / 350) ** 2)) + 0.5 * Math.exp(-(((harmonic * pitch - 1700) / 400) ** 2));
        sum += formant * Math.sin(2 * Math.PI * harmonic * pitch * time);
      }
      samples[at] = 0.15 * syllable * sum;
    }
    encoder.encode(new AudioData({ format: 'f32', sampleRate: 48_000, numberOfFrames: total, numberOfChannels: 1, timestamp: 0, data: samples }));
    await encoder.flush();
    return { width: 0, height: 0, frames: frames.slice(0, seconds * 50) };
  };
  return [await audio(), ...(await Promise.all(sizes.map(video)))];
}

const site = createServer((_, answer) => answer.end('<!doctype html>')).listen(0, '127.0.0.1');
const browser = await launch('chromium', {});
try {
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  const tracks = await page.evaluate(inPage, SECONDS, FPS, SIZES);
  const short = (value) => { const out = Buffer.alloc(2); out.writeUInt16BE(value); return out; };
  const parts = [Buffer.from('WCLP'), Buffer.from([tracks.length])];
  for (const { width, height, frames } of tracks) {
    parts.push(short(width), short(height), short(frames.length));
    for (const { key, data } of frames) {
      const head = Buffer.alloc(5);
      head.writeUInt32BE(data.length);
      head[4] = key ? 1 : 0;
      parts.push(head, Buffer.from(data));
    }
    const all = frames.reduce((sum, { data }) => sum + data.length, 0);
    console.log(`${width}x${height}: ${frames.length} frames, ${all} bytes, ${frames.filter(({ key }) => key).length} key frames`);
  }
  const file = Buffer.concat(parts);
  writeFileSync(new URL('clip.bin', import.meta.url), file);
  console.log(`clip.bin: ${file.length} bytes`);
} finally {
  await browser.close();
  site.close();
}
