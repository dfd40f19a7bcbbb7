// Proves the instruments without any server: two peer connections in one page, picture and tone through the browser's
// own encoder, network and decoder.

import { Painter } from './picture.js';
import { Tone } from './tone.js';
import { Watch } from './watch.js';

const NUMBER = 7;

/** Stands in for a remote track of livekit-client. */
function remote(track, receiver) {
  return {
    kind: track.kind,
    mediaStreamTrack: track,
    receiver,
    attach() {
      const element = document.createElement(track.kind);
      element.autoplay = true;
      element.playsInline = true;
      element.srcObject = new MediaStream([track]);
      element.play().catch(() => {});
      return element;
    },
    detach() {},
  };
}

export async function selfTest(audio, seconds) {
  const watch = new Watch(audio);
  const from = new RTCPeerConnection();
  const to = new RTCPeerConnection();
  from.onicecandidate = ({ candidate }) => candidate && to.addIceCandidate(candidate);
  to.onicecandidate = ({ candidate }) => candidate && from.addIceCandidate(candidate);
  const keys = { video: `self-${NUMBER}/camera`, audio: `self-${NUMBER}/microphone` };
  to.ontrack = ({ track, receiver }) => watch.add(keys[track.kind], remote(track, receiver), NUMBER);
  const painter = new Painter(NUMBER, 'camera', 640, 360, 15);
  const tone = new Tone(audio, NUMBER);
  await audio.resume();
  // Scaled down and starved, the way a small tile on a bad line would be.
  from.addTransceiver(painter.track, { direction: 'sendonly', sendEncodings: [{ scaleResolutionDownBy: 4, maxBitrate: 60_000 }] });
  from.addTransceiver(tone.track, { direction: 'sendonly' });
  await from.setLocalDescription();
  await to.setRemoteDescription(from.localDescription);
  await to.setLocalDescription();
  await from.setRemoteDescription(to.localDescription);
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const report = { camera: await watch.report(keys.video), microphone: await watch.report(keys.audio) };
  watch.stop();
  painter.stop();
  tone.stop();
  from.close();
  to.close();
  return report;
}
