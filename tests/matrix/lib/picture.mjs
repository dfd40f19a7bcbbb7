// A screenshot as pixels. Chromium writes PNG with eight bits per channel, not interlaced; nothing else is read.

import { inflateSync } from 'node:zlib';

const SIGNATURE = 8;
const CHANNELS = { 2: 3, 6: 4 };

function paeth(left, up, corner) {
  const [a, b, c] = [up - corner, left - corner, left + up - 2 * corner].map(Math.abs);
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

/** Undoes the filter of each line, in place. */
function unfilter(raw, height, line, step) {
  for (let y = 0; y < height; y += 1) {
    const start = y * (line + 1) + 1;
    const filter = raw[start - 1];
    for (let x = 0; x < line; x += 1) {
      const left = x >= step ? raw[start + x - step] : 0;
      const up = y > 0 ? raw[start + x - line - 1] : 0;
      const corner = y > 0 && x >= step ? raw[start + x - line - 1 - step] : 0;
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
      raw[start + x] = (raw[start + x] + guess) & 255;
    }
  }
}

export class Picture {
  constructor(file) {
    const png = Buffer.from(file);
    const parts = [];
    for (let at = SIGNATURE; at < png.length; ) {
      const length = png.readUInt32BE(at);
      const type = png.toString('latin1', at + 4, at + 8);
      const data = png.subarray(at + 8, at + 8 + length);
      if (type === 'IHDR') {
        this.width = data.readUInt32BE(0);
        this.height = data.readUInt32BE(4);
        this.step = CHANNELS[data[9]];
        if (data[8] !== 8 || !this.step || data[12] !== 0) throw new Error('not a picture as Chromium writes it');
      }
      if (type === 'IDAT') parts.push(data);
      at += length + 12;
    }
    this.line = this.width * this.step;
    this.raw = inflateSync(Buffer.concat(parts));
    unfilter(this.raw, this.height, this.line, this.step);
  }

  pixel(x, y) {
    const at = y * (this.line + 1) + 1 + x * this.step;
    return [this.raw[at], this.raw[at + 1], this.raw[at + 2]];
  }

  /** Share of the points of a box that fulfil something; every third in each direction is looked at. */
  share(box, fulfils) {
    let [all, some] = [0, 0];
    for (let y = Math.max(0, Math.ceil(box.y)); y < Math.min(this.height, box.y + box.height); y += 3) {
      for (let x = Math.max(0, Math.ceil(box.x)); x < Math.min(this.width, box.x + box.width); x += 3) {
        all += 1;
        if (fulfils(this.pixel(x, y), x, y)) some += 1;
      }
    }
    return all ? some / all : 0;
  }

  /** How much of a box has a colour: cameras of browsers under test are bright green, spinners and backgrounds grey. */
  colourful(box) {
    return this.share(box, (pixel) => Math.max(...pixel) - Math.min(...pixel) > 60);
  }

  /** How much of a box is different in another picture. */
  differs(other, box) {
    return this.share(box, (pixel, x, y) => other.pixel(x, y).some((value, at) => Math.abs(value - pixel[at]) > 24));
  }
}
