/**
 * For tests, shipped: what every disk must do, whichever backend it stands on and however little that one can do. A
 * guest can't tell them apart; neither can these checks. Run them with any test runner:
 *
 *   for (const { name, run } of blockConformance) it(name, () => run(makeSubject));
 */
import { strict as assert } from 'node:assert';
import { silentLogger } from '../../base/logger.js';
import type { IoEngine } from '../../memory/io-engine.js';
import { HostVector } from '../../memory/io-vector.js';
import { BLOCK_FUNCTIONS, SECTOR_BYTES, type BlockService } from './contract.js';
import { checkAll, DiskModel, driveLoad, ended } from './disk-model.js';
import { faultyDisk } from './faulty.js';
import { BlockProvider, type BlockProviderOptions } from './provider.js';
import type { BlockSource } from './source.js';

/** A new disk, all zeroes, for one check. */
export interface ConformanceSubject {
  readonly source: BlockSource;
  readonly engine: IoEngine;
  /** What the device is opened with besides. */
  readonly options?: Partial<BlockProviderOptions>;
  /** Data that was flushed is there when the source is opened anew. Default true. */
  readonly persistent?: boolean;
  /** Makes the medium larger; missing where that can't be. */
  readonly grow?: (sizeBytes: number) => Promise<void>;
  readonly close?: () => Promise<void>;
}

/** `sizeBytes` is a multiple of 64 KiB. */
export type MakeSubject = (sizeBytes: number) => Promise<ConformanceSubject>;

export interface ConformanceCase {
  readonly name: string;
  readonly run: (make: MakeSubject) => Promise<void>;
}

const SIZE_BYTES = 1024 * 1024;
const SECTORS = SIZE_BYTES / SECTOR_BYTES;

interface Bench {
  readonly subject: ConformanceSubject;
  readonly disk: BlockProvider;
  readonly model: DiskModel;
}

async function withDisk(
  make: MakeSubject,
  body: (bench: Bench) => Promise<void>,
  change: { sizeBytes?: number; source?: (source: BlockSource) => BlockSource } = {},
): Promise<void> {
  const subject = await make(change.sizeBytes ?? SIZE_BYTES);
  try {
    const disk = await openDisk({ ...subject, source: change.source?.(subject.source) ?? subject.source });
    try {
      await body({ subject, disk, model: new DiskModel(disk.geometry.sizeBytes / SECTOR_BYTES) });
    } finally {
      await disk.close();
    }
  } finally {
    await subject.close?.();
  }
}

function openDisk(subject: ConformanceSubject, options: Partial<BlockProviderOptions> = {}): Promise<BlockProvider> {
  const { source, engine } = subject;
  return BlockProvider.open(source, { id: 'disk', engine, logger: silentLogger, ...subject.options, ...options });
}

/** The stamps of a model are written one sector at a time, all at once. */
async function writeEverySector(disk: BlockService, model: DiskModel): Promise<void> {
  const all = Array.from({ length: model.stamps.length }, (_, sector) =>
    ended((done) => disk.write(sector * SECTOR_BYTES, model.write(sector, 1).data, done)),
  );
  assert.deepEqual(new Set(await Promise.all(all)), new Set([undefined]));
}

const bytes = (length: number): HostVector => new HostVector(new Uint8Array(length));

export const blockConformance: readonly ConformanceCase[] = [
  {
    name: 'offers every function, a serial number and whole geometry',
    run: (make) =>
      withDisk(make, async ({ disk }) => {
        assert.deepEqual(Object.keys(disk.contract.functions), [...BLOCK_FUNCTIONS]);
        assert.match(disk.identify(), /^[\x20-\x7e]{1,20}$/);
        const { sizeBytes, blockBytes, physicalBlockBytes } = disk.geometry;
        assert.equal(sizeBytes, SIZE_BYTES);
        assert.equal(blockBytes, SECTOR_BYTES);
        assert.ok(physicalBlockBytes >= SECTOR_BYTES && Number.isInteger(Math.log2(physicalBlockBytes)));
        await Promise.resolve();
      }),
  },
  {
    name: 'begins with zeroes',
    run: (make) => withDisk(make, ({ disk, model }) => checkAll(disk, model)),
  },
  {
    name: 'agrees with a model under random requests, one at a time',
    run: (make) =>
      withDisk(make, async ({ disk, model }) => {
        await driveLoad(disk, model, { seed: 1, requests: 300, depth: 1 });
        await checkAll(disk, model);
      }),
  },
  ...[2, 3, 4].map((seed) => ({
    name: `agrees with a model under random overlapping requests in flight (seed ${seed})`,
    run: (make: MakeSubject) =>
      withDisk(
        make,
        async ({ disk, model }) => {
          await driveLoad(disk, model, { seed, requests: 1500, depth: 32 });
          await checkAll(disk, model);
        },
        // Small, so that nearly every request overlaps another.
        { sizeBytes: 64 * 1024 },
      ),
  })),
  {
    name: 'loses no neighbour when every sector is written at once',
    run: (make) =>
      withDisk(
        make,
        async ({ disk, model }) => {
          await writeEverySector(disk, model);
          await checkAll(disk, model);
        },
        { sizeBytes: 128 * 1024 },
      ),
  },
  {
    name: 'takes requests of the whole disk',
    run: (make) =>
      withDisk(make, async ({ disk, model }) => {
        assert.equal(await ended((done) => disk.write(0, model.write(0, SECTORS).data, done)), undefined);
        await checkAll(disk, model);
        model.zero(1, SECTORS - 2);
        const length = SIZE_BYTES - 2 * SECTOR_BYTES;
        assert.equal(await ended((done) => disk.writeZeroes(SECTOR_BYTES, length, true, done)), undefined);
        model.discard(0, SECTORS);
        assert.equal(await ended((done) => disk.discard(0, SIZE_BYTES, done)), undefined);
        await checkAll(disk, model);
      }),
  },
  {
    name: 'refuses what is outside, or in no whole sectors, and changes nothing',
    run: (make) =>
      withDisk(make, async ({ disk, model }) => {
        const wrong: [number, number][] = [
          [SIZE_BYTES, 512],
          [SIZE_BYTES - 512, 1024],
          [-512, 512],
          [1, 512],
          [0, 511],
          [2 ** 53, 512],
          [Number.NaN, 512],
        ];
        for (const [offset, length] of wrong) {
          const codes = await Promise.all([
            ended((done) => disk.read(offset, bytes(length), done)),
            ended((done) => disk.write(offset, bytes(length), done)),
            ended((done) => disk.discard(offset, length, done)),
            ended((done) => disk.writeZeroes(offset, length, false, done)),
          ]);
          assert.deepEqual([...new Set(codes.map((error) => error?.code))], ['out-of-range'], `${offset}, ${length}`);
        }
        assert.equal(await ended((done) => disk.read(SIZE_BYTES, bytes(0), done)), undefined);
        await checkAll(disk, model);
      }),
  },
  {
    name: 'keeps what was flushed when it is opened anew',
    run: (make) =>
      withDisk(make, async ({ subject, disk, model }) => {
        if (subject.persistent === false) return;
        await driveLoad(disk, model, { seed: 5, requests: 200, depth: 8 });
        assert.equal(await ended((done) => disk.flush(done)), undefined);
        await disk.close();
        const again = await openDisk(subject, { readOnly: true });
        try {
          await checkAll(again, model);
          const error = await ended((done) => again.write(0, bytes(512), done));
          assert.equal(error?.code, 'read-only');
          assert.equal(await ended((done) => again.flush(done)), undefined);
        } finally {
          await again.close();
        }
      }),
  },
  {
    name: 'keeps neighbours whole when changes of the medium fail',
    run: (make) =>
      withDisk(
        make,
        async ({ disk, model }) => {
          const only = { seed: 6, requests: 800, depth: 16, mayFail: true };
          await driveLoad(disk, model, only);
          await checkAll(disk, model);
        },
        {
          sizeBytes: 256 * 1024,
          source: (source) =>
            faultyDisk(source, {
              rules: [
                { on: 'write', every: 11, fault: { error: 'io' } },
                { on: 'write', every: 13, fault: { stopAfterBytes: SECTOR_BYTES } },
              ],
            }),
        },
      ),
  },
  {
    name: 'tells of a larger medium and uses it',
    run: (make) =>
      withDisk(make, async ({ subject, disk, model }) => {
        if (!subject.grow) return;
        await writeEverySector(disk, model);
        const told: number[] = [];
        const stop = disk.onGeometry(({ sizeBytes }) => told.push(sizeBytes));
        await subject.grow(SIZE_BYTES + 64 * 1024);
        await disk.refreshGeometry();
        assert.deepEqual(told, [SIZE_BYTES + 64 * 1024]);
        stop();
        assert.equal(disk.geometry.sizeBytes, SIZE_BYTES + 64 * 1024);
        const larger = new DiskModel(disk.geometry.sizeBytes / SECTOR_BYTES);
        larger.stamps.set(model.stamps);
        await checkAll(disk, larger);
        assert.equal(await ended((done) => disk.write(SIZE_BYTES, larger.write(SECTORS, 8).data, done)), undefined);
      }),
  },
  {
    name: 'ends everything with an answer when it is closed',
    run: (make) =>
      withDisk(make, async ({ disk }) => {
        const before = Array.from({ length: 20 }, () => ended((done) => disk.write(0, bytes(1024), done)));
        const closed = disk.close();
        const after = await ended((done) => disk.read(0, bytes(512), done));
        assert.equal(after?.code, 'closed');
        assert.deepEqual(new Set(await Promise.all(before)), new Set([undefined]));
        await closed;
        await disk.close();
      }),
  },
];
