// A LiveKit-compatible server that runs already, in the place of a weir of the test.

import { mint } from '../../clients/lib/token.mjs';

const { env } = process;

export class Elsewhere {
  static wanted = Boolean(env.WEIR_QUALITY_URL);

  constructor() {
    this.url = env.WEIR_QUALITY_URL;
    const [host, port] = (env.WEIR_QUALITY_MEDIA ?? '').split(':');
    if (!port) throw new Error('WEIR_QUALITY_MEDIA: expected host:port of the media of that server over UDP');
    Object.assign(this, { host, mediaPort: Number(port), logFile: '/dev/null' });
  }

  token(claims) {
    return mint({ key: env.WEIR_QUALITY_KEY, secret: env.WEIR_QUALITY_SECRET, ...claims });
  }

  async debug() {
    return '';
  }

  async stop() {}
}
