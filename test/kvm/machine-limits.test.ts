/**
 * Limits of disks and nics under guests on real KVM: what a guest may do is what the clock has allowed, over a rebind and a restore
 * too. The devices' clock stands still until the test moves it, so nothing here depends on how fast anything is.
 */
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../lib/base/clock.js';
import type { Machine } from '../../lib/machine/index.js';
import { memoryDisk } from '../../lib/vsp/index.js';
import { startGuest, until } from '../lib/machine.js';
import { BACK, echoesOf, FRAME, isDriven, nicGuest, ownRuntimeFolder, TestNetwork } from '../lib/nic-guest.js';
import { restore, snapshotFolder } from '../lib/snapshots.js';

ownRuntimeFolder();

const TAKEN = 0x70000;
const SECOND = 1_000_000_000n;
const READS = 40;

interface Lent {
  readonly paced: number;
  readonly limiter: Record<'send' | 'receive', { readonly waiting: number; readonly dropped: number } | undefined>;
}

const lent = (vm: Machine, id: string): Lent =>
  (vm.inspect() as unknown as { lent: { devices: Record<string, Lent> } }).lent.devices[id]!;
const taken = (vm: Machine): number => new DataView(vm.memory.read(TAKEN, 4).buffer).getUint32(0, true);

/**
 * A request passes while the bucket is not in debt, so the first one behind the burst passes at once; half an interval on, each whole
 * interval lets one more pass, whatever rounding does.
 */
const HALF = SECOND / 20n;

/** The guest has done what it may, and its next request waits. */
async function held(vm: Machine): Promise<number> {
  await until(() => lent(vm, 'disk').paced === 1);
  return taken(vm);
}

const readingGuest = (clock: ManualClock, limits: object, reads = READS) => ({
  mode: 'long64' as const,
  clock,
  defines: { DATA: 0x60000, TAKEN, READS: reads },
  disks: [{ id: 'disk', backend: memoryDisk('1MiB'), limits }],
});

describe('a disk with limits', () => {
  it.each([
    ['operations', { operationsPerSecond: 10, operationsBurst: 5 }],
    ['bytes', { bytesPerSecond: 5120, bytesBurst: 2560 }],
    ['both, the tighter one', { operationsPerSecond: 1000, bytesPerSecond: 5120, bytesBurst: 2560 }],
  ])('lets pass what the time allows: %s', async (_what, limits) => {
    const clock = new ManualClock();
    const vm = await startGuest('virtio-blk-reads', readingGuest(clock, limits));
    expect(await held(vm)).toBe(5);
    clock.advance(HALF);
    await until(() => taken(vm) === 6);
    const burst = await held(vm);
    expect(burst).toBe(6);
    for (let step = 1; step <= 10; step++) {
      clock.advance(SECOND / 10n);
      await until(() => taken(vm) === burst + step);
      expect(await held(vm)).toBe(burst + step);
    }
    // No more than the burst is saved up, however long it is.
    clock.advance(1000n * SECOND);
    await until(() => taken(vm) >= burst + 15);
    const after = (await held(vm)) - (burst + 10);
    // The one that had waited, and the burst.
    expect([5, 6]).toContain(after);
  });

  it('keeps them over a rebind and a restore, with nothing saved up by either', async () => {
    const limits = { operationsPerSecond: 10, operationsBurst: 1 };
    const clock = new ManualClock();
    const vm = await startGuest('virtio-blk-reads', readingGuest(clock, limits, 12));
    await held(vm);
    clock.advance(HALF);
    await until(() => taken(vm) === 2);
    const first = await held(vm);
    await vm.device('disk').rebind(memoryDisk('1MiB'));
    expect(await held(vm)).toBe(first);
    clock.advance(SECOND / 10n);
    await until(() => taken(vm) === first + 1);
    expect(await held(vm)).toBe(first + 1);

    const dir = path.join(snapshotFolder(), 'snap');
    await vm.snapshot(dir, { mode: 'paused' });
    const later = new ManualClock();
    const clone = await restore(dir, { hostClock: later });
    expect(clone.device('disk').contract).toMatchObject({ limits });
    await held(clone);
    later.advance(HALF);
    await until(() => taken(clone) > first + 2);
    const cloned = await held(clone);
    for (const [machine, time, from] of [
      [vm, clock, await held(vm)],
      [clone, later, cloned],
    ] as const) {
      for (let done = from + 1; done <= 12; done++) {
        time.advance(SECOND / 10n);
        await until(() => taken(machine) === done);
        if (done < 12) expect(await held(machine)).toBe(done);
      }
      expect(await machine.wait()).toEqual({ reason: 'debug-exit', code: 0x21 });
    }
  });
});

describe('a nic with limits', () => {
  const limited = (network: TestNetwork, clock: ManualClock, limits: object) => {
    const guest = nicGuest(network);
    return { ...guest, clock, nics: [{ ...guest.nics[0]!, limits }] };
  };
  const waits = (vm: Machine, way: 'send' | 'receive'): number => lent(vm, 'net0').limiter[way]!.waiting;

  it.each([
    ['receive', { receive: { operationsPerSecond: 10, operationsBurst: 2 } }],
    ['send', { send: { bytesPerSecond: 600, bytesBurst: 120 } }],
  ] as const)('lets pass what the time allows, the rest waits: %s', async (way, limits) => {
    const clock = new ManualClock();
    const network = new TestNetwork();
    const vm = await startGuest('virtio-net', limited(network, clock, limits));
    await until(() => isDriven(vm));
    const frames = 8;
    for (let each = 0; each < frames; each++) network.last.host.receive([{ bytes: FRAME }]);
    // What a guest sends too fast holds its queue; what comes for it too fast waits.
    const waiting = (done: number): number => (way === 'send' ? Math.min(1, frames - done) : frames - done);
    const holds = async (done: number): Promise<void> => {
      const echoes = (): number => echoesOf(network).length;
      await until(() => echoes() > done || (echoes() === done && waits(vm, way) === waiting(done)));
      expect(echoes()).toBe(done);
    };
    await holds(2);
    clock.advance(HALF);
    for (let done = 3; done <= frames; done++) {
      await holds(done);
      clock.advance(SECOND / 10n);
    }
    for (const echo of echoesOf(network)) expect(echo).toEqual(BACK);
    expect(lent(vm, 'net0').limiter[way]!.dropped).toBe(0);
  });
});
