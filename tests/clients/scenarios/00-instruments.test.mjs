// The instruments themselves: what they say about a call is only worth something if they read a small, starved picture
// and a quiet line right without any server in between.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { hearing } from '../lib/judge.mjs';
import { searchMemory } from '../lib/memory.mjs';
import { scenario, withoutWeir } from '../lib/stage.mjs';

withoutWeir();

for (const kind of ['chromium', 'firefox']) {
  scenario(`${kind} reads its own picture and tone through its own codecs`, 40, async (stage) => {
    const page = await stage.open(kind, 'self');
    const { camera, microphone } = await page.selfTest(6, 20_000);
    assert.ok(camera, 'no video came');
    assert.ok(camera.picture, `no picture was read in ${camera.reads} looks at ${camera.width}x${camera.height}`);
    assert.equal(camera.picture.number, 7);
    assert.equal(camera.picture.source, 'camera');
    assert.ok(camera.picture.age <= 1000, `the picture is ${camera.picture.age} ms old`);
    assert.ok(camera.width <= 320, `scaled down to ${camera.width}`);
    assert.ok(camera.good / camera.reads > 0.6, `${camera.good} of ${camera.reads} pictures were readable`);
    assert.ok(camera.framesDecoded > 20, `${camera.framesDecoded} frames`);
    const heard = hearing(microphone.samples, Date.now());
    assert.ok(heard.on > -50 && heard.contrast > 20, `tone: ${JSON.stringify(heard)}`);
  });
}

scenario('python reads spoiled pictures and tells tones apart', 40, async (stage) => {
  const python = await stage.open('python', 'self');
  const { wrong, garbage, own, other } = await python.selfTest(undefined, 30_000);
  assert.equal(wrong, 0, 'pictures misread');
  assert.equal(garbage, 0, 'noise taken for a picture');
  assert.ok(own > -10 && other < -60, `own tone ${own} dB, another one's ${other} dB`);
});

scenario('the memory search finds what a process holds, and only that', 40, async (stage) => {
  const [held, other] = [randomBytes(16), randomBytes(16)];
  // The child gets the bytes in another form than the one they are searched in.
  const script = 'process.stdin.once("data", (t) => { globalThis.kept = Buffer.from(String(t).trim().split("").reverse().join(""), "hex"); console.log("kept"); })';
  const child = spawn(process.execPath, ['-e', `${script}; setInterval(() => globalThis.kept, 1000)`], { stdio: ['pipe', 'pipe', 'inherit'] });
  stage.keep({ close: () => child.kill('SIGKILL') });
  child.stdin.write(`${held.toString('hex').split('').reverse().join('')}\n`);
  await once(child.stdout, 'data');
  const { found } = searchMemory(child.pid, { held, other });
  assert.deepEqual([...found], ['held']);
});
