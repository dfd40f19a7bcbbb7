// A picture with much detail that moves in two ways at once: it makes an encoder use all the bits it may, as a camera in
// a train does. The flat test picture of picture.js would cost nothing.

const TILE = 256;

function noise() {
  const tile = new OffscreenCanvas(TILE, TILE);
  const context = tile.getContext('2d');
  const pixels = context.createImageData(TILE, TILE);
  let state = 1;
  for (let at = 0; at < pixels.data.length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    pixels.data[at] = at % 4 === 3 ? 255 : state >>> 24;
  }
  context.putImageData(pixels, 0, 0);
  return tile;
}

/** A canvas that shows it, as a video track. */
export class Scenery {
  constructor(width, height, fps) {
    this.canvas = document.createElement('canvas');
    Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext('2d', { alpha: false });
    const pattern = context.createPattern(noise(), 'repeat');
    let step = 0;
    const draw = () => {
      step++;
      const layers = [[1, 3, 3 * step, step], [0.5, 5, -2 * step, 4 * step]];
      for (const [alpha, scale, x, y] of layers) {
        context.globalAlpha = alpha;
        pattern.setTransform(new DOMMatrix([scale, 0, 0, scale, x, y]));
        context.fillStyle = pattern;
        context.fillRect(0, 0, width, height);
      }
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
