import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { TunFlag, TunOffload } from '../../abi/tun.js';
import { ManualClock } from '../../base/clock.js';
import { SystemError } from '../../base/errors.js';
import { silentLogger } from '../../base/logger.js';
import type { NetFrame } from './contract.js';
import { keptFrame } from './kept-frame.js';
import { frameBehind, writeHeader } from './tap-header.js';
import { tap, type TapSystem } from './tap.js';
import type { TapPort } from './tap-backend.js';
import { segmentTcp } from './segment.js';
import { packet, unfinished } from './testing.js';
import { lendingBackend } from './testing-lent.js';

const context = { id: 'net0', mac: 0x020000000001, logger: silentLogger, clock: new ManualClock() };
const tcp = (bytes: number) => packet({ version: 4, payload: Uint8Array.from({ length: bytes }, (_, i) => i * 7) });
const fails = (syscall: string, errno: keyof typeof constants.errno) =>
  new SystemError(syscall, errno, constants.errno[errno]);
const queued = (frame: NetFrame) => {
  const header = new Uint8Array(12);
  writeHeader(frame, header);
  return Uint8Array.from([...header, ...frame.bytes]);
};

/** A tap whose kernel side is a test. */
class FakeTap implements TapPort {
  onReady: (() => void) | undefined;
  readonly written: { header: Uint8Array; frame: Uint8Array }[] = [];
  waiting: Uint8Array[] = [];
  offloads = 0;
  headerBytes = 10;
  flags = 1;
  writeErrno = 0;
  takesOffloads = 0xff;
  hasChanged = false;
  gone = false;
  closed = false;
  name = () => 'tap7';
  mtuBytes = () => 1500;
  setHeaderBytes(bytes: number): void {
    this.headerBytes = bytes;
  }
  setOffloads(flags: number): void {
    if ((flags & ~this.takesOffloads) !== 0) throw fails('TUNSETOFFLOAD', 'EINVAL');
    this.offloads = flags;
  }
  interfaceFlags(): number {
    if (this.gone) throw fails('TUNGETIFF', 'EBADFD' as 'EBADF');
    return this.flags;
  }
  setInterfaceFlags(flags: number): void {
    this.flags = flags;
  }
  read(slab: Uint8Array, maxFrameBytes: number, lengths: Uint32Array): number {
    if (this.gone) throw fails('read', 'EBADF');
    let [count, at] = [0, 0];
    while (count < lengths.length && slab.length - at >= maxFrameBytes) {
      const next = this.waiting.shift();
      if (next === undefined) return -1 - count;
      slab.set(next, at);
      at += lengths[count++] = next.length;
    }
    return count;
  }
  write(header: Uint8Array, frame: Uint8Array): number {
    if (this.writeErrno === 0) this.written.push({ header: header.slice(), frame: frame.slice() });
    return this.writeErrno;
  }
  changed(): boolean {
    const { hasChanged } = this;
    this.hasChanged = false;
    return hasChanged;
  }
  close(): void {
    this.closed = true;
  }
}

async function opened(port = new FakeTap()) {
  const system: TapSystem = { exists: () => true, open: () => port };
  const backend = lendingBackend(await tap('tap7', { system }).open(context));
  const got: NetFrame[] = [];
  const links: boolean[] = [];
  backend.start({
    receive: (frames) => got.push(...frames.map(keptFrame)),
    writable: () => {},
    link: (up) => links.push(up),
  });
  return { port, backend, got, links };
}

describe('the header in front of a frame', () => {
  it('says what is unfinished, and is read back so', () => {
    for (const frame of [
      { bytes: tcp(10) },
      { bytes: tcp(10), checked: true },
      unfinished(tcp(10)),
      unfinished(tcp(3000), 1000),
      unfinished(packet({ version: 6, payload: new Uint8Array(2000), vlanTags: 1 }), 1000),
    ]) {
      const { segmentBytes, ...rest } = frameBehind(queued(frame))!;
      expect({ ...rest, segmentBytes }).toEqual({ segmentBytes: undefined, ...frame });
    }
  });

  it('is none that leads outside of its frame, or asks for what there is not', () => {
    const whole = queued(unfinished(tcp(3000), 1000));
    expect(frameBehind(whole.subarray(0, 12 + 13))).toBeUndefined();
    for (const [at, value] of [
      [0, 0], // large, with its checksum made
      [1, 3], // UDP
      [7, 0xff], // a checksum far behind the end
      [5, 0], // the high byte, and below the low one of the segments' size
    ] as const) {
      const changed = whole.slice();
      changed[at] = value;
      if (at === 5) changed[4] = 0;
      expect(frameBehind(changed)).toBeUndefined();
    }
  });
});

describe('tap', () => {
  it('refuses what is no name, and options that there are not', () => {
    for (const name of ['', 'sixteen-bytes-xx', 'a/b', 'tap%d', 'a b', '.', '..', 'a:b']) {
      expect(() => tap(name)).toThrow(RangeError);
    }
    expect(() => tap(7 as unknown as string)).toThrow(TypeError);
    expect(() => tap('tap0', { created: true } as object)).toThrow(/did you mean 'create'/);
  });

  it('says what stands in the way, and how it is cured', async () => {
    const cases = [
      [true, fails('open', 'ENOENT'), /no \/dev\/net\/tun/, /modprobe/],
      [true, fails('open', 'EACCES'), /may not be opened/, /chmod/],
      [true, fails('TUNSETIFF', 'EPERM'), /another user/, /ip tuntap/],
      [false, fails('TUNSETIFF', 'EPERM'), /may not make/, /ip tuntap/],
      [true, fails('TUNSETIFF', 'EBUSY'), /somebody has it/, /of its own/],
      [true, fails('TUNSETIFF', 'EINVAL'), /another kind/, /name a tap/],
    ] as const;
    for (const [isThere, error, message, cure] of cases) {
      const open = () => {
        throw error;
      };
      const source = tap('tap7', { create: true, system: { exists: () => isThere, open } });
      const expected = { code: 'ERR_DEVICE', cause: error, message: expect.stringMatching(message) };
      await expect(source.open(context)).rejects.toMatchObject({ ...expected, cure: expect.stringMatching(cure) });
    }
    const system = { exists: () => false, open: () => new FakeTap() };
    await expect(tap('tap7', { system }).open(context)).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    const signal = AbortSignal.abort();
    await expect(tap('tap7').open({ ...context, signal })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it('makes an interface where it may, and brings only that one up', async () => {
    for (const create of [true, false]) {
      const port = new FakeTap();
      port.flags = 0x1000;
      const backend = await tap('tap7', { create, system: { exists: () => !create, open: () => port } }).open(context);
      expect(port.flags).toBe(create ? 0x1001 : 0x1000);
      await backend.close();
    }
  });

  it('takes an interface of several queues as one', async () => {
    const asked: number[] = [];
    const open = (_: string, flags: number) => {
      asked.push(flags & TunFlag.MULTI_QUEUE);
      if ((flags & TunFlag.MULTI_QUEUE) === 0) throw fails('TUNSETIFF', 'EINVAL');
      return new FakeTap();
    };
    await tap('tap7', { system: { exists: () => true, open } }).open(context);
    expect(asked).toEqual([0, TunFlag.MULTI_QUEUE]);
  });

  it('has the offloads that the kernel has, and leaves the interface without', async () => {
    const { port, backend } = await opened();
    expect([backend.gives, port.headerBytes]).toEqual([{ checked: true, merged: true }, 12]);
    await backend.close();
    await backend.close();
    expect([port.offloads, port.headerBytes, port.closed]).toEqual([0, 10, true]);
    for (const takesOffloads of [TunOffload.CSUM, 0]) {
      const lesser = await opened(Object.assign(new FakeTap(), { takesOffloads }));
      expect(lesser.port.offloads).toBe(takesOffloads);
      expect(lesser.backend.gives).toEqual({ checked: takesOffloads !== 0, merged: false });
    }
  });

  it('carries frames both ways with what is unfinished about them', async () => {
    const { port, backend, got } = await opened();
    const frames = [{ bytes: tcp(1) }, unfinished(tcp(2)), unfinished(tcp(5000), 1400)];
    expect(backend.send(frames)).toBe(true);
    expect(port.written.map(({ header, frame }) => frameBehind(Uint8Array.from([...header, ...frame])))).toEqual(
      frames,
    );
    port.waiting = [...frames.map(queued), new Uint8Array(5)];
    port.onReady!();
    expect(got).toEqual(frames);
    expect(backend.describe()).toMatchObject({ kind: 'tap', name: 'tap7', up: true, lost: 0, badFrames: 1 });
  });

  it('looks for answers once what a turn had to send is sent, unless it is paused', async () => {
    const { port, backend, got } = await opened();
    const answer = unfinished(tcp(2));
    port.waiting = [queued(answer)];
    backend.send([{ bytes: tcp(1) }]);
    backend.send([{ bytes: tcp(1) }]);
    expect(got).toEqual([]);
    await Promise.resolve();
    expect(got).toEqual([answer]);
    port.waiting = [queued(answer)];
    backend.setPaused(true);
    backend.send([{ bytes: tcp(1) }]);
    await Promise.resolve();
    expect([got.length, port.waiting.length]).toEqual([1, 1]);
    await backend.close();
  });

  it('cuts large packets of segments that are too short for one, as a peer of a small MSS gets them', async () => {
    const { port, backend, got } = await opened();
    const small = unfinished(tcp(1000), 100);
    port.waiting = [queued(small), queued(unfinished(tcp(1000), 7)), queued(unfinished(tcp(1000), 256))];
    port.onReady!();
    const segments = segmentTcp(small.bytes, 100)!;
    expect(segments.length).toBe(10);
    expect(got).toEqual([...segments.map((bytes) => ({ bytes, checked: true })), { ...unfinished(tcp(1000), 256) }]);
    // Less than any stack sends.
    expect(backend.describe()).toMatchObject({ badFrames: 1 });
  });

  it('reads nothing while it is paused, all of it afterwards, and lets others have their turn', async () => {
    const { port, backend, got } = await opened();
    backend.setPaused(true);
    const bytes = tcp(1400);
    port.waiting = Array.from({ length: 2000 }, () => queued({ bytes }));
    port.onReady!();
    expect(got.length).toBe(0);
    backend.setPaused(false);
    expect(got.length).toBeLessThan(1000);
    while (got.length < 2000) await new Promise((resolve) => setImmediate(resolve));
    expect(got.every((frame) => Buffer.compare(frame.bytes, bytes) === 0)).toBe(true);
    await backend.close();
    port.waiting = [queued({ bytes: tcp(1) })];
    backend.setPaused(false);
    expect(got.length).toBe(2000);
  });

  it('has its link down while the interface is, and counts what it loses', async () => {
    const { port, backend, links } = await opened(Object.assign(new FakeTap(), { flags: 0 }));
    expect(links).toEqual([false]);
    Object.assign(port, { flags: 1, hasChanged: true });
    port.onReady!();
    Object.assign(port, { flags: 0, writeErrno: constants.errno.EIO });
    backend.send([{ bytes: tcp(1) }]);
    expect([links, backend.describe()['lost']]).toEqual([[false, true, false], 1]);
  });

  it('stays down once the interface is gone', async () => {
    const { port, backend, links } = await opened();
    port.gone = true;
    port.onReady!();
    backend.send([{ bytes: tcp(1) }]);
    port.onReady!();
    expect(links).toEqual([false]);
    expect(backend.describe()).toMatchObject({ up: false, lost: 1, failure: expect.stringMatching(/EBADF/) });
    await backend.close();
    expect(port.closed).toBe(true);
  });
});
