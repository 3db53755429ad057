import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { CONSOLE_PATIENCE_NS, type ConsoleBackend, type ConsoleHostEnd } from './contract.js';
import { fileConsole } from './file.js';
import { callbackConsole, stdioConsole, streamConsole } from './stream.js';
import { unixSocketConsole } from './unix-socket.js';

let folder: string;
beforeEach(async () => (folder = await mkdtemp(path.join(tmpdir(), 'vsp-con-'))));
afterEach(() => rm(folder, { recursive: true }));

/** The provider's side: waits for what a backend tells. */
class FakeHost implements ConsoleHostEnd {
  readonly told: string[] = [];
  #look: (() => void)[] = [];
  constructor(backend: ConsoleBackend) {
    backend.start(this);
  }
  input(bytes: Uint8Array): void {
    this.#tell(Buffer.from(bytes).toString());
  }
  open(open: boolean): void {
    this.#tell(open ? '<open>' : '<closed>');
  }
  resize(size: { columns: number; rows: number }): void {
    this.#tell(`<${size.columns}x${size.rows}>`);
  }
  async until(wanted: string): Promise<void> {
    while (this.told.join('') !== wanted) await new Promise<void>((resolve) => this.#look.push(resolve));
  }
  #tell(what: string): void {
    this.told.push(what);
    for (const look of this.#look.splice(0)) look();
  }
}

describe('unixSocketConsole', () => {
  const client = async (where: string): Promise<Socket> => {
    const socket = connect(where);
    await once(socket, 'connect');
    return socket;
  };

  it('serves one client at a time, which may come again, and its owner alone', async () => {
    const where = path.join(folder, 'con.sock');
    const backend = await unixSocketConsole(where).open();
    const host = new FakeHost(backend);
    expect((await stat(where)).mode & 0o777).toBe(0o600);
    expect(backend.write(Buffer.from('nobody hears'))).toBeUndefined();
    const first = await client(where);
    first.write('hello');
    await host.until('<open>hello');
    void backend.write(Buffer.from('echo'));
    expect(String((await once(first, 'data'))[0])).toBe('echo');
    const second = await client(where);
    await once(second, 'close');
    first.end();
    await host.until('<open>hello<closed>');
    const third = await client(where);
    await host.until('<open>hello<closed><open>');
    const gone = once(third, 'close');
    third.resume();
    await backend.close();
    await gone;
    await expect(stat(where)).rejects.toMatchObject({ code: 'ENOENT' });
    await backend.close();
  });

  it('pauses its client, and holds the guest while the client does not read', async () => {
    const where = path.join(folder, 'con.sock');
    const backend = await unixSocketConsole(where).open();
    const host = new FakeHost(backend);
    const reader = await client(where);
    await host.until('<open>');
    backend.setPaused(true);
    reader.write('held');
    let waits: Promise<void> | undefined;
    let bytes = 0;
    while ((waits = backend.write(new Uint8Array(65536))) === undefined) bytes += 65536;
    expect(bytes).toBeLessThan(16 * 1024 * 1024);
    expect(host.told).toEqual(['<open>']);
    reader.resume();
    await waits;
    backend.setPaused(false);
    await host.until('<open>held');
    await backend.close();
  });

  it('replaces a dead socket, and nothing else', async () => {
    const where = path.join(folder, 'con.sock');
    const living = await unixSocketConsole(where).open();
    await expect(unixSocketConsole(where).open()).rejects.toMatchObject({ code: 'ERR_STATE' });
    await living.close();
    await writeFile(where, 'data');
    await expect(unixSocketConsole(where).open()).rejects.toMatchObject({ code: 'ERR_STATE' });
    expect(await readFile(where, 'utf8')).toBe('data');
    await expect(unixSocketConsole(path.join(folder, 'no', 'con.sock')).open()).rejects.toMatchObject({
      code: 'ERR_SYSTEM',
    });
    expect(() => unixSocketConsole(`/tmp/${'x'.repeat(200)}`)).toThrow(RangeError);
  });
});

describe('fileConsole', () => {
  it('appends, and is private', async () => {
    const where = path.join(folder, 'con.log');
    for (const part of ['one ', 'two']) {
      const backend = await fileConsole(where).open();
      new FakeHost(backend);
      await backend.write(Buffer.from(part));
      await backend.close();
    }
    expect(await readFile(where, 'utf8')).toBe('one two');
    expect((await stat(where)).mode & 0o777).toBe(0o600);
    expect(() => fileConsole(folder).open()).toThrow(expect.objectContaining({ code: 'ERR_SYSTEM' }));
  });
});

describe('streamConsole', () => {
  it('carries both ways, with backpressure, and tells of the end', async () => {
    const readable = new PassThrough();
    const writable = new PassThrough({ highWaterMark: 4 });
    const backend = await streamConsole({ readable, writable }).open();
    const host = new FakeHost(backend);
    readable.write('in');
    await host.until('<open>in');
    backend.setPaused(true);
    readable.write('more');
    const waits = backend.write(Buffer.from('12345'));
    expect(waits).toBeInstanceOf(Promise);
    expect(String(writable.read())).toBe('12345');
    await waits;
    expect(host.told).toEqual(['<open>', 'in']);
    backend.setPaused(false);
    await host.until('<open>inmore');
    readable.end();
    await host.until('<open>inmore<closed>');
    writable.destroy();
    expect(backend.write(Buffer.from('x'))).toBeUndefined();
    await backend.close();
  });

  it('lets go of a guest that waits when the other end breaks', async () => {
    const writable = new PassThrough({ highWaterMark: 1 });
    const backend = await streamConsole({ writable }).open();
    new FakeHost(backend);
    const waits = backend.write(Buffer.from('12'));
    writable.destroy(new Error('broken'));
    await waits;
    await backend.close();
  });
});

describe('streamConsole, when nobody reads', () => {
  it('is closed after some patience, and lets go of who waits', async () => {
    const clock = new ManualClock();
    const writable = new Writable({ highWaterMark: 1, write: () => undefined });
    const backend = await streamConsole({ writable, clock }).open();
    new FakeHost(backend);
    const waits = backend.write(Buffer.from('12'));
    let closed = false;
    const closing = backend.close().then(() => (closed = true));
    await turn();
    expect(closed).toBe(false);
    clock.advance(CONSOLE_PATIENCE_NS);
    await Promise.all([closing, waits]);
    expect(writable.destroyed).toBe(true);
  });
});

describe('stdioConsole', () => {
  it('has the size of the terminal, follows it, and leaves the streams open', async () => {
    const [stdin, stdout] = [new PassThrough(), new PassThrough()];
    let resized = (): void => {};
    let size = { columns: 80, rows: 25 };
    const source = stdioConsole({
      stdin,
      stdout,
      terminalSize: () => size,
      onResize: (callback) => {
        resized = callback;
        return () => (resized = () => {});
      },
    });
    const backend = await source.open();
    const host = new FakeHost(backend);
    expect(() => source.open()).toThrow(expect.objectContaining({ code: 'ERR_STATE' }));
    expect(backend.size).toEqual(size);
    size = { columns: 132, rows: 43 };
    resized();
    await backend.close();
    resized();
    expect(host.told).toEqual(['<open>', '<132x43>']);
    expect([stdin.destroyed, stdout.writableEnded]).toEqual([false, false]);
    await (await source.open()).close();
  });
});

describe('streams that are left open', () => {
  it('are left without a listener more, however often they are opened, and also when nobody reads', async () => {
    const readable = new PassThrough();
    const writable = new Writable({ highWaterMark: 1, write: () => undefined });
    const count = () =>
      [readable, writable].map((stream) =>
        stream.eventNames().reduce((sum, name) => sum + stream.listenerCount(name), 0),
      );
    const source = streamConsole({ readable, writable, end: false });
    const waiting: (Promise<void> | undefined)[] = [];
    const round = async () => {
      const backend = await source.open();
      new FakeHost(backend);
      waiting.push(backend.write(Buffer.from('12')));
      await backend.close();
    };
    await round();
    const before = count();
    for (let index = 0; index < 11; index++) await round();
    expect(count()).toEqual(before);
    for (const waits of waiting) await waits;
  });

  it('may fail later with what they were given', async () => {
    const writable = new Writable({ write: () => undefined });
    const backend = await streamConsole({ writable, end: false }).open();
    new FakeHost(backend);
    expect(backend.write(Buffer.from('x'))).toBeUndefined();
    await backend.close();
    const closed = new Promise((resolve) => writable.once('close', resolve));
    writable.destroy(new Error('EPIPE'));
    await closed;
    expect(writable.errored?.message).toBe('EPIPE');
  });
});

describe('callbackConsole', () => {
  it('tells its user when the guest takes more', async () => {
    const backend = callbackConsole(() => Promise.reject(new Error('the user failed')));
    const host = new FakeHost(backend);
    backend.setPaused(true);
    const more = backend.input(Buffer.from('x'));
    backend.setPaused(false);
    await more;
    await backend.write(Buffer.from('y'));
    expect(host.told).toEqual(['<open>', 'x']);
    await backend.close();
  });
});
