// A UDP proxy between clients and the server: the place where a client's address changes, as behind a NAT that forgets
// its mappings.

import { createSocket } from 'node:dgram';
import { networkInterfaces } from 'node:os';

/** An address of this machine that clients use for media; Firefox never uses loopback. */
export function ownAddress() {
  const all = Object.values(networkInterfaces()).flat();
  return all.find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? '127.0.0.1';
}

const bound = (host) =>
  new Promise((resolve, reject) => {
    const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20, sendBufferSize: 1 << 20 }).once('error', reject);
    socket.bind(0, host, () => resolve(socket));
  });

export class UdpProxy {
  static async to(port, host = ownAddress()) {
    const proxy = new UdpProxy();
    Object.assign(proxy, { target: port, host, clients: new Map(), blocked: false });
    proxy.near = await bound(host);
    proxy.port = proxy.near.address().port;
    proxy.near.on('message', (data, from) => proxy.forward(data, from));
    return proxy;
  }

  async forward(data, { address, port }) {
    if (this.blocked) return;
    const key = `${address}:${port}`;
    if (!this.clients.has(key)) this.clients.set(key, this.open(address, port));
    const far = await this.clients.get(key);
    far.send(data, this.target, this.host, () => {});
  }

  async open(address, port) {
    const far = await bound(this.host);
    far.on('message', (data) => !this.blocked && this.near.send(data, port, address, () => {}));
    return far;
  }

  /** From now on, every client comes from another address. */
  async change() {
    const old = [...this.clients.values()];
    this.clients.clear();
    for (const socket of old) (await socket).close();
  }

  close() {
    this.change();
    this.near.close();
  }
}
