/** The host end of QEMU's guest agent against a fake of it: greeting, getting in step again, commands, and everything a hostile guest may send. */
import { PassThrough, Readable, Writable } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import type { AgentRunOptions } from '../client.js';
import { SENTINEL } from './answer-reader.js';
import { QemuAgentClient } from './client.js';
import { errorAnswer, FakeQemuGa, OWN, syncAnswer } from './fake-qemu-ga.js';

const SECOND = 1_000_000_000n;

async function connected(prepare: (ga: FakeQemuGa) => void = () => undefined) {
  const ga = new FakeQemuGa();
  const clock = new ManualClock({ wallMs: 1_700_000_000_000 });
  let id = 1000;
  const client = new QemuAgentClient(ga, { clock, makeId: () => id++ });
  prepare(ga);
  ga.open();
  await client.ready();
  return { ga, clock, client };
}

/** Time goes on while others have their turns, until it has come to something. */
async function passing<T>(clock: ManualClock, promise: Promise<T>): Promise<T> {
  let isOver = false;
  const over = (): void => void (isOver = true);
  promise.then(over, over);
  while (!isOver) {
    await new Promise((resolve) => setImmediate(resolve));
    clock.advance(SECOND / 4n);
  }
  return promise;
}

class Sink extends Writable {
  readonly chunks: Buffer[] = [];
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.chunks.push(Buffer.from(chunk));
    done();
  }
  get text(): string {
    return Buffer.concat(this.chunks).toString();
  }
}

function streams() {
  return { stdout: new Sink(), stderr: new Sink() };
}

const names = (ga: FakeQemuGa): string[] => ga.requests.map(({ execute }) => execute);

describe('greeting', () => {
  it('begins when a process opens the port, and says what the agent allows', async () => {
    const { client, ga } = await connected((fake) => fake.blocked.add('guest-exec'));
    expect(names(ga)).toEqual(['guest-sync-delimited', 'guest-info']);
    expect(client.info?.version).toBe('7.2.0');
    expect(client.info?.commands.has('guest-ping')).toBe(true);
    expect(client.info?.commands.has('guest-exec')).toBe(false);
  });

  it('also when the port was open before, as in a restored guest, and again when it is opened again', async () => {
    const ga = new FakeQemuGa();
    ga.isOpen = true;
    const client = new QemuAgentClient(ga, { clock: new ManualClock() });
    await client.ready();
    ga.close();
    expect(client.info).toBeUndefined();
    ga.open();
    await client.ready();
    expect(names(ga)).toEqual(['guest-sync-delimited', 'guest-info', 'guest-sync-delimited', 'guest-info']);
  });

  it('passes over what is of another conversation: half an answer, other ids, garbage, a line too long', async () => {
    let isAnswered = false;
    const { client, ga } = await connected((fake) => {
      fake.intercept = ({ execute, arguments: args }) => {
        if (execute !== 'guest-sync-delimited') return isAnswered ? OWN : errorAnswer('asked before both were in step');
        const id = args?.['id'];
        fake.give(Buffer.from('0, "out-data": "aGFsZg==\n'));
        // Our own number, and yet no word that it is the answer.
        fake.give({ return: id });
        fake.give(syncAnswer(999));
        fake.give(syncAnswer(String(id)));
        fake.give('x'.repeat(300 * 1024));
        fake.give(Buffer.from([SENTINEL, SENTINEL, 0x7b]));
        setImmediate(() => {
          isAnswered = true;
          fake.give(syncAnswer(id));
        });
        return undefined;
      };
    });
    expect(client.info?.version).toBe('7.2.0');
    expect(names(ga)).toEqual(['guest-sync-delimited', 'guest-info']);
  });

  it('asks anew, less and less often, who is no agent', async () => {
    const ga = new FakeQemuGa();
    const clock = new ManualClock();
    let isAgent = false;
    ga.intercept = () => (isAgent ? OWN : undefined);
    const client = new QemuAgentClient(ga, { clock });
    ga.open();
    const asked: number[] = [];
    for (let second = 0; second < 200; second++) {
      await new Promise((resolve) => setImmediate(resolve));
      const count = ga.requests.length;
      clock.advance(SECOND);
      await new Promise((resolve) => setImmediate(resolve));
      if (ga.requests.length > count) asked.push(second + 1);
    }
    expect(asked).toEqual([5, 15, 35, 75, 135, 195]);
    expect(client.info).toBeUndefined();
    isAgent = true;
    await passing(clock, client.ready());
  });

  it.each([
    ['no JSON', 'hello'],
    ['no list', { return: { version: '1', supported_commands: {} } }],
    ['commands that are none', { return: { version: '1', supported_commands: [1] } }],
    ['no version', { return: { supported_commands: [] } }],
    ['a long line', 'x'.repeat(300 * 1024)],
    ['a refusal', errorAnswer('no')],
  ])('of one that answers with %s goes on later, in step', async (_name, answer) => {
    const ga = new FakeQemuGa();
    const clock = new ManualClock();
    let isSane = false;
    ga.intercept = ({ execute }) => (isSane || execute === 'guest-sync-delimited' ? OWN : answer);
    const client = new QemuAgentClient(ga, { clock });
    ga.open();
    await expect.poll(() => ga.requests.length).toBe(2);
    isSane = true;
    await passing(clock, client.ready());
    expect(client.info?.version).toBe('7.2.0');
  });

  it('may time out, be aborted, or end with the client', async () => {
    const clock = new ManualClock();
    const client = new QemuAgentClient(new FakeQemuGa(), { clock });
    const late = client.ready({ timeoutMs: 50 });
    clock.advance(SECOND);
    await expect(late).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    const abort = new AbortController();
    const aborted = client.ready({ signal: abort.signal });
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    const never = client.ready();
    client.close();
    await expect(never).rejects.toMatchObject({ code: 'ERR_AGENT' });
    await expect(client.ready()).rejects.toMatchObject({ code: 'ERR_AGENT' });
    expect(() => client.start({ argv: ['true'] })).toThrow('closed');
  });
});

describe('a command', () => {
  it('gets its input, variables and folder at once, and its output and end come together', async () => {
    const { client, ga, clock } = await connected((fake) => {
      let looks = 0;
      fake.exit = () => (++looks < 4 ? undefined : { exitcode: 3, out: 'out', err: 'err' });
    });
    const { stdout, stderr } = streams();
    const stdin = Readable.from([Buffer.from('in'), Buffer.from('put')]);
    const result = client.run({ argv: ['cat', '-'], env: { A: 'b c' }, cwd: '/srv', stdin, stdout, stderr });
    await expect(passing(clock, result)).resolves.toEqual({
      status: { kind: 'exited', code: 3 },
      outputError: undefined,
    });
    expect([stdout.text, stderr.text]).toEqual(['out', 'err']);
    const exec = ga.requests.find(({ execute }) => execute === 'guest-exec');
    expect(exec?.arguments).toMatchObject({
      env: ['A=b c'],
      'input-data': Buffer.from('input').toString('base64'),
      'capture-output': true,
    });
    expect(ga.argvs).toEqual([['setsid', '--', '/bin/sh', '-c', 'cd "$0" && exec "$@"', '/srv', 'cat', '-']]);
    expect(names(ga).filter((name) => name === 'guest-exec-status')).toHaveLength(4);
  });

  it('runs without setsid where there is none, and says when it is not there itself', async () => {
    const notFound = errorAnswer('Failed to execute child process “x” (No such file or directory)');
    const { client, clock, ga } = await connected((fake) => {
      fake.intercept = (request) => (request.arguments?.['path'] === 'setsid' ? notFound : OWN);
      fake.exit = () => ({ exitcode: 0 });
    });
    await expect(passing(clock, client.run({ argv: ['true'] }))).resolves.toMatchObject({
      status: { kind: 'exited', code: 0 },
    });
    expect(ga.argvs).toEqual([['setsid', '--', 'true'], ['true']]);
    ga.intercept = ({ execute }) => (execute === 'guest-exec' ? notFound : OWN);
    await expect(passing(clock, client.run({ argv: ['nope'] }))).resolves.toMatchObject({
      status: { kind: 'not-started', errno: 2 },
    });
    ga.intercept = ({ execute }) => (execute === 'guest-exec' ? errorAnswer('Out of memory') : OWN);
    await expect(passing(clock, client.run({ argv: ['big'] }))).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: expect.stringMatching(/guest-exec: Out of memory/) as string,
    });
  });

  it('that a signal ended says which', async () => {
    const { client, clock } = await connected((fake) => (fake.exit = () => ({ signal: 11 })));
    await expect(passing(clock, client.run({ argv: ['x'] }))).resolves.toMatchObject({
      status: { kind: 'signalled', signal: 11 },
    });
  });

  it('gets a signal by kill in the guest, in its group', async () => {
    let killed = false;
    const { client, clock, ga } = await connected((fake) => {
      fake.exit = (argv) => {
        if (argv.includes('sleep')) return killed ? { signal: 15 } : undefined;
        killed = true;
        return { exitcode: 0 };
      };
    });
    const process = client.start({ argv: ['sleep', '9'] });
    await expect.poll(() => names(ga)).toContain('guest-exec-status');
    process.kill(15);
    await expect(passing(clock, process.result)).resolves.toMatchObject({ status: { kind: 'signalled', signal: 15 } });
    expect(ga.argvs[1]?.slice(0, 2)).toEqual(['/bin/sh', '-c']);
    expect(ga.argvs[1]?.slice(3)).toEqual(['15', '100']);
  });

  it('that can not be sent a signal fails, saying so', async () => {
    const { client, clock, ga } = await connected((fake) => {
      fake.exit = (argv) => (argv.includes('sleep') ? undefined : { exitcode: 1, err: 'not\x1b[1m permitted\n' });
    });
    const process = client.start({ argv: ['sleep', '9'] });
    await expect.poll(() => names(ga)).toContain('guest-exec-status');
    process.kill(15);
    await expect(passing(clock, process.result)).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: expect.stringMatching(/no way to send a signal but kill.*not \[1m permitted$/) as string,
      cure: expect.stringMatching(/vivarium's own agent/) as string,
    });
  });

  it('whose input has not ended is not started by a signal', async () => {
    const { client, ga } = await connected();
    const process = client.start({ argv: ['cat'], stdin: new PassThrough() });
    process.kill(2);
    await expect(process.result).resolves.toMatchObject({ status: { kind: 'signalled', signal: 2 } });
    expect(ga.argvs).toEqual([]);
  });

  it('that is left is killed, and asked for until it is gone', async () => {
    let killed = false;
    const { client, clock, ga } = await connected((fake) => {
      fake.exit = (argv) => {
        if (argv.includes('sleep')) return killed ? { signal: 9 } : undefined;
        killed = true;
        return { exitcode: 0 };
      };
    });
    const abort = new AbortController();
    const result = client.run({ argv: ['sleep', '9'], signal: abort.signal });
    await expect.poll(() => names(ga)).toContain('guest-exec-status');
    abort.abort();
    await expect(result).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    const lastOf = (): unknown => ga.requests.at(-1)?.arguments?.['pid'];
    await passing(
      clock,
      vi.waitUntil(() => killed && lastOf() === 100, { interval: 1 }),
    );
    expect(ga.argvs[1]?.slice(3)).toEqual(['9', '100']);
  });

  it('has no terminal, and bounds on its input and output that are told', async () => {
    const { client, clock, ga } = await connected((fake) => {
      fake.exit = () => ({ exitcode: 0, out: 'first', more: { 'out-truncated': true } });
    });
    expect(() => client.start({ argv: ['sh'], terminal: { columns: 80, rows: 24 } })).toThrow('no terminal');
    const stdin = Readable.from([Buffer.alloc(8 * 1024 * 1024), Buffer.alloc(1)]);
    await expect(client.run({ argv: ['cat'], stdin })).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: expect.stringMatching(/more than 8388608 bytes can't be streamed/) as string,
      cure: expect.stringMatching(/disk|network/) as string,
    });
    expect(ga.argvs).toEqual([]);
    const { stdout } = streams();
    await expect(passing(clock, client.run({ argv: ['yes'], stdout }))).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: expect.stringMatching(/printed more than 16777216 bytes/) as string,
    });
    expect(stdout.text).toBe('first');
  });

  it('with much input goes in pieces, each when the port takes more', async () => {
    const { client, clock, ga } = await connected();
    ga.pieces.length = 0;
    await passing(clock, client.run({ argv: ['cat'], stdin: Readable.from([Buffer.alloc(1024 * 1024, 1)]) }));
    expect(Math.max(...ga.pieces)).toBe(64 * 1024);
    let take!: () => void;
    ga.full = new Promise((resolve) => (take = resolve));
    ga.pieces.length = 0;
    const held = client.run({ argv: ['cat'], stdin: Readable.from([Buffer.alloc(100 * 1024, 1)]) });
    await expect.poll(() => ga.pieces.length).toBe(1);
    ga.full = undefined;
    take();
    await passing(clock, held);
    expect(ga.pieces.length).toBeGreaterThan(2);
  });

  it('whose output nobody takes says with what the stream failed', async () => {
    const { client, clock } = await connected((fake) => (fake.exit = () => ({ exitcode: 0, out: 'x' })));
    const stdout = new Writable({ write: (_chunk, _encoding, done) => done(new Error('EPIPE')) });
    await expect(passing(clock, client.run({ argv: ['x'], stdout }))).resolves.toMatchObject({
      outputError: { message: 'EPIPE' },
    });
  });

  it('is refused before it is sent: no argv, a NUL, too much, a command that is not allowed', async () => {
    const { client, ga } = await connected((fake) => fake.blocked.add('guest-exec-status'));
    await expect(client.run({ argv: ['true'] })).rejects.toMatchObject({
      code: 'ERR_AGENT',
      message: expect.stringMatching(/does not allow guest-exec-status/) as string,
      cure: expect.stringMatching(/block-rpcs/) as string,
    });
    const other = await connected();
    const start = (options: AgentRunOptions) => () => other.client.start(options);
    expect(start({ argv: [] })).toThrow(TypeError);
    expect(start({ argv: ['a\0'] })).toThrow(TypeError);
    expect(start({ argv: ['a'.repeat(3e6)] })).toThrow(RangeError);
    expect(ga.argvs).toEqual([]);
  });

  it('goes with the agent, and with the client', async () => {
    for (const end of ['agent', 'client'] as const) {
      const { client, ga } = await connected((fake) => {
        fake.intercept = ({ execute }) => (execute === 'guest-exec-status' ? undefined : OWN);
      });
      const result = client.run({ argv: ['x'] });
      const failed = expect(result).rejects.toMatchObject({ code: 'ERR_AGENT' });
      await expect.poll(() => names(ga)).toContain('guest-exec-status');
      if (end === 'agent') ga.close();
      else client.close();
      await failed;
    }
  });

  it.each([
    ['a pid of 0', 'guest-exec', { return: { pid: 0 } }],
    ['no pid', 'guest-exec', { return: {} }],
    ['nothing', 'guest-exec', { return: null }],
    ['an end without a reason', 'guest-exec-status', { return: { exited: true } }],
    ['a signal of 0', 'guest-exec-status', { return: { exited: true, signal: 0 } }],
    ['no status', 'guest-exec-status', { return: { exited: 'yes' } }],
    ['a number for base64', 'guest-exec-status', { return: { exited: true, exitcode: 0, 'out-data': 1 } }],
    ['an exit code of 256', 'guest-exec-status', { return: { exited: true, exitcode: 256 } }],
    ['garbage', 'guest-exec-status', '}{'],
  ])('that is answered with %s fails by itself, and the next one runs', async (_name, command, answer) => {
    const { client, clock, ga } = await connected();
    ga.intercept = ({ execute }) => (execute === command ? answer : OWN);
    await expect(passing(clock, client.run({ argv: ['x'] }))).rejects.toMatchObject({ code: 'ERR_AGENT' });
    ga.intercept = () => OWN;
    await expect(passing(clock, client.run({ argv: ['x'] }))).resolves.toMatchObject({ outputError: undefined });
  });
});

describe('step', () => {
  it('is taken again after an answer that was too late', async () => {
    const { client, clock, ga } = await connected();
    ga.intercept = ({ execute }) => (execute === 'guest-get-time' ? undefined : OWN);
    await expect(passing(clock, client.readClock())).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    ga.intercept = ({ execute }) => {
      if (execute === 'guest-sync-delimited') ga.give({ return: 1_111 });
      return execute === 'guest-get-time' ? { return: 2_000_000_000 } : OWN;
    };
    await expect(passing(clock, client.readClock())).resolves.toBe(2000);
    expect(names(ga).slice(-3)).toEqual(['guest-get-time', 'guest-sync-delimited', 'guest-get-time']);
  });

  it('is taken again after a line that nobody asked for, even in the same piece as an answer', async () => {
    const { client, clock, ga } = await connected();
    ga.intercept = ({ execute }) =>
      execute === 'guest-get-time' ? Buffer.from('{"return": 1000000}\n{"return": 5000000}\n') : OWN;
    await expect(client.readClock()).resolves.toBe(1);
    ga.intercept = ({ execute }) => (execute === 'guest-get-time' ? { return: 2_000_000 } : OWN);
    await expect(passing(clock, client.readClock())).resolves.toBe(2);
    expect(names(ga).slice(-3)).toEqual(['guest-get-time', 'guest-sync-delimited', 'guest-get-time']);
  });

  it('is not waited for by who is aborted in the middle, and requests keep their order', async () => {
    const { client, clock, ga } = await connected();
    const abort = new AbortController();
    ga.intercept = ({ execute }) => (execute === 'guest-get-time' ? undefined : OWN);
    const aborted = client.readClock(abort.signal);
    const next = client.setClock(() => clock.wallMs());
    await expect.poll(() => names(ga)).toContain('guest-get-time');
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await passing(clock, next);
    expect(names(ga).slice(-4)).toEqual(['guest-get-time', 'guest-sync-delimited', 'guest-ping', 'guest-set-time']);
  });

  it('is lost by nothing that the guest sends at any time', async () => {
    const garbage = fc.array(
      fc.oneof(
        fc.uint8Array({ maxLength: 20 }),
        fc.json().map((text) => Buffer.from(`${text}\n`)),
      ),
      { maxLength: 5 },
    );
    await fc.assert(
      fc.asyncProperty(garbage, garbage, async (idle, asked) => {
        const { client, clock, ga } = await connected();
        for (const bytes of idle) ga.give(bytes);
        ga.intercept = ({ execute }) => {
          if (execute === 'guest-get-time') for (const bytes of asked) ga.give(bytes);
          return execute === 'guest-get-time' ? { return: 2_000_000 } : OWN;
        };
        // It may be taken for the answer, or break the protocol: never more than that.
        await passing(clock, client.readClock()).catch((error: unknown) => {
          expect(error).toMatchObject({ code: 'ERR_AGENT' });
        });
        ga.intercept = ({ execute }) => (execute === 'guest-get-time' ? { return: 3_000_000 } : OWN);
        // What was sent too much is taken by the one before or by nobody.
        ga.give(Buffer.from('\n'));
        await expect(passing(clock, client.readClock())).resolves.toBe(3);
      }),
      { numRuns: 100 },
    );
  });
});

describe('clock and power', () => {
  it('set the clock to the middle of a round trip', async () => {
    const { client, clock, ga } = await connected();
    ga.intercept = ({ execute }) => {
      if (execute === 'guest-ping') clock.advance(SECOND / 100n);
      return OWN;
    };
    await client.setClock(() => clock.wallMs());
    const set = ga.requests.at(-1);
    expect(set).toEqual({ execute: 'guest-set-time', arguments: { time: (clock.wallMs() + 5) * 1e6 } });
    expect(names(ga).filter((name) => name === 'guest-ping')).toHaveLength(1);
  });

  it('ask for a power-off without an answer, and are in step after one that was refused', async () => {
    const { client, ga } = await connected();
    await client.requestPower('POWEROFF');
    await expect
      .poll(() => ga.requests.at(-1))
      .toEqual({ execute: 'guest-shutdown', arguments: { mode: 'powerdown' } });
    ga.give(errorAnswer('no'));
    ga.intercept = ({ execute }) => (execute === 'guest-get-time' ? { return: 7_000_000 } : OWN);
    await expect(client.readClock()).resolves.toBe(7);
  });
});
