// A TCP proxy between a client and the server's HTTP port: the place where a WebSocket gets lost.

import { connect, createServer } from 'node:net';

export class Proxy {
  static async to(port) {
    const proxy = new Proxy();
    proxy.pairs = new Set();
    proxy.accepted = 0;
    proxy.mode = 'open';
    proxy.server = createServer((near) => proxy.accept(near, port));
    await new Promise((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    proxy.url = `ws://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  accept(near, port) {
    this.accepted += 1;
    if (this.mode === 'refusing') return near.resetAndDestroy();
    const far = connect(port, '127.0.0.1');
    const pair = { near, far };
    this.pairs.add(pair);
    const end = () => {
      near.destroy();
      far.destroy();
      this.pairs.delete(pair);
    };
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on('data', (chunk) => this.mode !== 'silent' && to.write(chunk));
      from.on('error', end);
      from.on('close', end);
    }
  }

  /** Every connection ends with a reset, as when a NAT forgets it. */
  reset() {
    for (const { near, far } of this.pairs) {
      near.resetAndDestroy();
      far.resetAndDestroy();
    }
  }

  /** 'open', 'refusing' (new connections are reset) or 'silent' (bytes vanish). */
  become(mode) {
    this.mode = mode;
  }

  close() {
    this.reset();
    this.server.close();
  }
}
