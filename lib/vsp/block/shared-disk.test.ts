/** One disk of the host's under several guests: what each sees, what it costs the others, and the disk taken back in the middle of I/O. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { HostVector } from '../../memory/io-vector.js';
import { ended, randomNumbers } from './disk-model.js';
import { faultyDisk } from './faulty.js';
import { fileDisk } from './file.js';
import { memoryDisk } from './memory.js';
import { BlockProvider, type BlockProviderOptions } from './provider.js';
import { sharedDisk } from './shared-disk.js';
import type { BlockSource } from './source.js';
import { TestingEngine } from './testing-engine.js';

const SIZE = 256 * 1024;
const engine = new TestingEngine();
/** What a sector of the disk is full of. */
const baseByte = (sector: number) => sector % 127;
let folder: string;
let base: string;
let copy: string;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'vsp-shared-'));
  [base, copy] = [path.join(folder, 'base.img'), path.join(folder, 'copy.img')];
  const content = Buffer.from(Uint8Array.from({ length: SIZE }, (_, at) => baseByte(Math.floor(at / 512))));
  for (const file of [base, copy]) await writeFile(file, content);
});
afterAll(() => rm(folder, { recursive: true }));

const open = (source: BlockSource, options: Partial<BlockProviderOptions> = {}) =>
  BlockProvider.open(source, {
    id: 'root',
    engine,
    logger: silentLogger,
    copyOnWrite: { maxBytes: 8 * 1024 * 1024 },
    ...options,
  });
const read = (disk: BlockProvider, offset: number, bytes = 512) =>
  ended((done) => disk.read(offset, new HostVector(new Uint8Array(bytes)), done));

/**
 * Reads and changes sectors of a lane's own until it is told to stop: even ones keep what the base has, odd ones have this guest's
 * stamp once it has written them. Rejects at the first wrong byte or error; how many requests it made is the result.
 */
async function useDisk(
  disk: BlockProvider,
  { stamp, lane, until }: { stamp: number; lane: number; until: () => boolean },
): Promise<number> {
  const random = randomNumbers(stamp * 8 + lane);
  const written = new Set<number>();
  let requests = 0;
  while (!until()) {
    const sector = random(SIZE / 512 / 8) * 8 + lane;
    const isOwn = sector % 16 >= 8;
    const data = new HostVector(new Uint8Array(512).fill(isOwn ? stamp : 0xff));
    if (isOwn && random(4) === 0) {
      expect(await ended((done) => disk.write(sector * 512, data, done))).toBeUndefined();
      written.add(sector);
    } else {
      expect(await ended((done) => disk.read(sector * 512, data, done))).toBeUndefined();
      const wanted = written.has(sector) ? stamp : baseByte(sector);
      expect(data.bytes.every((byte) => byte === wanted)).toBe(true);
    }
    requests++;
  }
  return requests;
}

describe('a shared disk', () => {
  it('shows each guest its own changes and nobody else’s, over 100 times that the host takes it back and gives it back', async () => {
    const shared = sharedDisk(fileDisk(base));
    const guests = await Promise.all([1, 2, 3].map(() => open(shared.guest())));
    let stopped = false;
    const loads = guests.flatMap((disk, index) => {
      return Array.from({ length: 8 }, (_, lane) => useDisk(disk, { stamp: 0x80 + index, lane, until: () => stopped }));
    });
    for (let time = 0; time < 100; time++) {
      await shared.takeBack(fileDisk(copy));
      // The host has it for itself: nobody else may even have it open.
      await (await fileDisk(base).open({ engine, logger: silentLogger, readOnly: false })).close();
      await shared.giveBack();
    }
    stopped = true;
    const requests = await Promise.all(loads);
    // Every one of them was at it all the time.
    expect(Math.min(...requests)).toBeGreaterThan(100);
    for (const disk of guests) expect(disk.contract.functions['read']!.errors).toBe(0);
    expect(shared.inspect()).toMatchObject({ isTakenBack: false, takeBacks: 100, inService: 0 });
    await Promise.all(guests.map((disk) => disk.close()));
    expect(shared.inspect()).toMatchObject({ guests: [] });
  });

  it('says that everything is emulated while the host has it, also to who comes then', async () => {
    const shared = sharedDisk(fileDisk(base));
    const disk = await open(shared.guest(), { readOnly: true });
    const by = (of: BlockProvider) => of.contract.functions['read']!.by;
    expect(by(disk)).toBe('native');
    await shared.takeBack(fileDisk(copy));
    const late = await open(shared.guest(), { readOnly: true });
    expect([by(disk), by(late)]).toEqual(['emulated', 'emulated']);
    expect(late.contract.backend).toMatchObject({ kind: 'shared', withdrawn: true, disk: { path: copy } });
    await expect(shared.takeBack(fileDisk(copy))).rejects.toMatchObject({ code: 'ERR_STATE' });
    await shared.giveBack();
    expect([by(disk), by(late)]).toEqual(['native', 'native']);
    await expect(shared.giveBack()).rejects.toMatchObject({ code: 'ERR_STATE' });
    await Promise.all([disk.close(), late.close()]);
  });

  it('stays with its guests when it can’t be taken back', async () => {
    const clock = new ManualClock();
    const slow = faultyDisk(memoryDisk(SIZE), { rules: [{ on: 'read', fault: { delayNs: 10_000n } }], clock });
    const shared = sharedDisk(slow, { clock });
    const disk = await open(shared.guest(), { readOnly: true });
    const other = await open(shared.guest(), { readOnly: true });
    await expect(shared.takeBack(memoryDisk(2 * SIZE))).rejects.toMatchObject({ code: 'ERR_DISK_IMAGE' });
    await expect(shared.takeBack(fileDisk(path.join(folder, 'none')))).rejects.toMatchObject({
      code: 'ERR_DISK_IMAGE',
    });

    const first = read(disk, 0);
    const stopping = shared.takeBack(memoryDisk(SIZE), { drainNs: 5000n });
    const refused = expect(stopping).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    // What comes while it waits goes on when it gives up.
    await new Promise((resolve) => setImmediate(resolve));
    const second = read(other, 512);
    clock.advance(5000n);
    await refused;
    const abort = new AbortController();
    const aborted = expect(shared.takeBack(memoryDisk(SIZE), { signal: abort.signal })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
    await new Promise((resolve) => setImmediate(resolve));
    abort.abort();
    await aborted;
    clock.advance(100_000n);
    expect(await Promise.all([first, second])).toEqual([undefined, undefined]);
    expect(shared.inspect()).toMatchObject({ isTakenBack: false, takeBacks: 0 });
    await Promise.all([disk.close(), other.close()]);
  });

  it('is divided fairly: three guests with unequal demand get their shares within a tenth', async () => {
    const clock = new ManualClock();
    const slow = faultyDisk(memoryDisk(SIZE), { rules: [{ on: 'read', fault: { delayNs: 100_000n } }], clock });
    const shared = sharedDisk(slow, { clock, depth: 4 });
    const wants = [
      { weight: 1, outstanding: 40 },
      { weight: 1, outstanding: 5 },
      { weight: 2, outstanding: 20 },
    ];
    const guests = await Promise.all(wants.map(({ weight }) => open(shared.guest({ weight }), { readOnly: true })));
    const operations = wants.map(() => 0);
    guests.forEach((disk, index) => {
      const ask = (): void => {
        disk.read(0, new HostVector(new Uint8Array(4096)), () => {
          operations[index]!++;
          if (clock.nowNs() < 200_000_000n) ask();
        });
      };
      for (let each = 0; each < wants[index]!.outstanding; each++) ask();
    });
    clock.advance(200_000_000n);
    const all = operations.reduce((sum, each) => sum + each);
    expect(all).toBeGreaterThan(7000);
    operations.forEach((each, index) => {
      expect(Math.abs(each / all / (wants[index]!.weight / 4) - 1)).toBeLessThan(0.1);
    });
    clock.advance(1_000_000_000n);
    await Promise.all(guests.map((disk) => disk.close()));
  });

  it('gives a guest no more than its limits, however idle it is', async () => {
    const clock = new ManualClock();
    const shared = sharedDisk(memoryDisk(SIZE), { clock });
    const disk = await open(shared.guest({ limits: { operationsPerSecond: 100 } }), { readOnly: true });
    let operations = 0;
    const ask = (): void => {
      disk.read(0, new HostVector(new Uint8Array(4096)), () => {
        operations++;
        if (clock.nowNs() < 10_000_000_000n) clock.setTimer(1n, ask);
      });
    };
    ask();
    clock.advance(10_000_000_000n);
    expect(operations).toBeGreaterThan(990);
    expect(operations).toBeLessThan(1015);
    clock.advance(1_000_000_000n);
    await disk.close();
  });

  it('is not kept by a guest that goes while it is taken back, or given back', async () => {
    const clock = new ManualClock();
    const slowly = (file: string) =>
      faultyDisk(fileDisk(file), { rules: [{ on: 'read', fault: { delayNs: 1000n } }], clock });
    const shared = sharedDisk(slowly(base), { clock });
    const move = async (change: () => Promise<void>, stays: BlockProvider, goes: BlockProvider) => {
      const request = read(stays, 0);
      const changed = change();
      // The other one is waited for, with the next backends of both opened.
      while (opened < 2) await new Promise((resolve) => setImmediate(resolve));
      await goes.close();
      clock.advance(1000n);
      // The file is read behind that.
      expect(await request).toBeUndefined();
      await changed;
    };
    let opened = 0;
    const counting = (source: BlockSource): BlockSource => ({
      ...source,
      open: async (context) => {
        const backend = await source.open(context);
        opened++;
        return backend;
      },
    });
    const [one, two] = [await open(shared.guest(), { readOnly: true }), await open(shared.guest(), { readOnly: true })];
    await move(() => shared.takeBack(counting(slowly(copy))), one, two);
    await (await fileDisk(base).open({ engine, logger: silentLogger, readOnly: false })).close();
    await one.close();
    await (await fileDisk(copy).open({ engine, logger: silentLogger, readOnly: false })).close();
  });

  it('ends at once for a guest whose requests wait for its limits', async () => {
    const clock = new ManualClock();
    const shared = sharedDisk(memoryDisk(SIZE), { clock });
    const disk = await open(shared.guest({ limits: { operationsPerSecond: 1 } }), { readOnly: true });
    const requests = Array.from({ length: 100 }, () => read(disk, 0));
    await disk.close();
    expect(new Set(await Promise.all(requests))).toEqual(new Set([undefined]));
  });

  it.each<[string, () => unknown, new () => Error]>([
    ['something that is no disk', () => sharedDisk('base.img' as unknown as BlockSource), TypeError],
    ['a depth of 0', () => sharedDisk(memoryDisk(512), { depth: 0 }), RangeError],
    ['a misspelled option', () => sharedDisk(memoryDisk(512), { dept: 1 } as object), TypeError],
    ['a weight of 0', () => sharedDisk(memoryDisk(512)).guest({ weight: 0 }), RangeError],
    ['limits that are none', () => sharedDisk(memoryDisk(512)).guest({ limits: { bytesPerSecond: 0 } }), RangeError],
  ])('refuses %s', (_what, make, error) => {
    expect(make).toThrow(error);
  });

  it('is refused to a guest that would write to it', async () => {
    const writing = open(sharedDisk(memoryDisk(SIZE)).guest(), { copyOnWrite: undefined });
    await expect(writing).rejects.toMatchObject({
      code: 'ERR_DISK_IMAGE',
      cure: expect.stringMatching(/copyOnWrite/) as string,
    });
  });
});
