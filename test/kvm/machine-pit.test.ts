/** A machine's time by the PIT on real KVM: a guest that counts its ticks, stopped for a while, under each policy. */
import { readdirSync, readFileSync } from 'node:fs';
import { constants, getPriority } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { Machine } from '../../lib/machine/index.js';
import type { PitEvents, PitOptions } from '../../lib/time/index.js';
import { makeGuest, startGuest, until } from '../lib/machine.js';

/** 100 Hz, a rate that every stage keeps up with. */
const COUNT = 11932;
const PAUSE_MS = 1000;

const ticking = (pit: PitOptions = {}) =>
  startGuest('pit-ticks', { pit, defines: { COUNT, PIN: 255, STOP: 0x7fff_ffff } });

/** The ticks whose end of interrupt the guest has written, by its own count. */
function guestTicks(vm: Machine): number {
  return new DataView(vm.memory.read(0x604, 4).buffer).getUint32(0, true);
}

/** Processes of the system with that name, kernel threads among them; in a container there are none to be seen. */
function threadsOfSystemNamed(name: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === name;
      } catch {
        return false; // no process, or gone
      }
    });
}

/** Whether this process has CAP_SYS_NICE (linux/capability.h, 23), which root in a container may lack. */
function mayRaisePriority(): boolean {
  const [, effective] = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))!;
  return ((BigInt(`0x${effective}`) >> 23n) & 1n) === 1n;
}

const next = <K extends keyof PitEvents>(vm: Machine, name: K) =>
  new Promise<PitEvents[K]>((resolve) => {
    const remove = vm.pit.on(name, (event) => {
      remove();
      resolve(event);
    });
  });

/** Runs until the guest ticks at its rate, then stops it for PAUSE_MS; resolves to the ticks that it was owed already. */
async function interrupted(vm: Machine, clock?: 'count' | 'freeze', pauseMs = PAUSE_MS): Promise<number> {
  await until(() => vm.pit.status().delivered >= 10);
  const { owed } = vm.pit.status();
  await vm.pause(clock === undefined ? {} : { clock });
  await delay(pauseMs); // the disturbance itself
  return owed;
}

describe('a guest that was stopped', () => {
  const long = { timeout: 180_000 };
  it.each([100, 1000, 10_000])('for %i ms gets its ticks back, and then its own rate', long, async (pauseMs) => {
    const pauseTicks = pauseMs / 10;
    const vm = await ticking();
    // On a busy host the guest may lose a tick at any time: there may be more episodes than the one for the pause.
    const episodes = { began: 0, ended: 0 };
    vm.pit.on('catch-up', () => episodes.began++);
    vm.pit.on('nominal', () => episodes.ended++);
    const owedBefore = await interrupted(vm, 'count', pauseMs);
    const before = guestTicks(vm);
    const startedNs = process.hrtime.bigint();
    const elapsedTicks = () => Number(process.hrtime.bigint() - startedNs) / 1e9 / (COUNT / 1193182);
    await vm.resume();
    await until(() => {
      const { causes, phase, lagMs, firingHz } = vm.pit.status();
      // What a pause took is rounded down to ticks, and one at each end may count as the guest's own.
      return (
        causes.paused.ticks >= 0.8 * pauseTicks - 2 && phase === 'nominal' && Math.abs(lagMs) < 30 && firingHz < 101
      );
    });
    const atLeast = 0.8 * pauseTicks + elapsedTicks() - 3;
    await vm.pause();
    const status = vm.pit.status();
    expect(guestTicks(vm)).toBe(status.acknowledged);
    // What the pause took, what went by since, and, on a busy host, what had been lost before.
    expect(guestTicks(vm) - before).toBeGreaterThan(atLeast);
    expect(guestTicks(vm) - before).toBeLessThan(owedBefore + 1.2 * pauseTicks + 5 + elapsedTicks());
    expect(status.forgiven).toBe(0);
    expect(episodes.began).toBeGreaterThan(0);
    expect(episodes.ended).toBeGreaterThan(0);
    expect(status.episodes).toBeGreaterThanOrEqual(episodes.began); // one of slowing down counts as well
  });

  it("has KVM's worker fire with precedence once it is caught up, where this process may say so", async (context) => {
    const vm = await ticking();
    await interrupted(vm);
    await vm.resume();
    await until(() => vm.pit.status().episodes > 0);
    const workers = threadsOfSystemNamed(`kvm-pit/${process.pid}`);
    if (workers.length === 0) context.skip('kernel threads are not to be seen here: no /proc/PID of kvm-pit');
    const wanted = mayRaisePriority() ? constants.priority.PRIORITY_HIGHEST : 0;
    expect(workers.map((pid) => getPriority(pid))).toEqual(workers.map(() => wanted));
  });

  it('loses them under discard', async () => {
    const vm = await ticking({ policy: 'discard' });
    await interrupted(vm);
    const before = guestTicks(vm);
    await vm.resume();
    await until(() => vm.pit.status().forgiven > 80);
    expect(vm.pit.status()).toMatchObject({ policy: 'discard', episodes: 0 });
    await vm.pause();
    expect(guestTicks(vm) - before).toBeLessThan(80);
  });

  it('is owed nothing when its clock was frozen', async () => {
    const vm = await ticking();
    await interrupted(vm, 'freeze');
    await vm.resume();
    const { delivered } = vm.pit.status();
    await until(() => vm.pit.status().delivered >= delivered + 20);
    expect(vm.pit.status().causes.paused.ticks).toBe(0);
  });
});

describe('vm.pit', () => {
  it('is there from the start to after the end, and in inspect()', async () => {
    const vm = await makeGuest('pit-ticks', { defines: { COUNT, PIN: 255, STOP: 5 } });
    expect(vm.pit.status()).toMatchObject({ programmedHz: 0, owed: 0 });
    vm.pit.timeScale = 2;
    await vm.start();
    await until(() => vm.pit.status().programmedHz > 0);
    expect(vm.pit.status().programmedHz).toBeCloseTo(100, 0);
    expect(vm.pit.timeScale).toBe(2);
    expect(vm.inspect()).toMatchObject({ pit: { policy: 'catch-up', timeScale: 2 } });
    await vm.close();
    expect(vm.pit.status().programmedHz).toBeCloseTo(100, 0);
    expect(() => (vm.pit.timeScale = 11)).toThrow(RangeError);
  });

  it.each<[string, object, ErrorConstructor]>([
    ['a policy that there is not', { policy: 'hurry' }, TypeError],
    ['a tolerance above the threshold', { toleranceMs: 20, enterMs: 10 }, RangeError],
    ['NaN', { maxRateHz: Number.NaN }, TypeError],
    ['a misspelled name', { maxRatesHz: 100 }, TypeError],
  ])('refuses %s', async (_, pit, type) => {
    await expect(makeGuest('pit-ticks', { pit, defines: { COUNT, PIN: 255, STOP: 5 } })).rejects.toThrow(type);
  });

  it('runs a guest that keeps time by ticks twice as fast, exactly counted', async () => {
    const vm = await ticking({ timeScale: 2 });
    const isSteady = () => Math.abs(vm.pit.status().lagMs) < 30;
    await until(() => vm.pit.status().delivered >= 10 && isSteady());
    const [startedMs, before] = [performance.now(), guestTicks(vm)];
    await until(() => guestTicks(vm) >= before + 200 && isSteady());
    const hostTicks = (performance.now() - startedMs) / 10;
    const guests = guestTicks(vm) - before;
    expect(vm.pit.status().nominalHz).toBeCloseTo(200, 0);
    // Within what a lag of 30 ms at either end is worth.
    expect(Math.abs(guests - 2 * hostTicks)).toBeLessThan(10);
  });

  it("measures by the guest's own count in its memory when it is told where that is", async () => {
    const vm = await ticking({ feedback: { gpa: 0x604, widthBytes: 4, rateHz: 'programmed' } });
    await interrupted(vm);
    const before = guestTicks(vm);
    await vm.resume();
    await until(() => vm.pit.status().causes.paused.ticks > 80 && vm.pit.status().lagMs < 30);
    expect(vm.pit.status()).toMatchObject({ feedback: 'guest-memory', feedbackFault: undefined, feedbackJumps: 0 });
    expect(guestTicks(vm) - before).toBeGreaterThan(80);
  });

  it.each([
    ['bios-dos', 0xffff],
    ['100hz', COUNT],
    ['250hz', 4773],
    ['1000hz', 1193],
  ])('takes a guest for the kind %s by what it programs', async (profile, count) => {
    const vm = await startGuest('pit-ticks', { defines: { COUNT: count, PIN: 255, STOP: 0x7fff_ffff } });
    // Between the control word and the count the channel still has that of power-on: it follows.
    await until(() => vm.pit.status().profile === profile);
    expect(vm.pit.status().programmedHz).toBeCloseTo(1193182 / count, 1);
  });

  it('lets the policy be replaced while the guest runs, and goes on when one throws', async () => {
    const vm = await ticking();
    await until(() => vm.pit.status().delivered >= 5);
    const fault = next(vm, 'policy-fault');
    vm.pit.setPolicy(() => {
      throw new Error('no idea');
    });
    expect((await fault).fault).toContain('no idea');
    vm.pit.setPolicy('catch-up');
    const { delivered } = vm.pit.status();
    await until(() => vm.pit.status().delivered >= delivered + 10);
    expect(vm.pit.status()).toMatchObject({ policy: 'catch-up', policyFault: undefined });
  });
});
