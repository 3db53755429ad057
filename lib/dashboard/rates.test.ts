import { describe, expect, it } from 'vitest';
import type { Stats } from '../control/index.js';
import { formatBytes, formatCount } from './page/format.js';
import { History } from './page/history.js';
import type { WatchedStats } from './page/protocol.js';
import { ratesOf } from './page/rates.js';

// What a machine sends is what the page takes it for: held by the types.
const sent = (stats: Stats): WatchedStats => stats;

interface Changes {
  readonly atMs: number;
  readonly delivered?: number;
  readonly lagMs?: number;
  readonly phase?: string;
  readonly io?: number;
  readonly pages?: number;
  readonly buckets?: readonly number[];
  readonly readBytes?: number;
  readonly discards?: number;
}

function look({ atMs, delivered = 0, lagMs = 0, phase = 'nominal', io = 0, ...more }: Changes): WatchedStats {
  const { pages = 0, buckets = [0, 0], readBytes = 0, discards = 0 } = more;
  return sent({
    state: 'running',
    atMs,
    cpus: [
      { id: 0, exits: 4 * io, byReason: { io, mmio: 2 * io }, counters: {} },
      { id: 1, exits: io, byReason: { io }, counters: {} },
    ],
    memoryBytes: 2 ** 20,
    devices: [
      {
        id: 'root',
        class: 'block',
        functions: {
          read: { by: 'native', calls: readBytes / 512, errors: 0, ns: 0, bytes: readBytes },
          discard: { by: 'emulated', calls: discards, errors: 1, ns: 0, bytes: 0 },
        },
      },
    ],
    pit: { delivered, lagMs, phase, programmedHz: 250 },
    process: { cpuMs: atMs / 4, rssBytes: 1 },
    viewers: 0,
    writes: { pages, bucketBytes: 65536, buckets: [...buckets] },
  });
}

describe('rates', () => {
  it('are differences by the time between two looks', () => {
    const before = look({ atMs: 1000 });
    const now = look({
      atMs: 1500,
      delivered: 125,
      lagMs: 7,
      io: 10,
      pages: 50,
      buckets: [0, 50],
      readBytes: 1024,
      discards: 3,
    });
    expect(ratesOf(before, now)).toEqual({
      atMs: 1500,
      lagMs: 7,
      interruptsHz: 250,
      programmedHz: 250,
      phase: 'nominal',
      exits: 100,
      exitsByReason: { interrupted: 20, io: 40, mmio: 40 },
      pages: 100,
      buckets: [0, 100],
      bucketBytes: 65536,
      devices: [
        {
          id: 'root',
          class: 'block',
          native: { bytes: 2048, requests: 4 },
          emulated: { bytes: 0, requests: 6 },
          functions: [
            { name: 'read', by: 'native', bytes: 2048, requests: 4, errors: 0 },
            { name: 'discard', by: 'emulated', bytes: 0, requests: 6, errors: 1 },
          ],
        },
      ],
      cpuShare: 0.25,
    });
  });

  it('are none without time between, and never below nothing', () => {
    expect(ratesOf(look({ atMs: 1000 }), look({ atMs: 1000 }))).toBeUndefined();
    expect(ratesOf(look({ atMs: 1000, io: 9 }), look({ atMs: 2000, io: 1 }))?.exits).toBe(0);
  });

  it('do without what a machine does not tell', () => {
    const bare = (atMs: number): WatchedStats => ({ ...look({ atMs }), pit: null, devices: [], cpus: [] });
    const { writes: _none, ...now } = bare(2000);
    expect(ratesOf(bare(1000), now)).toMatchObject({ phase: 'nominal', interruptsHz: 0, buckets: [], pages: 0 });
  });
});

describe('the history', () => {
  it('keeps the last minute', () => {
    const history = new History();
    for (let atMs = 0; atMs <= 70_000; atMs += 1000) history.take(look({ atMs, io: atMs }));
    expect(history.rates[0]?.atMs).toBe(10_000);
    expect(history.latest?.atMs).toBe(70_000);
    expect(history.reasons()).toEqual(['interrupted', 'io', 'mmio']);
  });

  it('tells when time was caught up, as spans', () => {
    const history = new History();
    const phases = ['nominal', 'nominal', 'catch-up', 'catch-up', 'nominal', 'stand-down', 'catch-up'];
    for (const [at, phase] of phases.entries()) history.take(look({ atMs: 1000 * at, phase }));
    expect(history.phases()).toEqual([
      { phase: 'catch-up', fromMs: 1000, toMs: 3000 },
      { phase: 'stand-down', fromMs: 4000, toMs: 5000 },
      { phase: 'catch-up', fromMs: 5000, toMs: 6000 },
    ]);
  });

  it('begins anew with another process, and draws nothing over a time that nobody looked', () => {
    const history = new History();
    for (const atMs of [5000, 6000, 7000]) history.take(look({ atMs }));
    expect(history.take(look({ atMs: 20_000, io: 1000 }))).toBe(false);
    expect(history.rates.map(({ atMs }) => atMs)).toEqual([6000, 7000]);
    expect(history.take(look({ atMs: 100 }))).toBe(false);
    expect(history.rates).toEqual([]);
  });
});

it.each([
  [0, '0', '0 B'],
  [12.34, '12.3', '12.3 B'],
  [1500, '1.50 k', '1.46 KiB'],
  [123_456, '123 k', '121 KiB'],
  [2 ** 31, '2.15 G', '2 GiB'],
])('%d is shown as %s and %s', (value, count, bytes) => {
  expect([formatCount(value), formatBytes(value)]).toEqual([count, bytes]);
});
