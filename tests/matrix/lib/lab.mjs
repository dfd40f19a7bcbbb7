// A homeserver with its weir, for the scenarios of one file.

import { before, after } from 'node:test';
import { mkdirSync, copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { closeBrowsers } from '../../clients/lib/browsers.mjs';
import { OUT } from '../../clients/lib/paths.mjs';
import { Weir } from '../../clients/lib/weir.mjs';
import { Homeserver } from './homeserver.mjs';

/** What the scenarios of the file use; filled before the first one runs. */
export function lab() {
  const here = {};
  before(async () => {
    here.homeserver = await Homeserver.prepare();
    // As on a real server: the homeserver's room state decides, nobody makes rooms at will.
    const extra = (weir) => `room: {auto_create: false}\n${here.homeserver.configure(weir)}`;
    here.weir = await Weir.start({ extra });
    await here.homeserver.start();
  }, { timeout: 150_000 });
  after(async () => {
    mkdirSync(OUT, { recursive: true });
    if (here.weir) copyFileSync(here.weir.logFile, join(OUT, 'weir.log'));
    await closeBrowsers();
    await here.weir?.stop();
    await here.homeserver?.stop();
  });
  return here;
}
