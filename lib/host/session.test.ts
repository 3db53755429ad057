/** A session from end to end without a host: the client's side and the worker's side joined by two streams. */
import { PassThrough, Writable, type Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import type { Channel, CommandIo, CommandSignal } from '../base/command-io.js';
import { VmmError } from '../base/errors.js';
import type { HostConnection } from './client.js';
import { duplexPair } from './fake-machine.js';
import { Link } from './link.js';
import type { HostStatus, SessionRequest } from './messages.js';
import { runSession, type SessionIo } from './session.js';
import { serveOn, type RunCommand } from './worker.js';

const request: SessionRequest = {
  kind: 'command',
  argv: ['run', '--', 'a b'],
  cwd: process.cwd(),
  env: { VIVARIUM_TEST_SESSION: 'here' },
  stdinIsTerminal: true,
  stdoutIsTerminal: false,
  stderrIsTerminal: false,
  terminalSize: { columns: 100, rows: 30 },
  bundle: { key: 'k', path: '/b' },
};

class Sink extends Writable {
  readonly chunks: Buffer[] = [];
  fail: Error | undefined;

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error) => void): void {
    this.chunks.push(chunk);
    callback(this.fail);
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString();
  }
}

/** The terminal outside, in the test's hand. */
class FakeTerminal implements SessionIo {
  readonly stdin = new PassThrough();
  readonly stdout = new Sink();
  readonly stderr = new Sink();
  readonly raw: boolean[] = [];
  size = { columns: 100, rows: 30 };
  resized: () => void = () => undefined;
  signal: (name: CommandSignal) => void = () => undefined;
  listeners = 0;

  terminalSize = (): { columns: number; rows: number } => this.size;
  onResize = (callback: () => void): (() => void) => {
    this.listeners++;
    this.resized = callback;
    return () => {
      this.listeners--;
    };
  };
  setRawMode = (on: boolean): void => void this.raw.push(on);
  onSignal = (callback: (name: CommandSignal) => void): (() => void) => {
    this.listeners++;
    this.signal = callback;
    return () => {
      this.listeners--;
    };
  };
}

function join(run: RunCommand, abort?: AbortSignal, channels: ((channel: Channel) => void)[] = []) {
  const [near, far] = duplexPair();
  let handlers: Parameters<HostConnection['listen']>[0] | undefined;
  const link = new Link(near, near, {
    onFrame: (frame) => handlers?.onFrame(frame),
    onEnd: (error) => handlers?.onEnd(error),
  });
  const connection: HostConnection = { link, status: {} as HostStatus, listen: (next) => (handlers = next) };
  const terminal = new FakeTerminal();
  const ended: number[] = [];
  const served = serveOn(far, run, (status) => {
    ended.push(status);
    far.destroy();
  });
  const status = runSession(connection, request, terminal, abort, channels);
  return { terminal, status, served, ended, far };
}

async function readAll(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

describe('a session', () => {
  it('gives the command its arguments, environment, terminal and size, and its exit status back', async () => {
    const { status, terminal } = join((argv, io) => {
      io.stdout.write(JSON.stringify([argv, io.stdinIsTerminal, io.stdoutIsTerminal, io.terminalSize()]));
      io.stderr.write(io.env['VIVARIUM_TEST_SESSION'] ?? '');
      return Promise.resolve(7);
    });
    expect(await status).toEqual({ by: 'process', status: 7 });
    expect(JSON.parse(terminal.stdout.text)).toEqual([request.argv, true, false, { columns: 100, rows: 30 }]);
    expect(terminal.stderr.text).toBe('here');
    expect(terminal.listeners).toBe(0);
    delete process.env['VIVARIUM_TEST_SESSION'];
  });

  it('carries megabytes of binary both ways, and the end of stdin', async () => {
    const data = Buffer.alloc(3_000_001);
    for (let at = 0; at < data.length; at++) data[at] = (at * 7) & 0xff;
    const { status, terminal } = join(async (_argv, io: CommandIo) => {
      for await (const chunk of io.stdin) {
        if (!io.stdout.write(chunk)) await new Promise((resolve) => io.stdout.once('drain', resolve));
      }
      return 0;
    });
    terminal.stdin.end(data);
    expect(await status).toEqual({ by: 'process', status: 0 });
    expect(Buffer.concat(terminal.stdout.chunks).equals(data)).toBe(true);
  });

  it('carries megabytes both ways over channels of its own, and breaks them at its end', async () => {
    const data = Buffer.alloc(2_000_003, 'channel');
    const outside: Channel[] = [];
    const take = (channel: Channel) => void outside.push(channel);
    const { status } = join(
      async (_argv, io) => {
        const [echo, still] = io.channels!;
        echo!.input.pipe(echo!.output);
        await new Promise((resolve) => still!.input.once('data', resolve));
        return 3;
      },
      undefined,
      [take, take],
    );
    outside[0]!.output.end(data);
    const back = await readAll(outside[0]!.input);
    expect(back.equals(data)).toBe(true);
    outside[1]!.output.write('enough');
    expect(await status).toEqual({ by: 'process', status: 3 });
    expect(outside.map(({ input, output }) => [input.destroyed, output.destroyed])).toEqual([
      [true, true],
      [true, true],
    ]);
  });

  it("takes nothing of the terminal's input unless the command reads", async () => {
    const { status, terminal } = join(() => Promise.resolve(0));
    terminal.stdin.write('for the next command');
    await status;
    expect((await readAllOf(terminal.stdin)).toString()).toBe('for the next command');
  });

  it('passes signals and new sizes in, raw mode out, and gives the terminal back', async () => {
    let started: () => void = () => undefined;
    const running = new Promise<void>((resolve) => (started = resolve));
    const { status, terminal } = join(async (_argv, io) => {
      io.setRawMode(true);
      const resized = new Promise<void>((resolve) => io.onResize(resolve));
      const signalled = new Promise<CommandSignal>((resolve) => io.onSignal(resolve));
      started();
      await resized;
      io.stdout.write(`${await signalled} ${io.terminalSize()?.columns ?? 0}`);
      return 0;
    });
    await running;
    terminal.size = { columns: 42, rows: 10 };
    terminal.resized();
    terminal.signal('SIGTERM');
    expect(await status).toEqual({ by: 'process', status: 0 });
    expect(terminal.stdout.text).toBe('SIGTERM 42');
    expect(terminal.raw).toEqual([true, false]);
  });

  it.each(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const)(
    'is ended by %s before the command takes signals, and the process inside is hung up',
    async (name) => {
      let started: () => void = () => undefined;
      const running = new Promise<void>((resolve) => (started = resolve));
      const { status, served, terminal, ended } = join(() => {
        started();
        return new Promise(() => undefined);
      });
      served.catch(() => undefined);
      await running;
      terminal.signal(name);
      expect(await status).toEqual({ by: 'signal', signal: name });
      expect(terminal.listeners).toBe(0);
      await expect.poll(() => ended).toEqual([129]);
    },
  );

  it('brings errors over as they are', async () => {
    const failing = join(() =>
      Promise.reject(new VmmError('ERR_KERNEL_IMAGE', 'x: not a kernel', { cure: 'give another' })),
    );
    await expect(failing.status).rejects.toMatchObject({
      code: 'ERR_KERNEL_IMAGE',
      message: 'x: not a kernel',
      cure: 'give another',
    });
  });

  it('goes on, with a broken pipe inside, when nobody reads our stdout', async () => {
    const { status, terminal } = join(async (_argv, io) => {
      const broken = new Promise<NodeJS.ErrnoException>((resolve) => io.stdout.once('error', resolve));
      io.stdout.write('first');
      return (await broken).code === 'EPIPE' ? 141 : 1;
    });
    terminal.stdout.fail = Object.assign(new Error('write EPIPE'), { code: 'EPIPE' });
    expect(await status).toEqual({ by: 'process', status: 141 });
  });

  it('hangs up when it is aborted', async () => {
    const abort = new AbortController();
    const heard: CommandSignal[] = [];
    const { status, served } = join(async (_argv, io) => {
      const gone = new Promise<void>((resolve) => {
        io.onSignal((name) => {
          heard.push(name);
          resolve();
        });
      });
      abort.abort();
      await gone;
      return 0;
    }, abort.signal);
    await expect(status).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await served;
    expect(heard).toEqual(['SIGHUP']);
  });

  it('is an error when the host goes away', async () => {
    const { status, far } = join((_argv, io) => {
      io.onSignal(() => undefined);
      return new Promise(() => undefined);
    });
    await new Promise((resolve) => setImmediate(resolve));
    far.destroy();
    await expect(status).rejects.toMatchObject({ code: 'ERR_EMBEDDED_HOST' });
  });
});

function readAllOf(stream: PassThrough): Promise<Buffer> {
  stream.end();
  return readAll(stream);
}
