import { ChildProcess } from 'node:child_process';
import { closeSync } from 'node:fs';
import { describe, expect, it, onTestFinished } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { silentLogger } from '../../base/logger.js';
import { MiB } from '../../base/units.js';
import { socketPair } from '../../kvm/index.js';
import { hasRightChecksum } from './checksum.js';
import type { NetFrame } from './contract.js';
import { layoutOf } from './frame-layout.js';
import { keptFrame } from './kept-frame.js';
import { KEEPER_GONE, NOT_INSTALLED } from './passt-process.js';
import { keptWords, startKeptPasst, startPasstBy, type Spawn } from './passt-start.js';
import { passt, type PasstForward, type PasstOptions } from './passt.js';
import { packet, unfinished } from './testing.js';
import { lendingBackend } from './testing-lent.js';
import { passtLackOf } from './testing-passt.js';
import { FakePasst } from './testing-wire.js';

const tcp = (bytes: number) => packet({ version: 4, payload: Uint8Array.from({ length: bytes }, (_, i) => i * 7) });
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A network over fakes: `next` makes each process. */
function rig(options: PasstOptions = {}, next = () => new FakePasst()) {
  const clock = new ManualClock();
  const started: { passt: FakePasst; args: readonly string[] }[] = [];
  const start = (args: readonly string[]) => {
    const one = next();
    started.push({ passt: one, args });
    return one;
  };
  const context = { id: 'net0', mac: 0x020000000001, logger: silentLogger, clock };
  return { clock, started, context, source: passt({ ...options, start }) };
}

async function opened(options: PasstOptions = {}, next?: () => FakePasst) {
  const { source, context, ...rest } = rig(options, next);
  const backend = lendingBackend(await source.open(context));
  const got: NetFrame[] = [];
  const events: string[] = [];
  backend.start({
    receive: (frames) => got.push(...frames.map(keptFrame)),
    writable: () => events.push('writable'),
    link: (up) => events.push(up ? 'up' : 'down'),
  });
  return { ...rest, backend, got, events, first: rest.started[0]!.passt };
}

describe('passt', () => {
  it('checks what it is asked for', () => {
    const bad: [PasstOptions, ErrorConstructor][] = [
      [{ forward: [] } as object, TypeError],
      [{ mtuBytes: 1279 }, RangeError],
      [{ mtuBytes: 65521 }, RangeError],
      [{ hostLoopback: 1 as unknown as boolean }, TypeError],
      [{ forwards: {} as PasstForward[] }, TypeError],
      [{ forwards: [{ host: 0, guest: 1 }] }, RangeError],
      [{ forwards: [{ host: 1 } as PasstForward] }, TypeError],
      [{ forwards: [{ host: 1, guest: 1, protocol: 'sctp' as 'tcp' }] }, TypeError],
      [{ forwards: [{ host: 1, guest: 1, address: 'localhost' }] }, RangeError],
      [{ forwards: [{ host: 1, guest: 1, address: 'fe80::1%a/1,2' }] }, RangeError],
      [{ forwards: [1, 2].map((guest) => ({ host: 1, guest })) }, RangeError],
    ];
    for (const [options, kind] of bad) expect(() => passt(options)).toThrow(kind);
  });

  it('starts it with the forwards, for this host alone unless another address is named', async () => {
    const forwards = [
      { host: 8080, guest: 80 },
      { host: 5353, guest: 53, protocol: 'udp', address: '::1' },
      { host: 8080, guest: 81, address: '0.0.0.0' },
    ] as const;
    const { started, backend } = await opened({ forwards, mtuBytes: 9000, hostLoopback: false });
    const words = started[0]!.args.join(' ');
    expect(words).toContain('--tcp-ports 127.0.0.1/8080:80 --tcp-ports 0.0.0.0/8080:81 --udp-ports ::1/5353:53');
    expect(words).toContain('--mtu 9000 --no-map-gw');
    expect(backend.mtuBytes).toBe(9000);
    expect((await opened()).started[0]!.args.join(' ')).toMatch(/--tcp-ports none --udp-ports none$/);
  });

  it('says why it did not start', async () => {
    const cases = [
      [NOT_INSTALLED, 'ERR_SETUP', /setup/],
      ["Failed to bind any port for '-t 127.0.0.1/80:80', exiting", 'ERR_DEVICE', /another port/],
      ['External interface not usable', 'ERR_DEVICE', /default route/],
    ] as const;
    for (const [words, code, cure] of cases) {
      const { source, context, started } = rig({}, () => new FakePasst(false));
      const opening = source.open(context);
      started[0]!.passt.die(words);
      const message = expect.stringContaining(words);
      await expect(opening).rejects.toMatchObject({ code, message, cure: expect.stringMatching(cure) });
    }
  });

  it('is skipped by its tests where the host lacks it, and for no failure of it', () => {
    const lacks = [
      new VmmError('ERR_SETUP', NOT_INSTALLED),
      new VmmError('ERR_DEVICE', 'passt: External interface not usable'),
      new VmmError('ERR_DEVICE', 'passt: No external routable interface for IPv6'),
    ];
    expect(lacks.map(passtLackOf)).toEqual(lacks.map(({ message }) => message));
    const failures = [
      new VmmError('ERR_DEVICE', 'passt: no answer within 10 s'),
      new VmmError('ERR_DEVICE', 'passt: it ended with SIGSEGV'),
      new TypeError('External interface'),
    ];
    expect(failures.map(passtLackOf)).toEqual(failures.map(() => undefined));
  });

  it('does not wait for ever, nor for one who has given up', async () => {
    const { source, context, started, clock } = rig({}, () => new FakePasst(false));
    const silent = source.open(context);
    clock.advance(10_000_000_000n);
    await expect(silent).rejects.toMatchObject({ code: 'ERR_DEVICE', message: expect.stringMatching(/no answer/) });
    const abort = new AbortController();
    const aborted = source.open({ ...context, signal: abort.signal });
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(started.map((one) => one.passt.isAlive)).toEqual([false, false]);
  });

  it('carries frames both ways; large packets whole, with their checksum', async () => {
    const { backend, first, got } = await opened();
    const large = unfinished(tcp(30_000), 1460);
    const before = large.bytes.slice();
    expect(backend.send([{ bytes: tcp(1) }, large])).toBe(true);
    await turn();
    expect(first.got).toEqual([tcp(1), tcp(30_000)]);
    expect(large.bytes).toEqual(before);
    const longest = unfinished(tcp(65535 - 40), 1460);
    backend.send([longest]);
    await turn();
    const cut = first.got.slice(2);
    expect(cut.length).toBe(45);
    expect(cut.every((bytes) => hasRightChecksum(bytes, layoutOf(bytes)!))).toBe(true);
    first.give(tcp(5), tcp(6));
    await turn();
    expect(got).toEqual([tcp(5), tcp(6)].map((bytes) => ({ bytes, checked: true })));
    // Too long, and nothing that could be cut.
    backend.send([{ bytes: new Uint8Array(65536) }]);
    expect(backend.describe()).toMatchObject({ lost: 1 });
    await backend.close();
  });

  it('loses nothing of what comes with the first answer', async () => {
    const { source, context, started } = rig({}, () => new FakePasst(false));
    const opening = source.open(context);
    const one = started[0]!.passt;
    const arp = new Uint8Array(42).fill(8, 12, 13).fill(6, 13, 14);
    one.far.write(Uint8Array.from([0, 0, 0, 42, ...arp, 0, 0, 0, 60, 1, 2]));
    const backend = lendingBackend(await opening);
    const got: NetFrame[] = [];
    backend.start({ receive: (frames) => got.push(...frames.map(keptFrame)), writable: () => {}, link: () => {} });
    one.far.write(new Uint8Array(58));
    await turn();
    expect(got.map(({ bytes }) => [bytes.length, bytes[1]])).toEqual([[60, 2]]);
  });

  it('holds the guest, then drops, while nobody reads; and holds passt while the guest does not', async () => {
    const { backend, first, got, events } = await opened();
    first.stream.isStuck = true;
    const frames = () => Array.from({ length: 64 }, () => ({ bytes: tcp(1400) }));
    let more = true;
    while (more) more = backend.send(frames());
    for (let index = 0; index < 40; index++) backend.send(frames());
    expect(first.stream.writableLength).toBeLessThan(2.2 * 2 ** 20);
    expect(backend.describe()['lost']).toBeGreaterThan(0);
    first.stream.free();
    while (events.length === 0) {
      await turn();
      first.stream.free();
    }
    expect(events).toEqual(['writable']);
    backend.setPaused(true);
    first.give(tcp(1));
    await turn();
    expect(got).toEqual([]);
    backend.setPaused(false);
    await turn();
    expect(got.length).toBe(1);
  });

  it('is down when passt dies, and up with the next, which is not started in haste', async () => {
    let answers = true;
    const { backend, first, events, started, clock, got } = await opened({}, () => new FakePasst(answers));
    first.die('Segmentation fault');
    await turn();
    expect(events).toEqual(['down', 'writable']);
    backend.send([{ bytes: tcp(1) }]);
    expect(backend.describe()).toMatchObject({ up: false, lost: 1, failure: 'Segmentation fault' });
    answers = false;
    for (const waitMs of [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]) {
      const before = started.length;
      clock.advance(BigInt(waitMs) * 1_000_000n - 1n);
      expect(started.length).toBe(before);
      clock.advance(1n);
      expect(started.length).toBe(before + 1);
      started.at(-1)!.passt.die('again');
      await turn();
    }
    answers = true;
    clock.advance(10_000_000_000n);
    await turn();
    expect(events).toEqual(['down', 'writable', 'up']);
    expect(backend.describe()).toMatchObject({ up: true, restarts: 1, failure: undefined });
    started.at(-1)!.passt.give(tcp(9));
    await turn();
    expect(got.length).toBe(1);
    await backend.close();
    expect(started.filter((one) => one.passt.isAlive)).toEqual([]);
  });

  it('tries again when another can not even be started', async () => {
    let lack: Error | undefined;
    const { backend, first, events, clock } = await opened({}, () => {
      if (lack !== undefined) throw lack;
      return new FakePasst();
    });
    lack = new TypeError('no room');
    first.die('gone');
    await turn();
    clock.advance(100_000_000n);
    await turn();
    expect(backend.describe()).toMatchObject({ up: false, restarts: 0, failure: 'no room' });
    lack = undefined;
    clock.advance(200_000_000n);
    await turn();
    expect(backend.describe()).toMatchObject({ up: true, restarts: 1, failure: undefined });
    expect(events).toEqual(['down', 'writable', 'up']);
    await backend.close();
  });

  it('has ended with the reason where there is no room for a process', async () => {
    // As Node has it: ENOMEM is thrown; for EMFILE there is a child without streams, whose error follows.
    const withoutMemory: Spawn = () => {
      throw new Error('spawn ENOMEM');
    };
    const withoutDescriptors: Spawn = () => {
      const child = new ChildProcess();
      process.nextTick(() => child.emit('error', new Error('spawn passt EMFILE')));
      return child;
    };
    for (const [run, words] of [
      [withoutMemory, 'ENOMEM'],
      [withoutDescriptors, 'EMFILE'],
    ] as const) {
      const source = passt({ start: (args) => startPasstBy(run, args) });
      const expected = { code: 'ERR_DEVICE', message: expect.stringContaining(words) };
      await expect(source.open(rig().context)).rejects.toMatchObject(expected);
    }
  });

  it('has ended with the reason where its keeper does not start it', async () => {
    const { own, other } = socketPair(MiB);
    closeSync(other);
    onTestFinished(() => closeSync(own));
    const refusing = (): void => undefined;
    for (const [send, keeper, expected] of [
      [undefined, own, { message: `passt: ${KEEPER_GONE}`, cure: 'start the machine again' }],
      [undefined, 2 ** 30, { message: 'passt: sendmsg: EBADF' }],
      [refusing, own, { message: 'passt: it ended, or was not started, without a word' }],
    ] as const) {
      const source = passt({ start: (args) => startKeptPasst(keeper, args, send) });
      await expect(source.open(rig().context)).rejects.toMatchObject({ code: 'ERR_DEVICE', ...expected });
    }
  });

  it('tells apart what a kept one said and how it ended', () => {
    const ends: readonly (readonly [string, string])[] = [
      ['Failed to bind any port\n\nit ended with status 1\n', 'Failed to bind any port'],
      [`${NOT_INSTALLED}\n\nit ended with status 127\n`, NOT_INSTALLED],
      ['Failed to send 5 bytes to syslog\n\nit ended with signal 9\n', 'it ended with SIGKILL'],
      ['\nit ended with signal 999\n', 'it ended with signal 999'],
      ['\nit ended with status 0\n', 'it ended with status 0'],
      ['cut off', 'cut off'],
    ];
    for (const [said, words] of ends) expect(keptWords(said)).toBe(words);
  });

  it('starts another when this one sends what can be no frame', async () => {
    const { backend, first, events, clock } = await opened();
    first.far.write(Uint8Array.from([255, 255, 255, 255, 1, 2, 3]));
    await turn();
    expect([first.isAlive, events]).toEqual([false, ['down', 'writable']]);
    clock.advance(100_000_000n);
    await turn();
    expect(backend.describe()).toMatchObject({ up: true, badFrames: 1, restarts: 1 });
  });

  it('closes in the middle of a restart', async () => {
    let answers = true;
    const { backend, first, events, started, clock } = await opened({}, () => new FakePasst(answers));
    answers = false;
    first.die('gone');
    await turn();
    clock.advance(100_000_000n);
    await backend.close();
    await backend.close();
    expect(started.map((one) => one.passt.isAlive)).toEqual([false, false]);
    clock.advance(60_000_000_000n);
    expect([started.length, events]).toEqual([2, ['down', 'writable']]);
  });
});
