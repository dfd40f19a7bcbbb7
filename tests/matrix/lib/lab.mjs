// Homeservers with their weirs, for the scenarios of one file.

import { before, after } from 'node:test';
import { mkdirSync, copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { closeBrowsers } from '../../clients/lib/browsers.mjs';
import { OUT } from '../../clients/lib/paths.mjs';
import { Weir, freeTcpPort } from '../../clients/lib/weir.mjs';
import { authority } from './authority.mjs';
import { Homeserver } from './homeserver.mjs';

/** A homeserver and, unless it is to have none, its weir. */
async function place(trusted, hasWeir) {
  const homeserver = await Homeserver.prepare(trusted);
  let weir = null;
  if (hasWeir) {
    // As on a real server: the homeserver's room state decides, nobody makes rooms at will.
    const closed = trusted ? `  federation_ca_file: '${trusted.file}'\n  allow_private_addresses: ['127.0.0.0/8']\n` : '';
    const extra = (own) => `room: {auto_create: false}\n${homeserver.configure(own).trimEnd()}\n${closed}`;
    weir = await Weir.start({ extra });
  } else {
    homeserver.configure(null);
  }
  await homeserver.start();
  return { homeserver, weir };
}

/**
 * What the scenarios of the file use; filled before the first one runs. `federated` is a list with one entry for each
 * homeserver: whether it has a weir. The first of `places` is spread out as well.
 */
export function lab({ federated } = {}) {
  const here = { places: [] };
  let trusted = null;
  before(async () => {
    if (federated) trusted = authority();
    here.places = await Promise.all((federated ?? [true]).map((hasWeir) => place(trusted, hasWeir)));
    Object.assign(here, here.places[0]);
  }, { timeout: 240_000 });
  after(async () => {
    mkdirSync(OUT, { recursive: true });
    here.places.forEach(({ weir }, at) => weir && copyFileSync(weir.logFile, join(OUT, at === 0 ? 'weir.log' : `weir-${at + 1}.log`)));
    await closeBrowsers();
    for (const { weir, homeserver } of here.places) {
      await weir?.stop();
      await homeserver.stop();
    }
    trusted?.close();
  });
  return here;
}
