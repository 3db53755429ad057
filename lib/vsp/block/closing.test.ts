import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { HostVector } from '../../memory/io-vector.js';
import { CLOSE_MS } from './closing.js';
import type { BlockBackend } from './contract.js';
import { ended } from './disk-model.js';
import { faultyDisk } from './faulty.js';
import { memoryDisk } from './memory.js';
import { BlockProvider } from './provider.js';
import type { BlockSource } from './source.js';
import { TestingEngine } from './testing-engine.js';

const SIZE = 64 * 1024;
const HOUR_NS = 3_600_000_000_000n;
const CLOSE_NS = BigInt(CLOSE_MS) * 1_000_000n;
const bytes = (length: number, value = 0) => new HostVector(new Uint8Array(length).fill(value));

/** A source whose backend is another one's with some methods changed, and notes in `log` what it is asked to write and when it is closed. */
function changed(source: BlockSource, log: string[], change: Partial<BlockBackend> = {}): BlockSource {
  return {
    ...source,
    async open(context) {
      const lower = await source.open(context);
      return {
        geometry: lower.geometry,
        read: (offset, data, done) => lower.read(offset, data, done),
        write: (offset, data, done) => {
          log.push(`write ${offset}`);
          lower.write!(offset, data, done);
        },
        flush: (done) => done(undefined),
        describe: () => lower.describe(),
        close: async () => {
          log.push('closed');
          await lower.close();
        },
        ...change,
      };
    },
  };
}

async function open(source: BlockSource, clock: ManualClock) {
  const logged: string[] = [];
  const logger = { log: (_level: string, message: string) => logged.push(message) };
  const disk = await BlockProvider.open(source, { id: 'data', engine: new TestingEngine(), logger, clock });
  return { disk, logged };
}

describe('the close of a disk whose backend does not answer', () => {
  it('gives up after a time, and closes the backend when it has answered after all', async () => {
    const clock = new ManualClock();
    const log: string[] = [];
    const source = faultyDisk(changed(memoryDisk(SIZE), log), {
      clock,
      rules: [{ on: 'write', nth: 1, fault: { delayNs: HOUR_NS } }],
    });
    const { disk, logged } = await open(source, clock);
    const asked = [
      ended((done) => disk.write(0, bytes(1024, 1), done)),
      // Waits for the one before, which it overlaps.
      ended((done) => disk.write(512, bytes(512, 2), done)),
    ];
    const closed = disk.close();
    clock.advance(CLOSE_NS - 1n);
    expect(disk.inspect().inFlight).toBe(2);
    clock.advance(1n);
    await expect(closed).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      message: 'disk data: given up after 30000 ms with 2 requests in its backend',
      cure: expect.stringContaining('stays locked'),
    });
    expect(await Promise.all(asked)).toMatchObject([{ code: 'closed' }, { code: 'closed' }]);
    expect(log).toEqual([]);
    expect(logged).toEqual(['disk data: given up after 30000 ms with 2 requests in its backend']);
    expect((await ended((done) => disk.read(0, bytes(512), done)))?.code).toBe('closed');

    clock.advance(HOUR_NS);
    await disk.released;
    // What was under way has happened; what waited for it never will.
    expect(log).toEqual(['write 0', 'closed']);
    expect(disk.inspect().inFlight).toBe(0);
    await expect(disk.close()).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
  });

  it('is as any other when the backend answers in time', async () => {
    const clock = new ManualClock();
    const log: string[] = [];
    const rules = [{ on: 'read', fault: { delayNs: CLOSE_NS - 1n } }] as const;
    const { disk, logged } = await open(faultyDisk(changed(memoryDisk(SIZE), log), { clock, rules }), clock);
    const asked = ended((done) => disk.read(0, bytes(512), done));
    const closed = disk.close();
    clock.advance(CLOSE_NS - 1n);
    await closed;
    await disk.released;
    expect(await asked).toBeUndefined();
    clock.advance(HOUR_NS);
    expect(log).toEqual(['closed']);
    expect(logged).toEqual([]);
  });

  it('gives up a close of the backend that hangs', async () => {
    const clock = new ManualClock();
    let end = (): void => undefined;
    const close = (): Promise<void> => new Promise((resolve) => (end = resolve));
    const { disk, logged } = await open(changed(memoryDisk(SIZE), [], { close }), clock);
    const closed = disk.close();
    await new Promise((resolve) => setImmediate(resolve));
    clock.advance(CLOSE_NS);
    await expect(closed).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    end();
    await disk.released;
    await new Promise((resolve) => setImmediate(resolve));
    expect(logged.at(-1)).toBe('disk data: the backend that was given up is closed');
  });

  it('ends although a change of the backend hangs', async () => {
    const clock = new ManualClock();
    const log: string[] = [];
    let end = (): void => undefined;
    let reached = (): void => undefined;
    const isLeft = new Promise<void>((resolve) => (reached = resolve));
    const deactivate = (): Promise<void> => {
      reached();
      return new Promise((resolve) => (end = resolve));
    };
    const { disk } = await open(changed(memoryDisk(SIZE), log, { deactivate }), clock);
    const stuck = disk.rebind(memoryDisk(SIZE));
    await isLeft;
    const held = ended((done) => disk.write(0, bytes(512), done));
    const closed = disk.close();
    clock.advance(CLOSE_NS);
    await expect(closed).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    expect(await held).toMatchObject({ code: 'closed' });
    end();
    await stuck;
    await disk.released;
    expect(log).toEqual(['closed']);
  });
});
