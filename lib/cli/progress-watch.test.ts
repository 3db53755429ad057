/** The watch over a guest's first sign of life, on a clock moved by hand, and its words for CPUs. */
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { describeCpu, ProgressWatch, stalledCpus } from './progress-watch.js';

const SECOND_NS = 1_000_000_000n;

function watch(limitMs = 10_000) {
  const clock = new ManualClock();
  const stalls: bigint[] = [];
  const watched = new ProgressWatch(clock, limitMs, () => stalls.push(clock.nowNs()));
  watched.start();
  return { clock, stalls, watched };
}

describe('the watch', () => {
  it('tells once that nothing came for the limit', () => {
    const { clock, stalls } = watch();
    clock.advance(9n * SECOND_NS);
    expect(stalls).toEqual([]);
    clock.advance(100n * SECOND_NS);
    expect(stalls).toEqual([10n * SECOND_NS]);
  });

  it('counts from the last progress', () => {
    const { clock, stalls, watched } = watch();
    for (let second = 0; second < 50; second++) {
      clock.advance(SECOND_NS);
      watched.progress();
    }
    expect(stalls).toEqual([]);
    clock.advance(10n * SECOND_NS);
    expect(stalls).toHaveLength(1);
  });

  it.each(['alive', 'stop'] as const)('is over after %s', (how) => {
    const { clock, stalls, watched } = watch();
    watched[how]();
    clock.advance(1000n * SECOND_NS);
    expect(stalls).toEqual([]);
  });

  it('of 0 never tells', () => {
    const { clock, stalls } = watch(0);
    clock.advance(100_000n * SECOND_NS);
    expect(stalls).toEqual([]);
  });

  it('takes a time in which this process was stopped for one slice of it', () => {
    // The timer of a stopped process fires once, late: a clock whose timers fire only when they are asked to.
    const timers: (() => void)[] = [];
    const stopped = {
      nowNs: () => 0n,
      wallMs: () => 0,
      setTimer: (_delayNs: bigint, callback: () => void) => {
        timers.push(callback);
        return { cancel: () => undefined };
      },
    };
    const stalls: number[] = [];
    new ProgressWatch(stopped, 10_000, () => stalls.push(1)).start();
    timers.shift()?.();
    expect([stalls.length, timers.length]).toEqual([0, 1]);
  });
});

describe('the words for CPUs', () => {
  it('say where each is', () => {
    const tree = {
      cpus: [
        { id: 0, mpState: 0, regs: { rip: '0x1000', rflags: '0x2' } },
        { id: 1, mpState: 3, regs: { rip: '0x2000', rflags: '0x202' } },
        { id: 2, mpState: 1, regs: { rip: '0xfff0', rflags: '0x2' } },
        { id: 3 },
      ],
    };
    expect(stalledCpus(tree).map(describeCpu)).toEqual([
      'CPU 0 runs at rip 0x1000, interrupts off',
      'CPU 1 halted at rip 0x2000, interrupts on',
      'CPU 2 waits for its start',
      'CPU 3 does not leave the guest',
    ]);
  });

  it('are none for a tree without CPUs', () => {
    expect([stalledCpus(undefined), stalledCpus(null), stalledCpus({ cpus: 1 })]).toEqual([[], [], []]);
  });
});
