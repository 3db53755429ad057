/** The host end against a fake agent: streams both ways, windows, ends, and everything a hostile guest may send. */
import { PassThrough, Readable, Writable } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { AgentClient, type AgentRunOptions } from './client.js';
import { FakeAgent, FakeChannel, type FakeProcess } from './fake-agent.js';
import { encodeFrame, encodeWords, FrameType, INITIAL_WINDOW, MAX_PAYLOAD_TO_HOST } from './protocol.js';

function connect(onStart?: (process: FakeProcess) => void) {
  const channel = new FakeChannel();
  const clock = new ManualClock();
  const client = new AgentClient(channel, { clock });
  const agent = new FakeAgent(channel, onStart);
  return { channel, client, agent, clock };
}

class Sink extends Writable {
  readonly chunks: Buffer[] = [];
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error) => void): void {
    this.chunks.push(Buffer.from(chunk));
    done();
  }
  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }
}

describe('hello', () => {
  it('says what the guest is', async () => {
    const { client, agent } = connect();
    const ready = client.ready({ timeoutMs: 1000 });
    agent.boot({ release: '6.1.0-9' });
    await expect(ready).resolves.toMatchObject({ release: '6.1.0-9', cpus: 2, memoryBytes: 268435456 });
    expect(client.guest?.machine).toBe('x86_64');
    await expect(client.ready()).resolves.toMatchObject({ cpus: 2 });
  });

  it('may time out, be aborted, or never come', async () => {
    const { client, clock } = connect();
    const late = client.ready({ timeoutMs: 50 });
    clock.advance(50_000_000n);
    await expect(late).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    const abort = new AbortController();
    const aborted = client.ready({ signal: abort.signal });
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(client.ready({ signal: abort.signal })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    const never = client.ready();
    client.close();
    await expect(never).rejects.toMatchObject({ code: 'ERR_AGENT' });
    await expect(client.ready()).rejects.toMatchObject({ code: 'ERR_AGENT' });
  });

  it('of another version ends the connection', async () => {
    const { client, agent } = connect();
    const ready = client.ready();
    agent.boot({ version: 2 });
    await expect(ready).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: expect.stringContaining('version 2') as string,
    });
  });

  it('must come before a command', () => {
    const { client } = connect();
    expect(() => client.start({ argv: ['true'] })).toThrow(/has not answered yet/);
  });
});

describe('a command', () => {
  it('gets argv, env and cwd, and gives back its output and status', async () => {
    const { client, agent } = connect((process) => {
      process.stdout('out');
      process.stderr('err');
      queueMicrotask(() => process.exit(7));
    });
    agent.boot();
    const stdout = new Sink();
    const stderr = new Sink();
    const result = await client.run({ argv: ['sh', '-c', 'x'], env: { A: 'b' }, cwd: '/tmp', stdout, stderr });
    expect(result).toEqual({ status: { kind: 'exited', code: 7 }, outputError: undefined });
    expect([stdout.bytes.toString(), stderr.bytes.toString()]).toEqual(['out', 'err']);
    expect(agent.processes.get(1)?.request).toEqual({ argv: ['sh', '-c', 'x'], env: { A: 'b' }, cwd: '/tmp' });
    expect(agent.processes.get(1)?.stdinEnded).toBe(true);
  });

  it('reports a signal and a command that was not found', async () => {
    let turn = 0;
    const { client, agent } = connect((process) => (turn++ === 0 ? process.die(9) : process.fail(2)));
    agent.boot();
    await expect(client.run({ argv: ['a'] })).resolves.toMatchObject({ status: { kind: 'signalled', signal: 9 } });
    await expect(client.run({ argv: ['b'] })).resolves.toMatchObject({ status: { kind: 'not-started', errno: 2 } });
  });

  it('gets stdin within the window it grants, and its end after all of it', async () => {
    const data = Buffer.alloc(300_000, 'abcdefg');
    const { client, agent } = connect();
    agent.boot();
    const running = client.start({
      argv: ['cat'],
      stdin: Readable.from([data.subarray(0, 100_000), data.subarray(100_000)]),
    });
    const process = agent.processes.get(1);
    if (process === undefined) throw new Error('not started');
    process.grantStdin(150_000);
    await process.until(() => process.stdin.length === 150_000);
    expect(process.stdinEnded).toBe(false);
    process.grantStdin(150_000);
    await process.until(() => process.stdin.length === 300_000);
    process.grantStdin(1);
    await process.until(() => process.stdinEnded);
    expect(process.stdin.equals(data)).toBe(true);
    process.exit(0);
    await running.result;
  });

  it('holds stdin back while the channel is full', async () => {
    const { client, agent, channel } = connect();
    agent.boot();
    const source = new PassThrough();
    const running = client.start({ argv: ['cat'], stdin: source });
    const process = agent.processes.get(1);
    if (process === undefined) throw new Error('not started');
    process.grantStdin(1000);
    channel.congested = true;
    source.write('a');
    await process.until(() => process.stdin.length === 1);
    source.write('b');
    await new Promise((resolve) => setImmediate(resolve));
    expect(process.stdin.toString()).toBe('a');
    channel.congested = false;
    channel.onDrain?.();
    await process.until(() => process.stdin.length === 2);
    source.end();
    await process.until(() => process.stdinEnded);
    process.exit(0);
    await running.result;
  });

  it('that closes its stdin is sent no more', async () => {
    const { client, agent } = connect();
    agent.boot();
    const source = new PassThrough();
    const running = client.start({ argv: ['true'], stdin: source });
    const process = agent.processes.get(1);
    process?.grantStdin(1000);
    process?.closeStdin();
    source.write('late');
    await new Promise((resolve) => setImmediate(resolve));
    expect(process?.stdin).toHaveLength(0);
    process?.exit(0);
    await running.result;
  });

  it('whose stdin breaks sees its end', async () => {
    const { client, agent } = connect();
    agent.boot();
    const source = new PassThrough();
    const running = client.start({ argv: ['cat'], stdin: source });
    const process = agent.processes.get(1);
    process?.grantStdin(10);
    source.destroy(new Error('EIO'));
    await process?.until(() => process.stdinEnded);
    process?.exit(0);
    await running.result;
  });

  it('is granted more output only as the stream takes it, and ends when all is taken', async () => {
    const { client, agent } = connect();
    agent.boot();
    const waiting: (() => void)[] = [];
    const slow = new Writable({
      highWaterMark: 1,
      write: (_chunk, _encoding, done) => void waiting.push(done),
    });
    const running = client.start({ argv: ['yes'], stdout: slow });
    const process = agent.processes.get(1);
    if (process === undefined) throw new Error('not started');
    process.stdout(Buffer.alloc(INITIAL_WINDOW));
    process.exit(0);
    let ended = false;
    void running.result.then(() => (ended = true));
    expect(process.granted[1]).toBe(0);
    while (waiting.length > 0) {
      await new Promise((resolve) => setImmediate(resolve));
      expect(ended).toBe(false);
      waiting.shift()?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
    await running.result;
    expect(process.granted[1]).toBe(INITIAL_WINDOW);
  });

  it('that sends a window in frames of one byte costs two writes, and no byte is lost', async () => {
    const { client, agent, channel } = connect();
    agent.boot();
    const writes: Buffer[] = [];
    const waiting: (() => void)[] = [];
    const slow = new Writable({
      highWaterMark: 1,
      write: (chunk: Buffer, _encoding, done) => {
        writes.push(Buffer.from(chunk));
        waiting.push(done);
      },
    });
    let calls = 0;
    const write = slow.write.bind(slow) as (...args: unknown[]) => boolean;
    slow.write = (...args: unknown[]) => (calls++, write(...args));
    const running = client.start({ argv: ['x'], stdout: slow });
    const process = agent.processes.get(1);
    if (process === undefined) throw new Error('not started');
    const sent = Buffer.alloc(INITIAL_WINDOW, 'abcdefghijk');
    for (let at = 0; at < sent.length; at += 4096) {
      const bytes = [...sent.subarray(at, at + 4096)];
      channel.fromGuest(Buffer.concat(bytes.map((byte) => encodeFrame(FrameType.STDOUT, 1, Uint8Array.of(byte)))));
    }
    expect(calls).toBe(1);
    process.exit(0);
    let ended = false;
    void running.result.then(() => (ended = true));
    waiting.shift()?.();
    await new Promise((resolve) => setImmediate(resolve));
    expect([calls, ended]).toEqual([2, false]);
    waiting.shift()?.();
    await expect(running.result).resolves.toMatchObject({ status: { code: 0 }, outputError: undefined });
    expect(Buffer.concat(writes).equals(sent)).toBe(true);
  });

  it('is told when nobody reads its output, and the failure is reported', async () => {
    const { client, agent } = connect();
    agent.boot();
    const broken = new Writable({
      write: (_chunk, _encoding, done) => done(Object.assign(new Error('EPIPE'), { code: 'EPIPE' })),
    });
    const running = client.start({ argv: ['yes'], stdout: broken });
    const process = agent.processes.get(1);
    process?.stdout('y\n');
    await process?.until(() => process.closedOutputs.length > 0);
    expect(process?.closedOutputs).toEqual([1]);
    process?.die(13);
    const result = await running.result;
    expect(result.status).toEqual({ kind: 'signalled', signal: 13 });
    expect(result.outputError).toMatchObject({ code: 'EPIPE' });
  });

  it('is killed by an abort, and what it still sends is dropped', async () => {
    const { client, agent } = connect();
    agent.boot();
    const abort = new AbortController();
    const stdout = new Sink();
    const running = client.start({ argv: ['sleep'], stdout, signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(running.result).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    const process = agent.processes.get(1);
    expect(process?.signals).toEqual([9]);
    process?.stdout('late');
    process?.die(9);
    expect(stdout.bytes).toHaveLength(0);
    await expect(client.run({ argv: ['x'], signal: abort.signal })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it('can be sent signals, and runs beside others', async () => {
    const { client, agent } = connect();
    agent.boot();
    const first = client.start({ argv: ['a'] });
    const second = client.start({ argv: ['b'] });
    first.kill(15);
    expect(agent.processes.get(1)?.signals).toEqual([15]);
    agent.processes.get(2)?.exit(2);
    agent.processes.get(1)?.die(15);
    await expect(second.result).resolves.toMatchObject({ status: { code: 2 } });
    await expect(first.result).resolves.toMatchObject({ status: { signal: 15 } });
    expect(() => client.start({ argv: [] })).toThrow(TypeError);
  });
});

describe('a guest that fails', () => {
  const start = (client: AgentClient, more: Partial<AgentRunOptions> = {}) =>
    client.start({ argv: ['x'], ...more }).result;

  it('in the middle of a command rejects it with the reason that close was given', async () => {
    const { client, agent } = connect();
    agent.boot();
    const result = start(client);
    client.close(new Error('triple fault'));
    await expect(result).rejects.toThrow('triple fault');
    expect(() => client.start({ argv: ['y'] })).toThrow('triple fault');
  });

  it('and starts over ends the commands, then serves new ones', async () => {
    const { client, agent } = connect();
    agent.boot();
    const result = start(client);
    agent.boot();
    await expect(result).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: expect.stringContaining('started over') as string,
    });
    const next = start(client);
    agent.processes.get(2)?.exit(0);
    await expect(next).resolves.toMatchObject({ status: { code: 0 } });
  });

  it.each<[string, (agent: FakeAgent) => void]>([
    ['bytes out of step', ({ channel }) => channel.fromGuest(Buffer.alloc(12, 'x'))],
    ['a second hello', ({ channel }) => channel.fromGuest(encodeFrame(FrameType.HELLO, 0, hello()))],
    [
      'a frame over its bound',
      ({ channel }) => channel.fromGuest(encodeFrame(FrameType.STDOUT, 1, new Uint8Array(70000))),
    ],
    [
      'output after its end',
      (agent) => {
        agent.channel.fromGuest(encodeFrame(FrameType.STDOUT, 1));
        agent.processes.get(1)?.stdout('x');
      },
    ],
    [
      'a frame after the exit',
      (agent) => {
        agent.processes.get(1)?.stdout('held');
        agent.processes.get(1)?.exit(0);
        agent.processes.get(1)?.exit(0);
      },
    ],
    ['an impossible exit', ({ channel }) => channel.fromGuest(encodeWords(FrameType.EXIT, 1, 9, 9))],
    ['a short window', ({ channel }) => channel.fromGuest(encodeFrame(FrameType.STDIN_WINDOW, 1))],
    [
      'more output than was granted',
      (agent) => {
        for (let sent = 0; sent <= INITIAL_WINDOW; sent += MAX_PAYLOAD_TO_HOST) {
          agent.processes.get(1)?.stdout(Buffer.alloc(MAX_PAYLOAD_TO_HOST));
        }
      },
    ],
  ])('with %s ends the connection with ERR_AGENT, and nothing is thrown into the device', async (_name, misbehave) => {
    const { client, agent } = connect();
    agent.boot();
    const stuck = new Writable({ highWaterMark: 1, write: () => {} });
    const result = start(client, { stdout: stuck });
    misbehave(agent);
    await expect(result).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: expect.stringContaining('protocol') as string,
    });
  });

  it('with a command before its hello ends the connection', async () => {
    const { client, channel } = connect();
    const ready = client.ready();
    channel.open();
    channel.fromGuest(encodeWords(FrameType.STARTED, 1, 1));
    await expect(ready).rejects.toMatchObject({ code: 'ERR_AGENT' });
  });

  it('with random frames never throws, and settles what waits', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.tuple(
            fc.integer({ min: 0x80, max: 0x8a }),
            fc.integer({ min: 0, max: 3 }),
            fc.uint8Array({ maxLength: 40 }),
          ),
        ),
        async (frames) => {
          const { client, agent, channel } = connect();
          agent.boot();
          const results = [start(client), start(client)];
          for (const [type, session, payload] of frames) channel.fromGuest(encodeFrame(type, session, payload));
          client.close();
          await Promise.allSettled(results);
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe('the machine', () => {
  it('is asked to power off, and to set its clock', () => {
    const { client, agent } = connect();
    agent.boot();
    client.requestPower('REBOOT');
    client.setClock(1.5);
    expect(agent.controls.map(({ type, payload }) => [type, [...payload]])).toEqual([
      [FrameType.POWEROFF, [1, 0, 0, 0]],
      [FrameType.SET_CLOCK, [0x60, 0xe3, 0x16, 0, 0, 0, 0, 0]],
    ]);
  });

  it('is given randomness, which is another each time', () => {
    const { client, agent } = connect();
    agent.boot();
    client.reseed();
    client.reseed();
    const seeds = agent.controls.map(({ type, payload }) => [type, payload.length, payload.join()]);
    expect(seeds.map(([type, length]) => [type, length])).toEqual([
      [FrameType.RESEED, 64],
      [FrameType.RESEED, 64],
    ]);
    expect(seeds[0]![2]).not.toBe(seeds[1]![2]);
  });

  it('that was restored is made one of its own when its agent comes', async () => {
    const { client, agent } = connect();
    const ready = client.readyAsClone({ wallMs: () => 1.5 });
    agent.boot();
    await ready;
    expect(agent.controls.map(({ type }) => type)).toEqual([FrameType.RESEED, FrameType.SET_CLOCK]);
    await client.readyAsClone();
    expect(agent.controls.map(({ type }) => type).slice(2)).toEqual([FrameType.RESEED]);
  });

  it('that was restored has its clock set by what its own clock said', async () => {
    const { client, agent } = connect();
    agent.monotonicNs = () => 7_000_000_000n;
    agent.boot();
    await client.readyAsClone({ wallMs: () => 1.5 });
    const set = agent.controls.filter(({ type }) => type === FrameType.SET_CLOCK).map(({ payload }) => payload);
    expect(set.map((payload) => [...new BigUint64Array(payload.slice().buffer)])).toEqual([
      [1_500_000n],
      [1_500_000n, 7_000_000_000n],
    ]);
  });

  it('answers what its clock says, or is not known to have been asked', async () => {
    const { client, agent } = connect();
    agent.boot();
    expect(await client.readClock()).toBeUndefined();
    agent.monotonicNs = () => 0x1_2345_6789n;
    expect(await client.readClock()).toBe(0x1_2345_6789n);
  });

  it('that does not answer is waited for as long as the caller says, or until the connection ends', async () => {
    const { client, agent, clock } = connect();
    agent.boot();
    agent.silent = true;
    const late = client.readClock({ timeoutMs: 50 });
    late.catch(() => undefined);
    clock.advance(50_000_000n);
    await expect(late).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    const cut = client.readClock();
    client.close();
    await expect(cut).rejects.toMatchObject({ code: 'ERR_AGENT' });
  });
});

function hello(): Uint8Array {
  const payload = Buffer.concat([Buffer.alloc(16), Buffer.from('a\0b\0c\0d\0e\0')]);
  payload.writeUInt32LE(1, 0);
  return payload;
}
