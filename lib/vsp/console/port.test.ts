import { Writable } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import {
  CONSOLE_PATIENCE_NS,
  type ConsoleBackend,
  type ConsoleGuestEnd,
  type ConsoleHostEnd,
  type ConsoleSize,
  type ConsoleSource,
} from './contract.js';
import { ConsolePort } from './port.js';
import { ConsoleProvider } from './provider.js';
import { callbackConsole, streamConsole } from './stream.js';

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();
/** Full after the first byte, and nobody reads it. */
const stuckWritable = () => new Writable({ highWaterMark: 1, write: () => undefined });
const context = { clock: new ManualClock(), logger: silentLogger };

/** A guest's end that takes `room` bytes and notes what it is told. */
class FakeGuest implements ConsoleGuestEnd {
  room = 0;
  readonly got: number[] = [];
  readonly told: string[] = [];
  offer(bytes: Uint8Array): number {
    const taken = Math.min(this.room, bytes.length);
    this.room -= taken;
    this.got.push(...bytes.subarray(0, taken));
    return taken;
  }
  hostOpen(open: boolean): void {
    this.told.push(open ? 'open' : 'closed');
  }
  resize(size: ConsoleSize): void {
    this.told.push(`${size.columns}x${size.rows}`);
  }
}

class FakeBackend implements ConsoleBackend {
  host!: ConsoleHostEnd;
  paused = false;
  closed = false;
  written = '';
  size?: ConsoleSize;
  write(bytes: Uint8Array): Promise<void> | undefined {
    this.written += text(bytes);
    return undefined;
  }
  start(host: ConsoleHostEnd): void {
    this.host = host;
  }
  setPaused(paused: boolean): void {
    this.paused = paused;
  }
  describe(): { kind: string } {
    return { kind: 'fake' };
  }
  async close(): Promise<void> {
    this.closed = true;
  }
}

describe('ConsolePort', () => {
  it('gives the guest every byte in order, whatever it takes at a time, and pauses the backend meanwhile', () => {
    const steps = fc.array(
      fc.oneof(
        fc.record({ input: fc.uint8Array({ maxLength: 20 }) }),
        fc.record({ room: fc.integer({ min: 0, max: 30 }) }),
        fc.record({ open: fc.boolean() }),
      ),
    );
    fc.assert(
      fc.property(steps, (list) => {
        const backend = new FakeBackend();
        const port = new ConsolePort('p', false, backend, context);
        const guest = new FakeGuest();
        port.attach(guest);
        const sent: number[] = [];
        for (const step of list) {
          if ('input' in step) {
            backend.host.input(step.input);
            sent.push(...step.input);
          } else if ('room' in step) {
            guest.room = step.room;
            port.onGuestReady();
          } else port.guestOpen(step.open);
          expect(guest.got).toEqual(sent.slice(0, guest.got.length));
          expect(guest.got.length + port.pendingBytes).toBe(sent.length);
          if (port.pendingBytes > 0) expect(backend.paused).toBe(true);
        }
        port.guestOpen(true);
        guest.room = 1e6;
        port.onGuestReady();
        expect(guest.got).toEqual(sent);
        expect(backend.paused).toBe(false);
      }),
    );
  });

  it('keeps what waits within a bound, though the backend goes on', () => {
    const backend = new FakeBackend();
    const port = new ConsolePort('', true, backend, context);
    for (let i = 0; i < 64; i++) backend.host.input(new Uint8Array(64 * 1024));
    expect(port.pendingBytes).toBe(1024 * 1024);
  });

  it('takes what comes in one piece whole, however long', () => {
    const backend = new FakeBackend();
    const port = new ConsolePort('', true, backend, context);
    backend.host.input(new Uint8Array(3 * 1024 * 1024));
    backend.host.input(new Uint8Array(1));
    expect([port.pendingBytes, backend.paused]).toEqual([3 * 1024 * 1024, true]);
  });

  const stuck = () => new Promise<void>(() => undefined);
  it.each<[string, () => ConsoleSource]>([
    ['stream that stays open', () => streamConsole({ writable: stuckWritable(), end: false })],
    ['callback that never answers', () => callbackConsole(stuck)],
  ])('goes on behind a %s, after some patience', async (_name, source) => {
    const clock = new ManualClock();
    const old = await source().open();
    const next = new FakeBackend();
    const port = new ConsolePort('', true, old, { ...context, clock });
    let isLetGo = false;
    const output = port.output(Buffer.from('lost'))?.then(() => (isLetGo = true));
    expect(port.busy).toBeInstanceOf(Promise);
    const rebound = port.rebind(next);
    expect(port.busy).toBeUndefined();
    await turn();
    expect(isLetGo).toBe(false);
    clock.advance(CONSOLE_PATIENCE_NS);
    await Promise.all([rebound, output]);
    expect(port.output(Buffer.from('b'))).toBeUndefined();
    expect(next.written).toBe('b');
    await port.close();
  });

  it('closes a stream that nobody reads only when it has had its time', async () => {
    const clock = new ManualClock();
    const old = new FakeBackend();
    old.write = stuck;
    const port = new ConsolePort('', true, old, { ...context, clock });
    void port.output(Buffer.from('lost'));
    const rebound = port.rebind(new FakeBackend());
    await turn();
    expect(old.closed).toBe(false);
    clock.advance(CONSOLE_PATIENCE_NS);
    await rebound;
    expect(old.closed).toBe(true);
    await port.close();
  });

  it('is not held by a backend whose write rejects, against the contract', async () => {
    const backend = new FakeBackend();
    backend.write = () => Promise.reject(new Error('broken'));
    const port = new ConsolePort('', true, backend, context);
    await port.output(Buffer.from('x'));
    expect(port.busy).toBeUndefined();
    await port.close();
  });

  it('tells a guest who is there and how large the terminal is, also one that comes later', () => {
    const backend = new FakeBackend();
    backend.size = { columns: 80, rows: 24 };
    const port = new ConsolePort('', true, backend, context);
    backend.host.open(true);
    const guest = new FakeGuest();
    port.attach(guest);
    backend.host.resize({ columns: 100, rows: 30 });
    backend.host.open(false);
    expect(guest.told).toEqual(['open', '80x24', '100x30', 'closed']);
    expect(port.contract.functions).toMatchObject({ resize: { by: 'native', calls: 1 }, ports: { by: 'native' } });
    const plain = new ConsolePort('', true, new FakeBackend(), context);
    plain.attach(guest);
    plain.resize({ columns: 1, rows: 2 });
    expect(guest.told.at(-1)).toBe('1x2');
    expect(plain.contract.functions).toMatchObject({ resize: { by: 'emulated', calls: 1 } });
  });

  it('hands output on, holds the guest while the backend is full, and counts', async () => {
    const clock = new ManualClock();
    let ready!: () => void;
    const port = new ConsolePort(
      '',
      true,
      callbackConsole(() => new Promise((resolve) => (ready = resolve))),
      {
        ...context,
        clock,
      },
    );
    const more = port.output(new Uint8Array([1]));
    clock.advance(70n);
    ready();
    await more;
    expect(port.contract.functions['ports']).toMatchObject({ calls: 1, errors: 0, ns: 70 });
    await port.close();
    expect(port.output(new Uint8Array([1]))).toBeUndefined();
  });

  it('changes the stream behind it', async () => {
    const [old, next] = [new FakeBackend(), new FakeBackend()];
    const port = new ConsolePort('', true, old, context);
    const guest = new FakeGuest();
    port.attach(guest);
    old.host.open(true);
    old.host.input(new Uint8Array([1, 2]));
    void port.output(Buffer.from('a'));
    await port.rebind(next);
    next.host.open(true);
    next.host.input(new Uint8Array([3]));
    old.host.input(new Uint8Array([9]));
    void port.output(Buffer.from('b'));
    guest.room = 10;
    port.onGuestReady();
    expect([old.written, next.written, guest.got, old.closed]).toEqual(['a', 'b', [1, 2, 3], true]);
    expect(guest.told).toEqual(['open', 'closed', 'open']);
    expect(port.contract.rebinds).toBe(1);
    expect(port.refreshSize()).toBeUndefined();
    next.size = { columns: 90, rows: 20 };
    expect(port.refreshSize()).toEqual(next.size);
    expect(guest.told.at(-1)).toBe('90x20');
    await port.close();
    await expect(port.rebind(old)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });
});

describe('ConsoleProvider', () => {
  it('refuses names that a guest could not find', () => {
    const make = (...names: string[]) =>
      new ConsoleProvider({
        id: 'con',
        logger: silentLogger,
        ports: names.map((name) => ({ name, backend: new FakeBackend() })),
      });
    expect(() => make()).toThrow(TypeError);
    expect(() => make('a/b')).toThrow(/no name of a port/);
    expect(() => make('a', 'a')).toThrow(/two ports/);
    expect(make('', 'org.qemu.guest_agent.0').ports.map(({ isConsole }) => isConsole)).toEqual([true, false]);
  });
});
