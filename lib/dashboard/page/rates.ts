/**
 * From counters to what is drawn: the difference of two looks at a machine, in events a second. Pure, so that it is tested without a browser.
 */
import type { WatchedStats } from './protocol.js';

export type ServedBy = 'native' | 'emulated';

export interface DeviceRates {
  readonly id: string;
  readonly class: string;
  /** By who does it, a second. */
  readonly native: { readonly bytes: number; readonly requests: number };
  readonly emulated: { readonly bytes: number; readonly requests: number };
  readonly functions: readonly {
    readonly name: string;
    readonly by: string;
    readonly bytes: number;
    readonly requests: number;
    /** Since the device was made. */
    readonly errors: number;
  }[];
}

/** What a machine did between two looks, a second where nothing else is said. */
export interface Rates {
  readonly atMs: number;
  readonly lagMs: number;
  readonly interruptsHz: number;
  readonly programmedHz: number;
  readonly phase: string;
  readonly exits: number;
  /** In the order of their names. */
  readonly exitsByReason: Readonly<Record<string, number>>;
  readonly pages: number;
  /** Pages a second, by place in guest memory; empty without a watch of writes. */
  readonly buckets: readonly number[];
  readonly bucketBytes: number;
  readonly devices: readonly DeviceRates[];
  /** CPU time of the machine's process, as a part of one CPU. */
  readonly cpuShare: number;
}

interface PitNumbers {
  readonly lagMs?: unknown;
  readonly delivered?: unknown;
  readonly programmedHz?: unknown;
  readonly phase?: unknown;
}

/** Undefined when no time has passed between the looks, or the counters are another machine's. */
export function ratesOf(before: WatchedStats, now: WatchedStats): Rates | undefined {
  const seconds = (now.atMs - before.atMs) / 1000;
  if (!(seconds > 0)) return undefined;
  // A counter that has gone back was begun anew, by a reset of the guest or a restore.
  const rate = (from: number, to: number): number => (to >= from ? (to - from) / seconds : 0);
  const [pit, pitBefore] = [pitOf(now), pitOf(before)];
  const reasons = sumReasons(now);
  const reasonsBefore = sumReasons(before);
  const writes = now.writes;
  const bucketsBefore = before.writes?.buckets;
  return {
    atMs: now.atMs,
    lagMs: pit.lagMs,
    interruptsHz: rate(pitBefore.delivered, pit.delivered),
    programmedHz: pit.programmedHz,
    phase: pit.phase,
    exits: rate(sumExits(before), sumExits(now)),
    exitsByReason: Object.fromEntries(
      Object.keys(reasons)
        .sort()
        .map((name) => [name, rate(reasonsBefore[name] ?? 0, reasons[name] ?? 0)]),
    ),
    pages: rate(before.writes?.pages ?? 0, writes?.pages ?? 0),
    buckets:
      writes === undefined || bucketsBefore === undefined
        ? []
        : writes.buckets.map((count, at) => rate(bucketsBefore[at] ?? 0, count)),
    bucketBytes: writes?.bucketBytes ?? 0,
    devices: devicesOf(before, now, rate),
    cpuShare: rate(before.process.cpuMs, now.process.cpuMs) / 1000,
  };
}

function pitOf({ pit }: WatchedStats): { lagMs: number; delivered: number; programmedHz: number; phase: string } {
  const { lagMs, delivered, programmedHz, phase } = (typeof pit === 'object' && pit !== null ? pit : {}) as PitNumbers;
  const number = (value: unknown): number => (typeof value === 'number' ? value : 0);
  return {
    lagMs: number(lagMs),
    delivered: number(delivered),
    programmedHz: number(programmedHz),
    phase: typeof phase === 'string' ? phase : 'nominal',
  };
}

function sumExits({ cpus }: Pick<WatchedStats, 'cpus'>): number {
  return cpus.reduce((sum, { exits }) => sum + exits, 0);
}

/** KVM gives no reason for returns that a signal brought about. */
function sumReasons({ cpus }: WatchedStats): Record<string, number> {
  const sums: Record<string, number> = { interrupted: sumExits({ cpus }) };
  for (const { byReason } of cpus) {
    for (const [name, count] of Object.entries(byReason)) {
      sums[name] = (sums[name] ?? 0) + count;
      sums['interrupted'] = (sums['interrupted'] ?? 0) - count;
    }
  }
  return sums;
}

function devicesOf(before: WatchedStats, now: WatchedStats, rate: (from: number, to: number) => number): DeviceRates[] {
  return now.devices.map((device) => {
    const old = before.devices.find(({ id }) => id === device.id)?.functions ?? {};
    const functions = Object.entries(device.functions).map(([name, { by, calls, bytes, errors }]) => ({
      name,
      by,
      requests: rate(old[name]?.calls ?? 0, calls),
      bytes: rate(old[name]?.bytes ?? 0, bytes),
      errors,
    }));
    const sumOf = (by: ServedBy): { bytes: number; requests: number } => {
      const own = functions.filter((each) => each.by === by);
      return {
        bytes: own.reduce((sum, { bytes }) => sum + bytes, 0),
        requests: own.reduce((sum, { requests }) => sum + requests, 0),
      };
    };
    return { id: device.id, class: device.class, native: sumOf('native'), emulated: sumOf('emulated'), functions };
  });
}
