/** The rate limits of one guest's disk: they are the device's, whatever is behind it. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { HostVector } from '../../memory/io-vector.js';
import type { TrafficLimits } from '../sharing/budget.js';
import type { BlockError } from './contract.js';
import { memoryDisk } from './memory.js';
import { BlockProvider } from './provider.js';
import { TestingEngine } from './testing-engine.js';

const MS = 1_000_000n;
const engine = new TestingEngine();

async function rig(limits: TrafficLimits) {
  const clock = new ManualClock();
  const disk = await BlockProvider.open(memoryDisk('1MiB'), { id: 'a', engine, logger: silentLogger, clock, limits });
  onTestFinished(() => disk.close());
  const ends: (BlockError['code'] | 'done')[] = [];
  const done = (error: BlockError | undefined) => void ends.push(error?.code ?? 'done');
  const read = (bytes = 4096) => disk.read(0, new HostVector(new Uint8Array(bytes)), done);
  return { clock, disk, ends, done, read };
}

describe('the limits of a disk', () => {
  it('make requests wait, and show how many', async () => {
    const { clock, disk, ends, read } = await rig({ operationsPerSecond: 100, operationsBurst: 2 });
    for (let each = 0; each < 10; each++) read();
    expect(ends).toHaveLength(2);
    expect(disk.inspect()).toMatchObject({ inFlight: 0, paced: 8 });
    expect(disk.contract.limits).toEqual({ operationsPerSecond: 100, operationsBurst: 2 });
    // The first of them when the bucket is not empty any more.
    clock.advance(41n * MS);
    expect(ends).toHaveLength(7);
    clock.advance(1000n * MS);
    expect(ends).toEqual(Array.from({ length: 10 }, () => 'done'));
    // What the disk costs is not what the limit costs.
    expect(disk.contract.functions['read']).toMatchObject({ calls: 10, ns: 0 });
  });

  it('count bytes of what moves data, and nothing of a discard or of what is refused', async () => {
    const { clock, disk, ends, done, read } = await rig({ bytesPerSecond: 1_000_000, bytesBurst: 512 });
    disk.discard(0, 1024 * 1024, done);
    disk.writeZeroes(0, 2 ** 40, false, done);
    disk.write(0, new HostVector(new Uint8Array(500 * 1024)), done);
    read();
    expect(ends).toEqual(['done', 'out-of-range', 'done']);
    clock.advance(500n * MS);
    expect(ends).toHaveLength(3);
    clock.advance(13n * MS);
    expect(ends).toHaveLength(4);
    clock.advance(1000n * MS);
    disk.writeZeroes(0, 512 * 1024, false, done);
    read();
    expect(ends).toHaveLength(5);
    clock.advance(530n * MS);
    expect(ends).toHaveLength(6);
  });

  it('outlive a rebind, which does not wait for them', async () => {
    const { clock, disk, ends, read } = await rig({ operationsPerSecond: 1, operationsBurst: 1 });
    for (let each = 0; each < 3; each++) read();
    await disk.rebind(memoryDisk('1MiB'));
    expect(ends).toHaveLength(1);
    clock.advance(999n * MS);
    expect(ends).toHaveLength(2);
    expect(disk.contract).toMatchObject({ rebinds: 1, limits: { operationsPerSecond: 1 } });
  });

  it('keep nobody who wants no answer any more: a reset, or the end', async () => {
    const { disk, ends, read } = await rig({ operationsPerSecond: 0.001, operationsBurst: 1 });
    for (let each = 0; each < 3; each++) read();
    disk.abandon();
    expect(ends).toEqual(['done', 'closed', 'closed']);
    // It cost nothing, and what is owed stays.
    read();
    expect(disk.inspect()).toMatchObject({ inFlight: 0, paced: 1 });
    await disk.close();
    expect(ends).toEqual(['done', 'closed', 'closed', 'closed']);
    expect(disk.contract.functions['read']).toMatchObject({ calls: 1 });
  });
});
