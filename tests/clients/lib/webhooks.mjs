// Receives webhooks, and fails now and then: what matters comes again.

import { createServer } from 'node:http';
import { WebhookReceiver } from 'livekit-server-sdk';

export class WebhookSink {
  /** Listens on loopback; every `failing`-th request is answered with 503. */
  static async open({ failing = 4 } = {}) {
    const sink = new WebhookSink();
    sink.received = [];
    let count = 0;
    sink.server = createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      count += 1;
      const fails = count % failing === 0;
      if (!fails) {
        const { authorization, 'content-type': type } = request.headers;
        sink.received.push({ body: Buffer.concat(chunks).toString('utf8'), authorization, type });
      }
      response.writeHead(fails ? 503 : 200).end();
    });
    await new Promise((resolve) => sink.server.listen(0, '127.0.0.1', resolve));
    sink.server.unref();
    sink.url = `http://127.0.0.1:${sink.server.address().port}/hook`;
    return sink;
  }

  /** What came for a room, in order, each checked with the npm package's receiver. */
  async of(room, { key, secret }) {
    const receiver = new WebhookReceiver(key, secret);
    const all = await Promise.all(this.received.map(({ body, authorization }) => receiver.receive(body, authorization)));
    return all.filter((event) => event.room?.name === room);
  }
}
