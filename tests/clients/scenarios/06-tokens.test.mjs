// Who may come in, and what a client is told who may not.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { sees } from '../lib/judge.mjs';
import { WEIR } from '../lib/paths.mjs';
import { scenario, withWeir } from '../lib/stage.mjs';

withWeir();

const now = () => Math.floor(Date.now() / 1000);
const REFUSED = {
  'an expired token': (weir, room) => weir.token({ room, identity: 'x-1', claims: { nbf: now() - 7200, exp: now() - 3600 } }),
  'a token signed with another secret': (weir, room) => weir.token({ room, identity: 'x-1', secret: 'not the secret'.repeat(4) }),
  'a token of an unknown key': (weir, room) => weir.token({ room, identity: 'x-1', key: 'nobody' }),
  'a token without the right to join': (weir, room) => weir.token({ room, identity: 'x-1', grants: { roomJoin: false } }),
  'no token at all': () => 'x',
};

for (const singlePeerConnection of [true, false]) {
  scenario(`${Object.keys(REFUSED).join(', ')}: not allowed (${singlePeerConnection ? 'one peer connection' : 'two peer connections'})`, 60, async (stage) => {
    for (const [what, make] of Object.entries(REFUSED)) {
      const page = await stage.open('chromium', 'x');
      const answer = await stage.connect(page, { token: make(stage.weir, stage.room), singlePeerConnection });
      assert.ok(answer.error, `${what} got in`);
      // The status is what an application can go by: livekit-client 2.23 wraps the error and changes its reason.
      assert.ok([401, 403].includes(answer.error.status), `${what}: ${JSON.stringify(answer.error)}`);
      await page.close();
    }
  });
}

scenario('a token without an identity is called a bad request, and why', 30, async (stage) => {
  const token = stage.weir.token({ room: stage.room, identity: '' });
  // The SDK keeps status and text of such an answer to itself.
  const page = await stage.open('chromium', 'x');
  assert.ok((await stage.connect(page, { token })).error, 'it got in');
  const answer = await fetch(`${stage.weir.base}/rtc/validate?access_token=${token}`);
  assert.equal(answer.status, 400);
  assert.match(await answer.text(), /identity/);
});

scenario('a python client is refused as well', 30, async (stage) => {
  const python = await stage.open('python', 'x');
  const token = REFUSED['an expired token'](stage.weir, stage.room);
  const answer = await stage.connect(python, { token });
  assert.ok(answer.error, 'an expired token got in');
});

scenario('a token of `weir token` opens the door', 30, async (stage) => {
  const arguments_ = ['token', '--config', stage.weir.config, '--room', stage.room, '--identity', 'anna-1'];
  const made = spawnSync(WEIR, arguments_, { encoding: 'utf8', timeout: 5000 });
  assert.equal(made.status, 0, made.stderr);
  const token = made.stdout.trim().split('\n').at(-1).trim();
  const anna = await stage.join('chromium', 'anna', { token });
  assert.equal((await anna.look()).state, 'connected');
});

scenario('who may not publish is told so, and still sees', 50, async (stage) => {
  const anna = await stage.join('chromium', 'anna', { grants: { canPublish: false, canPublishData: false } });
  const ben = await stage.join('chromium', 'ben');
  await ben.publishCamera();
  await sees(anna, ben);
  await assert.rejects(anna.publishCamera(), /permission|not allowed|insufficient/i);
  assert.equal(Object.keys((await ben.look()).participants[anna.identity].tracks).length, 0);
});
