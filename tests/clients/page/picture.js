// The test picture: a 4x2 grid of flat cells in the eight corners of the RGB cube, three bits a cell, 24 bits in all:
// sender number (4), source (2), a counter that follows the wall clock (8) and a checksum (10). Flat saturated cells
// survive a VP8 encoder at 180 lines and any rescaling, and a decoder that was fed wrong bytes does not hit the
// checksum. Because the counter follows the clock, a receiver on the same machine knows how old a picture is.
// py/picture.py paints and reads the same picture.

export const COLS = 4;
export const ROWS = 2;
export const TICK_MS = 200;
export const SOURCES = ['camera', 'screen_share'];

const CELLS = COLS * ROWS;
const SCALE = 8; // the reader looks at a copy of this many pixels per cell

/** Ten checksum bits over the other fourteen; a picture all black or all white has no right ones. */
function checksum(value) {
  return (Math.imul(value, 2654435761) >>> 22) ^ 0x2a5;
}

export function encode(number, source, counter) {
  const value = ((number & 15) << 10) | ((source & 3) << 8) | (counter & 255);
  return (value << 10) | checksum(value);
}

/** The picture behind 24 bits, or null when the checksum does not hold. */
export function decode(bits) {
  const value = bits >>> 10;
  // A black picture would pass: all zero, checksum included. Senders count from one.
  if ((bits & 1023) !== checksum(value) || bits === 0) return null;
  return { number: value >> 10, source: SOURCES[(value >> 8) & 3], counter: value & 255 };
}

export function counterAt(now) {
  return Math.floor(now / TICK_MS) & 255;
}

/** Age in milliseconds of a picture whose counter is known, good to TICK_MS and up to 50 s. */
export function ageOf(counter, now) {
  return ((counterAt(now) - counter) & 255) * TICK_MS;
}

export function paint(context, width, height, bits) {
  for (let cell = 0; cell < CELLS; cell++) {
    const colour = (bits >> ((CELLS - 1 - cell) * 3)) & 7;
    const level = (bit) => (colour & bit ? 255 : 0);
    context.fillStyle = `rgb(${level(4)},${level(2)},${level(1)})`;
    const left = Math.floor(((cell % COLS) * width) / COLS);
    const top = Math.floor((Math.floor(cell / COLS) * height) / ROWS);
    context.fillRect(left, top, Math.ceil(width / COLS), Math.ceil(height / ROWS));
  }
}

/** Reads pictures off video elements; one scratch canvas for all of them. */
export class Reader {
  constructor() {
    const canvas = document.createElement('canvas');
    canvas.width = COLS * SCALE;
    canvas.height = ROWS * SCALE;
    this.context = canvas.getContext('2d', { willReadFrequently: true });
  }

  read(image) {
    const { width, height } = this.context.canvas;
    // A video without a frame yet draws nothing; what the last one left must not be read as its picture.
    this.context.clearRect(0, 0, width, height);
    this.context.drawImage(image, 0, 0, width, height);
    const pixels = this.context.getImageData(0, 0, width, height).data;
    let bits = 0;
    for (let cell = 0; cell < CELLS; cell++) {
      const x = (cell % COLS) * SCALE + SCALE / 2;
      const y = Math.floor(cell / COLS) * SCALE + SCALE / 2;
      const at = (y * width + x) * 4;
      const bit = (channel) => (pixels[at + channel] > 127 ? 1 : 0);
      bits = (bits << 3) | (bit(0) << 2) | (bit(1) << 1) | bit(2);
    }
    return decode(bits);
  }
}

/** A canvas that shows the picture of one sender, as a video track. */
export class Painter {
  constructor(number, source, width, height, fps) {
    this.canvas = document.createElement('canvas');
    this.canvas.width = width;
    this.canvas.height = height;
    const context = this.canvas.getContext('2d');
    const sourceIndex = SOURCES.indexOf(source);
    let column = 0;
    const draw = () => {
      paint(context, width, height, encode(number, sourceIndex, counterAt(Date.now())));
      // A thin moving bar on the border makes each frame differ, so that frame counts mean something.
      column = (column + 7) % width;
      context.fillStyle = '#808080';
      context.fillRect(column, 0, 5, Math.max(2, height / 40));
    };
    draw();
    this.timer = setInterval(draw, 1000 / fps);
    this.track = this.canvas.captureStream(fps).getVideoTracks()[0];
  }

  stop() {
    clearInterval(this.timer);
    this.track.stop();
  }
}
