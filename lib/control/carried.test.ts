import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';
import { Duplex, PassThrough } from 'node:stream';
import { afterEach, describe, expect, it } from 'vitest';
import { carryConnections, takeCarried, type Carrier } from './carried.js';

/** Both ends of a channel. */
function channelPair() {
  const [there, back] = [new PassThrough(), new PassThrough()];
  return { outer: { input: back, output: there }, inner: { input: there, output: back } };
}

let server: Server | undefined;
afterEach(() => void server?.close());

/** Clients of a carrier over real sockets; what is accepted inside goes to `accept`. */
async function carried(accept: (stream: Duplex) => void) {
  const { outer, inner } = channelPair();
  takeCarried(inner, accept);
  const carrier: Carrier = carryConnections(outer);
  server = createServer({ allowHalfOpen: true }, (socket) => carrier.carry(socket));
  await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { outer, inner, client: (): Socket => connect({ port, host: '127.0.0.1', allowHalfOpen: true }) };
}

async function textOf(stream: AsyncIterable<Buffer>): Promise<string> {
  let text = '';
  for await (const chunk of stream) text += chunk.toString();
  return text;
}

describe('carried connections', () => {
  it('take bytes both ways, many at a time, each to its own end', async () => {
    const { client } = await carried((stream) => void stream.pipe(stream));
    const texts = Array.from({ length: 50 }, (_, at) => `${at} `.repeat(5000));
    const echoes = await Promise.all(
      texts.map((text) => {
        const socket = client();
        socket.end(text);
        return textOf(socket);
      }),
    );
    expect(echoes).toEqual(texts);
  });

  it('end inside when the client goes, and outside when the server cuts', async () => {
    const inside: Duplex[] = [];
    const { client } = await carried((stream) => void inside.push(stream.on('error', () => undefined).resume()));
    const gone = client();
    gone.write('x');
    await expect.poll(() => inside.length).toBe(1);
    gone.destroy();
    await expect.poll(() => inside[0]!.readableEnded).toBe(true);
    const cut = client().on('error', () => undefined);
    cut.write('x');
    await expect.poll(() => inside.length).toBe(2);
    const closed = new Promise((resolve) => cut.once('close', resolve));
    cut.resume();
    inside[1]!.destroy();
    cut.end();
    await closed;
  });

  it('hand over all that was said before the other end went away', async () => {
    const { client, inner } = await carried((stream) => {
      stream.end('x'.repeat(30_000), () => {
        stream.destroy();
        inner.output.end();
      });
    });
    const socket = client();
    socket.write('?');
    const text = await textOf(socket);
    expect(text.length).toBe(30_000);
    socket.end();
  });

  it('do not hold each other when one is not read', async () => {
    const { client } = await carried((stream) => {
      stream.on('error', () => undefined);
      stream.once(
        'data',
        (chunk: Buffer) => void stream.end(chunk.toString() === 'much' ? 'x'.repeat(10_000_000) : 'y'),
      );
    });
    const slow = client();
    slow.write('much');
    slow.pause();
    const quick = client();
    quick.write('little');
    expect(await textOf(quick)).toBe('y');
    quick.end();
    slow.destroy();
  });

  it('go with their channel', async () => {
    const { client, outer } = await carried((stream) => void stream.on('error', () => undefined).resume());
    const socket = client().on('error', () => undefined);
    socket.write('x');
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.resume().on('end', () => socket.end());
    await new Promise((resolve) => setImmediate(resolve));
    outer.input.destroy();
    await closed;
  });
});
