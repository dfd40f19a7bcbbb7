// A sound card for Firefox on machines without one. Its AudioContext never starts without a device, and its own stand-in
// (media.cubeb.force_mock_context) has a clock that is up to 10 % slow on a busy machine: audio and video then part.
// PulseAudio with a null sink keeps time. Chromium brings its own.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NotYet, until } from './until.mjs';

const DAEMON = '/usr/bin/pulseaudio';

/** Starts a sound server of our own; returns {env, close}, or null where PulseAudio is not installed. */
export async function soundCard() {
  if (!existsSync(DAEMON)) return null;
  const home = mkdtempSync(join(tmpdir(), 'weir-sound-'));
  const socket = join(home, 'socket');
  const daemon = spawn(
    DAEMON,
    [
      '-n', '--daemonize=no', '--use-pid-file=no', '--disable-shm=yes', '--realtime=no', '--high-priority=no',
      '--exit-idle-time=-1', '--log-level=error',
      '-L', `module-native-protocol-unix socket=${socket} auth-anonymous=1`,
      '-L', 'module-null-sink sink_name=quiet rate=48000',
    ],
    { stdio: 'ignore', env: { ...process.env, HOME: home, XDG_RUNTIME_DIR: home } },
  );
  daemon.on('error', () => {});
  await until('the sound server is up', 5000, () => {
    if (!existsSync(socket)) throw new NotYet('it has no socket');
    return true;
  }, 20);
  return {
    env: { PULSE_SERVER: `unix:${socket}` },
    close() {
      daemon.kill('SIGKILL');
      rmSync(home, { recursive: true, force: true });
    },
  };
}
