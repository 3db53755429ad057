import { connect as connectSocket, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Value } from '@sinclair/typebox/value';
import { ManualClock } from '../base/clock.js';
import { controlClient, type ControlClient } from './client.js';
import { claimName, type MachineClaim } from './machine-folders.js';
import { ROUTES } from './routes.js';
import * as schemas from './schemas.js';
import { listenFor, MachineControl, type ControlSocket } from './serve.js';
import { FakeControlled, ownPlace } from './testing.js';

let place: ReturnType<typeof ownPlace>;
let claim: MachineClaim;
let socket: ControlSocket;
let control: MachineControl;
let machine: FakeControlled;
let client: ControlClient;
let clock: ManualClock;

beforeEach(async () => {
  place = ownPlace();
  claim = await claimName('box', { host: 'native' }, place);
  machine = new FakeControlled();
  clock = new ManualClock();
  control = new MachineControl(machine, { record: claim.record, clock });
  socket = await listenFor(claim, (stream) => control.accept(stream));
  client = controlClient('box', place);
});
afterEach(async () => {
  const closed = socket.close();
  const closing = control.close({ reason: 'killed' });
  await control.serve();
  await turns();
  clock.advance(60_000_000_000n);
  await Promise.all([closing, closed]);
  claim.release();
  place.done();
});

const turns = async (count = 20): Promise<void> => {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
};

/** What comes over a plain connection until it ends. */
function raw(text: string | Buffer): { socket: Socket; all: Promise<string> } {
  const stream = connectSocket(claim.socketPath);
  stream.on('error', () => undefined);
  stream.write(text);
  const all = new Promise<string>((resolve) => {
    let seen = '';
    stream.on('data', (chunk: Buffer) => (seen += chunk.toString()));
    stream.on('close', () => resolve(seen));
  });
  return { socket: stream, all };
}

/** Takes so many lines of JSON, or those that there are until the end. */
function linesOf<T>(stream: Readable): (count: number) => Promise<T[]> {
  const lines = createInterface({ input: stream })[Symbol.asyncIterator]();
  return async (count) => {
    const taken: T[] = [];
    while (taken.length < count) {
      const { done, value } = await lines.next();
      if (done === true) break;
      taken.push(JSON.parse(value) as T);
    }
    return taken;
  };
}

describe('the routes', () => {
  it('answer what their schemas say', async () => {
    for (const [path, schema] of [
      ['/v1/machine', schemas.Summary],
      ['/v1/stats', schemas.Stats],
    ] as const) {
      const answer = await client.request('GET', path);
      expect([...Value.Errors(schema, answer)]).toEqual([]);
    }
    expect(await client.request('GET', '/v1/inspect')).toMatchObject({ name: 'box', state: 'running' });
    expect(await client.request('GET', '/v1/pit')).toEqual({ phase: 'nominal', programmedHz: 250 });
  });

  it('lead through a life', async () => {
    expect(await client.request('POST', '/v1/pause', { body: { clock: 'freeze' } })).toMatchObject({ state: 'paused' });
    expect(await client.request('POST', '/v1/resume')).toMatchObject({ state: 'running' });
    await expect(client.request('POST', '/v1/start')).rejects.toMatchObject({ code: 'ERR_STATE' });
    const waits = client.request('GET', '/v1/wait');
    const stopped = client.request('POST', '/v1/stop', { body: { timeoutMs: 0 } });
    await expect.poll(() => machine.state).toBe('stopped');
    void control.close({ reason: 'poweroff', status: 0 });
    expect(await Promise.all([waits, stopped])).toEqual([
      { reason: 'poweroff', status: 0 },
      { reason: 'poweroff', status: 0 },
    ]);
    expect(machine.calls).toEqual(['pause', 'resume', 'stop']);
  });

  it('kill a guest that does not hear its power button', async () => {
    machine.isDeaf = true;
    const stopped = client.request('POST', '/v1/stop', { body: { timeoutMs: 0 } });
    await expect.poll(() => machine.calls).toEqual(['stop', 'kill']);
    void control.close({ reason: 'killed', status: 137 });
    expect(await stopped).toEqual({ reason: 'killed', status: 137 });
  });

  it('give up waiting when the time is over, or the client has gone', async () => {
    const late = client.request('GET', '/v1/wait', { query: { timeoutMs: 500 } });
    late.catch(() => undefined);
    await turns(50);
    clock.advance(500_000_000n);
    await expect(late).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    machine.onSnapshot = () => new Promise(() => undefined);
    const stop = new AbortController();
    const gone = client.request('POST', '/v1/snapshots', { body: { dir: '/there' }, signal: stop.signal });
    gone.catch(() => undefined);
    await expect.poll(() => machine.calls.some((call) => call.startsWith('snapshot'))).toBe(true);
    stop.abort();
    await expect(gone).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect.poll(() => machine.calls).toContain('snapshot aborted');
  });

  it('save, change a device, read and write memory', async () => {
    expect(
      await client.request('POST', '/v1/snapshots', { body: { dir: '/there', mode: 'paused', throttle: true } }),
    ).toEqual({
      dir: '/there',
      id: 'abc',
      stats: { pauseMs: 1 },
    });
    const body = { backend: { kind: 'file', path: '/disk.img' } };
    expect(await client.request('POST', '/v1/devices/root/rebind', { body })).toMatchObject({ holdNs: 1 });
    expect(machine.calls.at(-1)).toContain('/disk.img');
    await client.bytes('PUT', '/v1/memory', { query: { gpa: 16 }, bytes: Buffer.from('hello') });
    const read = await client.bytes('GET', '/v1/memory', { query: { gpa: 17, lengthBytes: 3 } });
    expect(read.toString()).toBe('ell');
    await expect(client.bytes('GET', '/v1/memory', { query: { gpa: 4090, lengthBytes: 100 } })).rejects.toMatchObject({
      code: 'ERR_GUEST_MEMORY',
    });
  });

  it('tell how far a save is, until it is done', async () => {
    let finish = (): void => undefined;
    machine.onSnapshot = (dir, { onProgress }) => {
      onProgress?.({ bytesDone: 1024, bytesTotal: 4096, ratePerSecond: 1 });
      return new Promise((resolve) => (finish = () => resolve({ dir, id: 'abc', stats: {} as never })));
    };
    const saving = client.request('POST', '/v1/snapshots', { body: { dir: '/there' } });
    const saves = async (): Promise<unknown> => (await client.request<schemas.Stats>('GET', '/v1/stats')).saves;
    await expect.poll(saves).toEqual([{ dir: '/there', bytesDone: 1024, bytesTotal: 4096 }]);
    finish();
    await saving;
    expect(await saves()).toEqual([]);
  });

  it('give the counters again and again, with writes only where they are asked for, until the end', async () => {
    machine.written = [16, 0, 3];
    const { request, answer } = client.open('GET', '/v1/stats/watch', { query: { everyMs: 100, writes: true } });
    request.end();
    const lines = linesOf<schemas.Stats>(await answer);
    const [first] = await lines(1);
    expect([...Value.Errors(schemas.Stats, first)]).toEqual([]);
    expect(first!.writes).toEqual({ pages: 19, bucketBytes: 65_536, buckets: [16, 0, 3] });
    clock.advance(250_000_000n);
    expect((await lines(2)).map(({ writes }) => writes?.pages)).toEqual([38, 57]);
    // The guest restarts: a look that can't be had is left out.
    machine.hasBoard = false;
    clock.advance(100_000_000n);
    machine.hasBoard = true;
    machine.written = [1];
    clock.advance(100_000_000n);
    expect((await lines(1))[0]!.writes!.pages).toBe(58);
    expect(machine.calls).toEqual(['watchWrites']);
    machine.end({ reason: 'poweroff' });
    expect((await lines(1))[0]).toMatchObject({ state: 'stopped', writes: { pages: 58 } });
    expect(await lines(1)).toEqual([]);
    expect(machine.calls).toEqual(['watchWrites', 'unwatch']);
  });

  it('stop noting writes when their reader has gone', async () => {
    const plain = client.open('GET', '/v1/stats/watch', {});
    plain.request.end();
    expect((await linesOf<schemas.Stats>(await plain.answer)(1))[0]).not.toHaveProperty('writes');
    plain.request.destroy();
    const { request, answer } = client.open('GET', '/v1/stats/watch', { query: { writes: true } });
    request.end();
    (await answer).on('error', () => undefined);
    await expect.poll(() => machine.calls).toEqual(['watchWrites']);
    request.destroy();
    await expect.poll(() => machine.calls).toEqual(['watchWrites', 'unwatch']);
  });

  it('are described by the schemas that check them', async () => {
    const { paths } = await client.request<{ paths: Record<string, Record<string, unknown>> }>(
      'GET',
      '/v1/openapi.json',
    );
    const described = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const known = ROUTES.map(({ method, path }) => `${method} ${path.replace(':id', '{id}')}`);
    expect(described.sort()).toEqual(known.sort());
    expect(paths['/v1/snapshots']?.['post']).toMatchObject({
      requestBody: { content: { 'application/json': { schema: { required: ['dir'] } } } },
    });
    expect(paths['/v1/devices/{id}']?.['get']).toMatchObject({
      parameters: [{ name: 'id', in: 'path', required: true }],
    });
  });
});

describe('a request that is wrong', () => {
  it.each([
    ['an unknown member', 'POST', '/v1/pause', { clok: 'count' }, 'body.clok: there is no such member'],
    ['a wrong choice', 'POST', '/v1/pause', { clock: 'stop' }, 'body.clock: one of count, freeze is wanted'],
    ['a text for a number', 'POST', '/v1/stop', { timeoutMs: '5' }, 'body.timeoutMs: expected integer'],
    ['a relative path', 'POST', '/v1/snapshots', { dir: 'here' }, 'body.dir: an absolute path is wanted'],
    ['a missing member', 'POST', '/v1/snapshots', {}, 'body.dir: an absolute path is wanted'],
    ['a list', 'POST', '/v1/pause', [], 'body: expected object'],
    ['a device that is none', 'GET', '/v1/devices/nope', undefined, "there is no device 'nope'"],
    ['a number in words', 'GET', '/v1/wait?timeoutMs=soon', undefined, 'querystring.timeoutMs: expected integer'],
  ] as const)('is refused by name: %s', async (_what, method, path, body, message) => {
    await expect(client.request(method, path, { body })).rejects.toMatchObject({ message });
    expect(machine.calls).toEqual([]);
  });

  it('is told of by the class of its error', async () => {
    await expect(client.request('GET', '/v1/devices/nope')).rejects.toBeInstanceOf(RangeError);
    await expect(client.request('POST', '/v1/pause', { body: [] })).rejects.toBeInstanceOf(TypeError);
  });

  it('to write more than 16 MiB hears why, and so does one that sends them nowhere', async () => {
    const bytes = Buffer.alloc(17 * 2 ** 20);
    const refused = client.bytes('PUT', '/v1/memory', { query: { gpa: 0 }, bytes });
    await expect(refused).rejects.toThrow(new RangeError('at most 16777216 bytes are taken at once'));
    const astray = client.bytes('PUT', '/v1/memory', { query: { gpa: -1 }, bytes });
    await expect(astray).rejects.toThrow(/querystring.gpa/);
    expect(await client.request('GET', '/v1/machine')).toMatchObject({ name: 'box' });
  });

  it('to no route says where they are listed', async () => {
    await expect(client.request('GET', '/v2/machine')).rejects.toThrow(
      'there is no GET /v2/machine; GET /v1/openapi.json tells what there is',
    );
  });

  it('of 1 MB of JSON is refused, and others are served meanwhile', async () => {
    const body = { dir: `/${'x'.repeat(1_000_000)}` };
    await expect(client.request('POST', '/v1/snapshots', { body })).rejects.toThrow(/too large/);
    expect(await client.request('GET', '/v1/machine')).toMatchObject({ name: 'box' });
    expect(machine.calls).toEqual([]);
  });

  it('that is no JSON, or no HTTP, is refused', async () => {
    const notJson = raw(
      'POST /v1/pause HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n{',
    );
    expect(await notJson.all).toMatch(/^HTTP\/1.1 400[^]*ERR_ARGUMENT/);
    const plain = raw(
      'POST /v1/pause HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{}',
    );
    expect(await plain.all).toMatch(/^HTTP\/1.1 400[^]*content-type: application\/json is wanted/);
    expect(await raw('\x16\x03\x01 hello\r\n\r\n').all).toMatch(/^HTTP\/1.1 400/);
    expect(await raw(`GET /v1/machine HTTP/1.1\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`).all).toMatch(/^HTTP\/1.1 431/);
  });

  it.each([
    ['that is taken', 'gpa=0'],
    ['that is refused', 'gpa=-1'],
  ])('that hangs in the middle of bytes %s is cut', async (_what, query) => {
    const head = `PUT /v1/memory?${query} HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n`;
    const hanging = raw(`${head}content-length: 9\r\n\r\nhello`);
    await client.request('GET', '/v1/machine');
    await turns(50);
    clock.advance(30_000_000_000n);
    expect(await hanging.all).toBe('');
    expect(Buffer.from(machine.bytes.subarray(0, 5)).toString()).toBe('\0'.repeat(5));
  });

  it('that hangs in its middle is cut, and one whose answer takes its time is not', async () => {
    const hanging = raw(
      'POST /v1/pause HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{',
    );
    const silent = raw('');
    const waits = client.request('GET', '/v1/wait');
    await client.request('GET', '/v1/machine');
    await turns(50);
    clock.advance(30_000_000_000n);
    expect(await hanging.all).toBe('');
    expect(await silent.all).toBe('');
    machine.end({ reason: 'poweroff' });
    void control.close({ reason: 'poweroff' });
    expect(await waits).toEqual({ reason: 'poweroff' });
  });
});

it('answers clients beyond its limit of connections with a refusal, and serves the next when one has gone', async () => {
  const other = await claimName('other', { host: 'native' }, place);
  const small = await listenFor(other, (stream) => control.accept(stream), { maxConnections: 2 });
  const held = [1, 2].map(() => connectSocket(other.socketPath));
  await Promise.all(held.map((stream) => new Promise((resolve) => stream.once('connect', resolve))));
  const ask = () => controlClient('other', place).request('GET', '/v1/machine');
  await expect(ask()).rejects.toMatchObject({ code: 'ERR_CONTROL', message: 'other serves 2 connections already' });
  held[0]!.destroy();
  await expect.poll(() => ask().catch(() => undefined)).toMatchObject({ name: 'box' });
  held[1]!.destroy();
  await small.close();
  other.release();
});

it('serves 1000 requests at the same time', async () => {
  const answers = await Promise.all(
    Array.from({ length: 1000 }, () => client.request<schemas.Summary>('GET', '/v1/machine')),
  );
  expect(new Set(answers.map(({ id }) => id))).toEqual(new Set([claim.record.id]));
});

describe('a client', () => {
  it('is told when there is nobody', () => {
    expect(() => controlClient('other', place)).toThrow(
      expect.objectContaining({ code: 'ERR_NO_MACHINE', cure: 'vivarium ps tells which there are' }),
    );
    expect(() => controlClient('../box', place)).toThrow(TypeError);
  });

  it('clears what a process that was killed has left', async () => {
    const { cpSync, existsSync } = await import('node:fs');
    const left = claim.folder.replace(/box$/, 'left');
    cpSync(claim.folder, left, { recursive: true, filter: (path) => !path.endsWith('sock') });
    const { readFileSync, writeFileSync } = await import('node:fs');
    const text = readFileSync(`${left}/machine.json`, 'utf8');
    writeFileSync(`${left}/machine.json`, text.replace('"name":"box"', '"name":"left"'));
    await expect(controlClient('left', place).request('GET', '/v1/machine')).rejects.toMatchObject({
      code: 'ERR_NO_MACHINE',
    });
    expect(existsSync(left)).toBe(false);
  });

  it('is told when the other side goes in the middle', async () => {
    const waits = client.request('GET', '/v1/wait');
    waits.catch(() => undefined);
    await client.request('GET', '/v1/machine');
    const closing = control.close({ reason: 'killed' });
    expect(await waits).toEqual({ reason: 'killed' });
    await turns();
    clock.advance(2_000_000_000n);
    await closing;
    await expect(client.request('GET', '/v1/machine')).rejects.toMatchObject({ code: 'ERR_CONTROL' });
  });
});
