import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import type { IoDone } from '../../memory/io-engine.js';
import { HostVector } from '../../memory/io-vector.js';
import type { BlockDone } from './contract.js';
import { checkAll, DiskModel, driveLoad, ended, randomNumbers } from './disk-model.js';
import { faultyDisk } from './faulty.js';
import { fileDisk } from './file.js';
import { memoryDisk } from './memory.js';
import { BlockProvider, type BlockProviderOptions } from './provider.js';
import type { BlockSource } from './source.js';
import { TestingEngine } from './testing-engine.js';

const SIZE = 256 * 1024;
const ALL_OFF = ['flush', 'discard', 'write-zeroes', 'identify', 'resize', 'topology'] as const;
const engine = new TestingEngine();
let folder: string;
let image: string;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'vsp-rebind-'));
  image = path.join(folder, 'disk.img');
  await writeFile(image, '');
  await truncate(image, SIZE);
});
afterAll(() => rm(folder, { recursive: true }));

const open = (source: BlockSource, options: Partial<BlockProviderOptions> = {}) =>
  BlockProvider.open(source, { id: 'root', engine, logger: silentLogger, ...options });
const sector = (value: number) => new HostVector(new Uint8Array(512).fill(value));
const write = (disk: BlockProvider, offset: number, value: number) =>
  ended((done) => disk.write(offset, sector(value), done));

async function read(disk: BlockProvider, offset: number): Promise<number | string> {
  const data = sector(0xa5);
  const error = await ended((done) => disk.read(offset, data, done));
  return error?.code ?? data.bytes[0]!;
}

/** A memory disk whose next opened backend notes what is asked of it. */
function noting(
  source: BlockSource,
  log: string[],
  name: string,
  change: { activate?: () => Promise<void>; flush?: (done: BlockDone) => void; writesBehind?: boolean } = {},
): BlockSource {
  return {
    ...source,
    async open(context) {
      const lower = await source.open(context);
      log.push(`${name} open`);
      return {
        geometry: lower.geometry,
        read: (offset, data, done) => lower.read(offset, data, done),
        write: (offset, data, done) => lower.write!(offset, data, done),
        flush: (done) => {
          log.push(`${name} flush`);
          if (change.flush) change.flush(done);
          else done(undefined);
        },
        writesBehind: change.writesBehind,
        activate: async () => {
          log.push(`${name} activate`);
          await change.activate?.();
        },
        describe: () => lower.describe(),
        close: async () => {
          log.push(`${name} close`);
          await lower.close();
        },
      };
    },
  };
}

describe('rebind', () => {
  it('keeps every byte over 100 changes under a random load', async () => {
    const same = fileDisk(image);
    const ways: BlockSource[] = [
      same,
      faultyDisk(same, { without: ALL_OFF }),
      faultyDisk(same, { blockBytes: 4096 }),
      faultyDisk(same, { blockBytes: 65536, without: ['discard', 'write-zeroes'] }),
    ];
    const disk = await open(same);
    const model = new DiskModel(SIZE / 512);
    const random = randomNumbers(7);
    let over = false;
    const load = (async () => {
      for (let seed = 100; !over; seed++) await driveLoad(disk, model, { seed, requests: 50, depth: 16 });
    })();
    let held = 0;
    for (let change = 0; change < 100; change++) held += (await disk.rebind(ways[random(ways.length)]!)).held;
    over = true;
    await load;
    await checkAll(disk, model);
    expect(disk.contract.rebinds).toBe(100);
    expect(held).toBeGreaterThan(0);
    expect(Object.values(disk.contract.functions).reduce((sum, { errors }) => sum + errors, 0)).toBe(0);
    await disk.close();
    // Whatever served last, it is all in the image.
    const again = await open(same, { readOnly: true });
    await checkAll(again, model);
    await again.close();
  });

  it('does each step in its order, and holds requests for a flush only where the old backend writes behind', async () => {
    const orderOf = async (writesBehind: boolean) => {
      const log: string[] = [];
      const disk = await open(noting(memoryDisk(SIZE), log, 'old', { writesBehind }));
      await disk.rebind(noting(memoryDisk(SIZE), log, 'new'));
      await disk.close();
      return log.slice(0, -1);
    };
    const first = ['old open', 'new open', 'old flush'];
    expect(await orderOf(true)).toEqual([...first, 'old flush', 'new activate', 'old close']);
    expect(await orderOf(false)).toEqual([...first, 'new activate', 'old flush', 'old close']);
  });

  it("ends the guest's flush after the one that the old backend owes, and with its failure", async () => {
    const log: string[] = [];
    const held: BlockDone[] = [];
    const failure = { code: 'io', message: 'the medium is gone' } as const;
    const disk = await open(noting(memoryDisk(SIZE), log, 'old', { flush: (done) => held.push(done) }));
    const rebound = disk.rebind(noting(memoryDisk(SIZE), log, 'new'));
    await new Promise(setImmediate);
    held.shift()!(undefined);
    await new Promise(setImmediate);
    // Switched, and the old one flushes what came in between: reads and writes go on, a flush does not.
    expect(disk.contract.rebinds).toBe(1);
    expect(await write(disk, 0, 1)).toBeUndefined();
    const flushed = ended((done) => disk.flush(done));
    await new Promise(setImmediate);
    expect(log).not.toContain('new flush');
    held.shift()!(failure);
    expect(await flushed).toMatchObject({ code: 'io' });
    await rebound;
    // Told once.
    expect(await ended((done) => disk.flush(done))).toBeUndefined();
    await disk.close();
    expect(log).toEqual([
      'old open',
      'new open',
      'old flush',
      'new activate',
      'old flush',
      'old close',
      'new flush',
      'new close',
    ]);
  });

  it('tells the next flush when nobody waited for the one that failed', async () => {
    const failure = { code: 'io', message: 'the medium is gone' } as const;
    const answers = [undefined, failure];
    const flush = (done: BlockDone): void => done(answers.shift());
    const disk = await open(noting(memoryDisk(SIZE), [], 'old', { flush }));
    await disk.rebind(memoryDisk(SIZE));
    expect(await ended((done) => disk.flush(done))).toMatchObject({ code: 'io' });
    expect(await ended((done) => disk.flush(done))).toBeUndefined();
    await disk.close();
  });

  it('waits for what is in flight, holds what comes, and lets it go on in order', async () => {
    const clock = new ManualClock();
    const old = memoryDisk(SIZE);
    const slow = faultyDisk(old, { clock, rules: [{ on: 'write', fault: { delayNs: 1000n } }] });
    const disk = await open(slow, { clock });
    const next = memoryDisk(SIZE);
    const first = write(disk, 0, 1);
    const rebound = disk.rebind(next);
    await new Promise(setImmediate);
    const order: number[] = [];
    const later = [2, 3].map((value) => write(disk, 512, value).then(() => order.push(value)));
    const seen = read(disk, 512);
    expect(disk.inspect()).toMatchObject({ inFlight: 1, held: 3 });
    clock.advance(1000n);
    expect(await first).toBeUndefined();
    expect(await rebound).toEqual({ holdNs: 1000, drainNs: 1000, held: 3 });
    await Promise.all(later);
    expect(order).toEqual([2, 3]);
    expect(await seen).toBe(3);
    // The first write was the old backend's: the caller said that the data is the same, and it is not.
    expect(await read(disk, 0)).toBe(0);
    await disk.close();
  });

  it.each<[string, () => BlockSource, object, string]>([
    ['smaller', () => memoryDisk(SIZE - 512), {}, 'ERR_DISK_IMAGE'],
    ['larger, when that is not allowed', () => memoryDisk(SIZE * 2), {}, 'ERR_DISK_IMAGE'],
    ['only readable', () => faultyDisk(memoryDisk(SIZE), { without: ['write'] }), {}, 'ERR_DISK_IMAGE'],
    ['missing', () => fileDisk('/nowhere/disk.img'), {}, 'ERR_DISK_IMAGE'],
    ['refused by the identity policy', () => memoryDisk(SIZE), { refuse: () => 'another disk' }, 'ERR_DISK_IMAGE'],
    [
      'unable to take over',
      () => noting(memoryDisk(SIZE), [], 'new', { activate: () => Promise.reject(new Error('no')) }),
      {},
      'no',
    ],
  ])('leaves the old backend serving when the new one is %s', async (_what, make, options, reason) => {
    const disk = await open(memoryDisk(SIZE));
    await write(disk, 0, 9);
    const failure = (await disk.rebind(make(), options).catch((error: unknown) => error)) as {
      code?: string;
      message: string;
    };
    expect(failure.code ?? failure.message).toBe(reason);
    expect(await read(disk, 0)).toBe(9);
    expect(disk.contract.rebinds).toBe(0);
    expect(disk.inspect()).toMatchObject({ held: 0, inFlight: 0 });
    await disk.close();
  });

  it('refuses when the old backend cannot be flushed', async () => {
    const image2 = path.join(folder, 'unflushable.img');
    await writeFile(image2, new Uint8Array(SIZE));
    const failing = faultyDisk(fileDisk(image2), { rules: [{ on: 'flush', fault: { error: 'io' } }] });
    const disk = await open(failing);
    await write(disk, 0, 5);
    await expect(disk.rebind(memoryDisk(SIZE))).rejects.toThrow(/flush/);
    expect(await read(disk, 0)).toBe(5);
    expect(disk.contract.backend.kind).toBe('faulty');
    await disk.close();
  });

  it('leaves a file whose sync failed only when the loss is accepted, and tells the next flush', async () => {
    const dying = path.join(folder, 'dying.img');
    await writeFile(dying, new Uint8Array(SIZE));
    const failing = new TestingEngine({ intercept: (call) => (call === 'sync' ? -constants.errno.EIO : undefined) });
    const logged: string[] = [];
    const disk = await open(fileDisk(dying), {
      engine: failing,
      logger: { log: (level, message) => level === 'error' && logged.push(message) },
    });
    await write(disk, 0, 5);
    for (let attempt = 0; attempt < 2; attempt++) {
      await expect(disk.rebind(memoryDisk(SIZE))).rejects.toMatchObject({
        code: 'ERR_DISK_IMAGE',
        message: expect.stringContaining('fdatasync'),
        cure: expect.stringContaining('acceptLoss'),
      });
    }
    expect(await read(disk, 0)).toBe(5);
    const report = await disk.rebind(memoryDisk(SIZE), { acceptLoss: true });
    expect(report.lost).toMatch(/dying\.img: fdatasync/);
    expect(logged).toEqual(['disk root: the backend before could not be flushed']);
    expect(await write(disk, 512, 6)).toBeUndefined();
    expect(await ended((done) => disk.flush(done))).toMatchObject({ code: 'io' });
    expect(await ended((done) => disk.flush(done))).toBeUndefined();
    expect(await read(disk, 512)).toBe(6);
    expect(await disk.rebind(memoryDisk(SIZE), { acceptLoss: true })).not.toHaveProperty('lost');
    await disk.close();
  });

  it.each(['refused', 'aborted'])(
    "fails the guest's later flushes when a sync failed for a rebind, which was %s by then",
    async (how) => {
      const image2 = path.join(folder, `lost-${how}.img`);
      await writeFile(image2, new Uint8Array(SIZE));
      const syncs: IoDone[] = [];
      const once = new TestingEngine();
      // The kernel tells of a failed writeback once.
      once.sync = (_fd, done) => void syncs.push(done);
      const disk = await open(fileDisk(image2), { engine: once });
      const controller = new AbortController();
      const rebound = disk.rebind(memoryDisk(SIZE), { signal: controller.signal });
      const over = expect(rebound).rejects.toMatchObject({
        code: how === 'refused' ? 'ERR_DISK_IMAGE' : 'ERR_ABORTED',
      });
      await new Promise(setImmediate);
      if (how === 'aborted') {
        controller.abort();
        await over;
      }
      const overlapping = how === 'aborted' ? ended((done) => disk.flush(done)) : undefined;
      syncs.shift()!(-constants.errno.EIO);
      await over;
      once.sync = (_fd, done) => void setImmediate(done, 0);
      for (const done of syncs) done(0);
      if (overlapping) expect(await overlapping).toMatchObject({ code: 'io' });
      for (let time = 0; time < 2; time++) {
        expect(await ended((done) => disk.flush(done))).toMatchObject({
          code: 'io',
          message: expect.stringContaining('fdatasync') as string,
        });
      }
      expect(disk.contract.rebinds).toBe(0);
      await disk.close();
    },
  );

  it('gives up when requests do not drain in time, or the caller aborts', async () => {
    const clock = new ManualClock();
    const disk = await open(
      faultyDisk(memoryDisk(SIZE), { clock, rules: [{ on: 'write', nth: 1, fault: { delayNs: 10_000_000n } }] }),
      { clock },
    );
    const stuck = write(disk, 0, 1);
    const late = disk.rebind(memoryDisk(SIZE), { maxHoldMs: 1 });
    const lateEnd = expect(late).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    await new Promise(setImmediate);
    const held = write(disk, 512, 2);
    clock.advance(1_000_000n);
    await lateEnd;
    expect(await held).toBeUndefined();
    const controller = new AbortController();
    const aborted = disk.rebind(memoryDisk(SIZE), { signal: controller.signal });
    const abortedEnd = expect(aborted).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await new Promise(setImmediate);
    controller.abort();
    await abortedEnd;
    expect(disk.inspect()).toMatchObject({ held: 0, inFlight: 1 });
    clock.advance(10_000_000n);
    expect(await stuck).toBeUndefined();
    await disk.close();
  });

  it('gives drain and the flush behind it one time together', async () => {
    const clock = new ManualClock();
    const flushes: BlockDone[] = [];
    const flush = (done: BlockDone): void => void flushes.push(done);
    const slow = faultyDisk(noting(memoryDisk(SIZE), [], 'old', { writesBehind: true, flush }), {
      clock,
      rules: [{ on: 'write', nth: 1, fault: { delayNs: 8_000_000n } }],
    });
    const disk = await open(slow, { clock });
    const first = write(disk, 0, 1);
    let outcome: unknown = 'none yet';
    const rebound = disk.rebind(memoryDisk(SIZE), { maxHoldMs: 10 }).then(
      (report) => (outcome = report),
      (error: unknown) => (outcome = error),
    );
    await new Promise(setImmediate);
    flushes.shift()!(undefined);
    await new Promise(setImmediate);
    const held = write(disk, 512, 2);
    clock.advance(8_000_000n);
    expect(await first).toBeUndefined();
    await new Promise(setImmediate);
    expect(flushes).toHaveLength(1);
    clock.advance(1_999_999n);
    await new Promise(setImmediate);
    expect(outcome).toBe('none yet');
    clock.advance(1n);
    await new Promise(setImmediate);
    const message = 'disk root: flush of the old backend, of 10 ms with the drain: not done in 2 ms';
    expect(outcome).toMatchObject({ code: 'ERR_TIMEOUT', message });
    await rebound;
    expect(await held).toBeUndefined();
    flushes.shift()!(undefined);
    await disk.close();
  });

  it('takes a larger backend when that is allowed, and keeps serial and set', async () => {
    const disk = await open(memoryDisk(SIZE));
    const before = Object.keys(disk.contract.functions);
    const told: number[] = [];
    disk.onGeometry(({ sizeBytes }) => told.push(sizeBytes));
    await disk.rebind(faultyDisk(memoryDisk(2 * SIZE), { without: ALL_OFF }), { allowLarger: true });
    expect(told).toEqual([2 * SIZE]);
    expect(disk.identify()).toBe('root');
    expect(Object.keys(disk.contract.functions)).toEqual(before);
    expect(disk.contract.functions).toMatchObject({ read: { by: 'native' }, discard: { by: 'emulated' } });
    await disk.close();
  });

  it('keeps what was copied on write over a change of the base', async () => {
    const disk = await open(memoryDisk(SIZE), { copyOnWrite: { maxBytes: 64 * 1024 } });
    await write(disk, 4096, 7);
    await disk.rebind(memoryDisk(SIZE));
    expect(await read(disk, 4096)).toBe(7);
    expect(await read(disk, 4096 + 512)).toBe(0);
    await disk.close();
  });
});

describe('prepare and resume', () => {
  it('holds everything between them', async () => {
    const disk = await open(memoryDisk(SIZE));
    await disk.prepare();
    const held = write(disk, 0, 3);
    expect(disk.inspect()).toMatchObject({ held: 1, inFlight: 0 });
    await disk.rebind(memoryDisk(SIZE));
    expect(disk.inspect()).toMatchObject({ held: 1, inFlight: 0 });
    disk.resume();
    expect(await held).toBeUndefined();
    disk.resume();
    await disk.close();
  });

  it('refuses at the deadline and holds nothing then', async () => {
    const clock = new ManualClock();
    const disk = await open(
      faultyDisk(memoryDisk(SIZE), { clock, rules: [{ on: 'write', nth: 1, fault: { delayNs: 100n } }] }),
      { clock },
    );
    const slow = write(disk, 0, 1);
    const refused = expect(disk.prepare({ deadlineNs: 50n })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    await new Promise(setImmediate);
    clock.advance(50n);
    await refused;
    expect(await write(disk, 512, 2)).toBeUndefined();
    clock.advance(50n);
    await slow;
    await disk.close();
  });
});
