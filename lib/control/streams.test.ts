/** Console, logs and exec over real sockets: slow and hostile clients, the guest never held by one. */
import { connect as connectSocket, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { FakeProcess } from '../agent/fake-agent.js';
import { claimName, type MachineClaim } from './machine-folders.js';
import { connect, type RemoteMachine } from './remote-machine.js';
import { listenFor, MachineControl, type ControlSocket } from './serve.js';
import { encodeMessage, encodeStreamFrame, FRAMES_MEDIA_TYPE, StreamFrameReader, StreamType } from './stream-frames.js';
import { FakeControlled, ownPlace } from './testing.js';

let place: ReturnType<typeof ownPlace>;
let claim: MachineClaim;
let socket: ControlSocket;
let control: MachineControl;
let machine: FakeControlled;
let remote: RemoteMachine;
const processes: FakeProcess[] = [];
const sockets: Socket[] = [];

beforeEach(async () => {
  place = ownPlace();
  processes.length = 0;
  claim = await claimName('box', { host: 'native' }, place);
  machine = new FakeControlled('box', (process) => void processes.push(process));
  control = new MachineControl(machine, { record: claim.record });
  socket = await listenFor(claim, (stream) => control.accept(stream));
  remote = await connect('box', { place });
});
afterEach(async () => {
  for (const stream of sockets.splice(0)) stream.destroy();
  const closed = socket.close();
  await control.close({ reason: 'killed' });
  await closed;
  claim.release();
  place.done();
});

/** A request by hand. */
function raw(head: string, body: Buffer | string = ''): Socket {
  const stream = connectSocket(claim.socketPath);
  sockets.push(stream);
  stream.on('error', () => undefined);
  stream.write(`${head}\r\nhost: x\r\n\r\n`);
  if (body.length > 0) stream.write(body);
  return stream;
}

async function textOf(source: AsyncIterable<Uint8Array>): Promise<string> {
  let text = '';
  for await (const chunk of source) text += Buffer.from(chunk).toString('latin1');
  return text;
}

/** A chunk of a body of unknown length (RFC 9112, 7.1). */
function chunk(bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]);
}

describe('a viewer that does not read', () => {
  it.each(['GET /v1/logs?follow=true HTTP/1.1', 'POST /v1/console HTTP/1.1'])(
    'loses the oldest, and holds neither the guest nor others: %s',
    async (head) => {
      const slow = raw(head);
      await new Promise((resolve) => slow.once('readable', resolve));
      const quick = textOf(await remote.logs({ follow: true }));
      const total = 64 * 1024 * 1024;
      const piece = Buffer.alloc(1024 * 1024, 'x');
      for (let sent = 0; sent < total; sent += piece.length) {
        machine.print(piece);
        await new Promise((resolve) => setImmediate(resolve));
      }
      machine.print('the end');
      machine.end({ reason: 'poweroff' });
      expect(await quick).toMatch(/the end$/);
      expect(control.target.console.viewers).toBeLessThanOrEqual(1);
      let seen = '';
      slow.on('data', (bytes: Buffer) => (seen += bytes.toString('latin1')));
      await new Promise((resolve) => slow.once('end', resolve));
      expect(seen.length).toBeLessThan(total / 4);
      expect(seen).toMatch(/\[vivarium: \d+ bytes are left out: they came faster than they were read\]/);
      expect(seen).toContain('the end');
    },
  );

  it('is let go of when it leaves', async () => {
    const viewer = raw('GET /v1/logs?follow=true HTTP/1.1');
    await expect.poll(() => control.target.console.viewers).toBe(1);
    viewer.destroy();
    await expect.poll(() => control.target.console.viewers).toBe(0);
  });
});

describe('the console', () => {
  it('is typed at as fast as the guest takes it', async () => {
    machine.consoleIsFull = true;
    const { input, output, close } = await remote.attach();
    output.on('error', () => undefined);
    input.write(Buffer.alloc(10_000, 'a'));
    await expect.poll(() => machine.typed.length).toBe(4096);
    await remote.summary();
    expect(machine.typed.length).toBe(4096);
    machine.drainConsole();
    await expect.poll(() => machine.typed.length).toBe(10_000);
    close();
    await expect.poll(() => control.target.console.viewers).toBe(0);
  });

  it('has taken all of what is written when the call ends', async () => {
    machine.consoleIsFull = true;
    const written = remote.console.write('a'.repeat(10_000));
    await expect.poll(() => machine.typed.length).toBe(4096);
    await remote.summary();
    machine.drainConsole();
    await written;
    expect(machine.typed.length).toBe(10_000);
  });

  it('gives no more of what was than is asked for, and is waited for', async () => {
    machine.print('hello world');
    await expect.poll(async () => textOf(await remote.logs())).toBe('hello world');
    expect(await textOf(await remote.logs({ tailBytes: 5 }))).toBe('world');
    const found = remote.console.waitFor(/login: (\w+)/);
    machine.print('log');
    machine.print('in: root ');
    expect((await found)[1]).toBe('root');
    await expect(remote.console.waitFor(/never/, { timeoutMs: 20 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    await remote.console.write('typed');
    await expect.poll(() => machine.typed).toBe('typed');
    const ended = remote.console.waitFor(/never/);
    machine.end({ reason: 'poweroff' });
    await expect(ended).rejects.toMatchObject({ code: 'ERR_STATE' });
  });
});

describe('exec', () => {
  const start = async (): Promise<FakeProcess> => {
    await expect.poll(() => processes.length).toBe(1);
    return processes[0]!;
  };

  it('holds the command when its output is not read, and goes on when it is', async () => {
    machine.agent.boot();
    const stdout = new PassThrough({ highWaterMark: 1024 });
    const run = remote.run({ argv: ['yes'], stdout });
    const process = await start();
    let sent = 0;
    // What was granted at the start (protocol.ts), and no more.
    for (let window = 512 * 1024; window > 0; window -= 32 * 1024, sent += 32 * 1024)
      process.stdout(Buffer.alloc(32 * 1024));
    await remote.summary();
    expect(process.granted[1]).toBeLessThan(sent);
    stdout.resume();
    await process.until(() => process.granted[1]! >= sent - 64 * 1024);
    process.exit(0);
    expect(await run).toMatchObject({ status: { kind: 'exited', code: 0 }, timedOut: false });
  });

  it('takes its command along when the client goes', async () => {
    machine.agent.boot();
    const aborting = new AbortController();
    const run = remote.run({ argv: ['sleep'], signal: aborting.signal });
    const process = await start();
    aborting.abort();
    await expect(run).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect.poll(() => process.signals).toEqual([9]);
  });

  it.each([
    ['is given up', () => undefined],
    ['takes no more', (stdout: PassThrough) => stdout.destroy()],
  ])('ends though an output that is not read %s', async (_, endOf) => {
    machine.agent.boot();
    const aborting = new AbortController();
    const stdout = new PassThrough({ highWaterMark: 1024 });
    const run = remote.run({ argv: ['yes'], stdout, signal: aborting.signal });
    run.catch(() => undefined);
    const process = await start();
    process.stdout(Buffer.alloc(32 * 1024));
    await expect.poll(() => stdout.writableNeedDrain).toBe(true);
    endOf(stdout);
    aborting.abort();
    await expect(run).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it('is told when the guest goes in its middle', async () => {
    machine.agent.boot();
    const run = remote.run({ argv: ['sleep'] });
    await start();
    machine.end({ reason: 'crash' });
    await expect(run).rejects.toMatchObject({ code: 'ERR_AGENT', message: 'the guest has ended (crash)' });
  });

  it('says what is wrong before anything runs', async () => {
    await expect(remote.run({ argv: [] })).rejects.toThrow(TypeError);
    await expect(remote.run({ argv: ['x'], cwd: 'tmp' })).rejects.toThrow('exec.cwd: an absolute path is wanted');
    const cure = expect.stringMatching(/run --qemu-agent/) as string;
    await expect(remote.run({ argv: ['x'], waitMs: 5 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT', cure });
    machine.agent.boot();
    await expect(remote.run({ argv: ['x'], env: { 'a=b': 'c' } })).rejects.toThrow("'a=b' is no name of a variable");
    expect(processes).toEqual([]);
  });

  it.each([
    ['no JSON', encodeStreamFrame(StreamType.MESSAGE, Buffer.from('{')), 'a message that is no JSON'],
    ['no message', encodeMessage({ signal: 'HUP' }), 'exec.signal'],
    ['cut', Buffer.from([0, 5, 0, 0, 0, 1]), 'in the middle of a frame'],
  ])('ends the command when what comes later is wrong: %s', async (_what, later, message) => {
    machine.agent.boot();
    const stream = raw(
      `POST /v1/exec HTTP/1.1\r\ncontent-type: ${FRAMES_MEDIA_TYPE}\r\ntransfer-encoding: chunked\r\nconnection: close`,
    );
    stream.write(chunk(encodeMessage({ argv: ['sleep'] })));
    const process = await start();
    stream.write(Buffer.concat([chunk(later), chunk(Buffer.alloc(0))]));
    await expect.poll(() => process.signals).toEqual([9]);
    process.die(9);
    expect(await textOf(stream as AsyncIterable<Buffer>)).toContain(message);
  });

  it.each([
    ['no frame', Buffer.from('hello, hello'), 'no frame: 68656c6c6f'],
    ['data first', encodeStreamFrame(StreamType.STDIN, Buffer.from('x')), 'the first frame is to be a message'],
    ['no JSON', encodeStreamFrame(StreamType.MESSAGE, Buffer.from('{')), 'a message that is no JSON'],
    ['no request', encodeMessage({ command: 'ls' }), 'exec.argv: expected required property'],
  ])('refuses a body that is wrong: %s', async (_what, body, message) => {
    machine.agent.boot();
    const stream = raw(
      `POST /v1/exec HTTP/1.1\r\ncontent-type: ${FRAMES_MEDIA_TYPE}\r\ntransfer-encoding: chunked\r\nconnection: close`,
    );
    stream.write(Buffer.concat([chunk(body), chunk(Buffer.alloc(0))]));
    const answer = await textOf(stream as AsyncIterable<Buffer>);
    expect(answer).toMatch(/^HTTP\/1.1 [45]\d\d /);
    expect(answer).toContain(message);
    expect(processes).toEqual([]);
  });
});

describe('frames', () => {
  it('are read from pieces of any size', async () => {
    const frames = [
      encodeMessage({ a: 1 }),
      encodeStreamFrame(StreamType.STDOUT, Buffer.from('hello')),
      encodeStreamFrame(StreamType.STDERR),
    ];
    const bytes = Buffer.concat(frames);
    for (const size of [1, 3, 7, bytes.length]) {
      const reader = new StreamFrameReader();
      for (let at = 0; at < bytes.length; at += size) reader.write(bytes.subarray(at, at + size));
      reader.end();
      const seen: string[] = [];
      for await (const { type, payload } of reader as AsyncIterable<{ type: number; payload: Buffer }>) {
        seen.push(`${type} ${payload.toString()}`);
      }
      expect(seen).toEqual(['3 {"a":1}', '1 hello', '2 ']);
    }
  });

  it('are joined once each, in however many pieces they come', async () => {
    const joined = vi.spyOn(Buffer, 'concat');
    try {
      const payload = Buffer.alloc(2 * 2 ** 20, 7);
      const bytes = encodeStreamFrame(StreamType.STDIN, payload);
      const reader = new StreamFrameReader();
      const frame = reader[Symbol.asyncIterator]().next() as Promise<{ value: { payload: Buffer } }>;
      for (let at = 0; at < bytes.length; at += 1024) reader.write(bytes.subarray(at, at + 1024));
      reader.end();
      expect((await frame).value.payload.equals(payload)).toBe(true);
      const sizes = joined.mock.results.map(({ value }) => (value as Buffer).length);
      expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(bytes.length);
    } finally {
      joined.mockRestore();
    }
  });

  it('are refused when one is too long, or cut', async () => {
    for (const [bytes, message] of [
      [Buffer.from([1, 0xff, 0xff, 0xff, 0xff]), /no frame/],
      [Buffer.from([9, 0, 0, 0, 0]), /no frame/],
      [Buffer.from([1, 5, 0, 0, 0, 1]), /ended in the middle of a frame/],
    ] as const) {
      const reader = new StreamFrameReader();
      reader.end(bytes);
      await expect(textOf(reader as AsyncIterable<Buffer>)).rejects.toThrow(message);
    }
  });
});
