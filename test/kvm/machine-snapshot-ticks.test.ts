/**
 * The tick ledger of whole machines over save and restore, in each way with the time between: what was owed before and what has come
 * due since is what the guest has taken, what it was forgiven and what it is still owed. The guest counts for itself.
 */
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { hostClock } from '../../lib/base/clock.js';
import type { Machine } from '../../lib/machine/index.js';
import type { PitStatus } from '../../lib/time/index.js';
import { startGuest, untilCalmly } from '../lib/machine.js';
import { copyWithState } from '../lib/snapshot-samples.js';
import { MEMORIES, MODES, restore, SHORTEST, snapshotFolder } from '../lib/snapshots.js';

/** Of test/guests/pit-halts.S: ticks that it has begun to take, and those that it has ended. */
const TICKS = 0x600;
const ACKED = 0x604;
/** Of the PIT's 1193182 Hz: 250 a second. */
const COUNT = 4773;
const PERIOD_NS = (COUNT * 1e9) / 1_193_182;
const GAP_NS = 1_000_000_000n;

const u32 = (vm: Machine, gpa: number): number => new DataView(vm.memory.read(gpa, 4).buffer).getUint32(0, true);

/** A copy of a snapshot that is older by the gap. */
function aged(dir: string): string {
  const copy = `${dir}-aged`;
  let clocks = 0;
  copyWithState(dir, copy, ({ type, data }) => {
    if (type !== 'kvm-clock') return;
    const realtimeNs = (data as { realtimeNs: { $n: string } }).realtimeNs;
    realtimeNs.$n = String(BigInt(realtimeNs.$n) - GAP_NS);
    clocks++;
  });
  expect(clocks).toBe(1);
  return copy;
}

/** Paused: what the ledger says, held against itself and what the guest has counted. */
function ledger(vm: Machine): PitStatus {
  const status = vm.pit.status();
  const { expected, delivered, forgiven, owed } = status;
  expect(expected).toBe(delivered + forgiven + owed);
  // It may stand in its handler.
  expect(delivered).toBeGreaterThanOrEqual(u32(vm, ACKED));
  expect(delivered).toBeLessThanOrEqual(u32(vm, TICKS));
  return status;
}

async function paused(vm: Machine): Promise<PitStatus> {
  await vm.pause({ clock: 'freeze' });
  return ledger(vm);
}

/** Takes so many more ticks. */
async function takes(vm: Machine, ticks: number): Promise<void> {
  const from = u32(vm, ACKED);
  await untilCalmly(() => u32(vm, ACKED) >= from + ticks);
}

const ticksIn = (ns: bigint): number => Number(ns) / PERIOD_NS;

describe.each([
  ['PIC', 255, MODES],
  ['IO-APIC', 2, [SHORTEST]],
] as const)('ticks through the %s', (_name, pin, modes) => {
  it.each(['freeze', 'step', 'catch-up'] as const)('are conserved, clock: %s', { timeout: 120_000 }, async (clock) => {
    const folder = snapshotFolder();
    const vm = await startGuest('pit-halts', { mode: 'long64', defines: { COUNT, PIN: pin } });
    for (const [round, mode] of modes.entries()) {
      const memory = MEMORIES[round % MEMORIES.length]!;
      await takes(vm, 25);
      const dir = path.join(folder, mode);
      const savingNs = hostClock.nowNs();
      await vm.snapshot(dir, { mode, maxPauseMs: 20_000 });

      const reference = await restore(dir, { clock: 'freeze', memory, start: false });
      const saved = ledger(reference);
      await reference.close();
      const startNs = hostClock.nowNs();
      const clone = await restore(aged(dir), { clock, memory, start: false });
      const first = ledger(clone);
      const restoredNs = hostClock.nowNs();
      await clone.resume();
      const resumedNs = hostClock.nowNs();
      await takes(clone, 25);
      if (clock === 'catch-up') await untilCalmly(() => clone.pit.status().phase === 'catch-up');
      const pausingNs = hostClock.nowNs();
      const then = await paused(clone);
      const endNs = hostClock.nowNs();

      // What came due is what the time was, on the host's clock; a rate follows the period, so a tick on either side.
      const due = then.expected - first.expected;
      expect(due).toBeGreaterThanOrEqual(Math.floor(ticksIn(pausingNs - resumedNs)) - 1);
      expect(due).toBeLessThanOrEqual(Math.ceil(ticksIn(endNs - startNs)) + 1);
      expect(first.owed + due).toBe(then.delivered - first.delivered + (then.forgiven - first.forgiven) + then.owed);
      // The gap's: what was made up, and the host's own time since the save.
      const gapTicks = {
        delivered: first.delivered - saved.delivered,
        forgiven: first.forgiven - saved.forgiven,
        owed: first.owed - saved.owed,
      };
      const most = Math.ceil(ticksIn(GAP_NS + restoredNs - savingNs)) + 1;
      const [told, silent] = clock === 'catch-up' ? (['owed', 'forgiven'] as const) : (['forgiven', 'owed'] as const);
      expect(gapTicks.delivered).toBe(0);
      // Whole periods are forgiven: the fraction that is left may end one that had begun.
      if (clock === 'step') expect(gapTicks[silent]).toBeOneOf([0, 1]);
      else expect(gapTicks[silent]).toBe(0);
      if (clock === 'freeze') expect(gapTicks[told]).toBe(0);
      else expect(gapTicks[told]).toBeGreaterThanOrEqual(Math.floor(ticksIn(GAP_NS)) - 1);
      expect(gapTicks[told]).toBeLessThanOrEqual(most);
      expect(then.forgiven).toBe(first.forgiven);

      // Once more, in the middle of it, by what was owed at this moment.
      const next = path.join(folder, `${mode}-next`);
      await clone.snapshot(next, { mode: 'paused' });
      await clone.close();
      const again = await restore(next, { clock: 'freeze', memory, start: false });
      const { expected, delivered, forgiven, owed } = ledger(again);
      expect({ expected, delivered, forgiven, owed }).toEqual({
        expected: then.expected,
        delivered: then.delivered,
        forgiven: then.forgiven,
        owed: then.owed,
      });
      await again.resume();
      await untilCalmly(() => again.pit.status().phase === 'nominal' && u32(again, ACKED) > delivered + 25);
      const last = await paused(again);
      expect(last.forgiven).toBe(then.forgiven);
      expect(last.owed).toBeLessThan(Math.max(25, first.owed));
      await again.close();
    }
    // The machine itself was held by each, and forgave nothing.
    expect((await paused(vm)).forgiven).toBe(0);
  });
});
