import { describe, expect, it } from 'vitest';
import { MpState } from '../abi/kvm.js';
import { ManualClock } from '../base/clock.js';
import { HaltDetector, type HaltableCpu } from './halt-detector.js';

interface FakeCpu extends HaltableCpu {
  exits: bigint;
  mpState: number;
  interrupts: boolean;
  nmi: boolean;
}

function cpu(mpState: number, interrupts = false): FakeCpu {
  return {
    exits: 0n,
    mpState,
    interrupts,
    nmi: false,
    counters() {
      return { exits: this.exits, threadCpuNs: 0n };
    },
    getMpState() {
      return this.mpState;
    },
    getRegs() {
      return { rflags: this.interrupts ? 0x202n : 0x2n };
    },
    hasPendingNmi() {
      return this.nmi;
    },
  };
}

function detector(cpus: FakeCpu[]) {
  const clock = new ManualClock();
  let halted = 0;
  let looks = 0;
  const detect = new HaltDetector({
    clock,
    cpus,
    whileParked: (look) => {
      looks++;
      look();
      return Promise.resolve();
    },
    onHalted: () => halted++,
  });
  detect.start();
  const pass = async (times: number): Promise<void> => {
    for (let time = 0; time < times; time++) {
      clock.advance(400_000_000n);
      // The tick is asynchronous: let it come to its end.
      for (let turn = 0; turn < 5; turn++) await Promise.resolve();
    }
  };
  return { detect, pass, halted: () => halted, looks: () => looks };
}

describe('HaltDetector', () => {
  it('finds a halt for good within two looks, once', async () => {
    const { pass, halted } = detector([cpu(MpState.HALTED), cpu(MpState.UNINITIALIZED)]);
    await pass(2);
    expect(halted()).toBe(1);
    await pass(4);
    expect(halted()).toBe(1);
  });

  it('leaves a guest alone that waits for an interrupt, runs, or has an NMI coming', async () => {
    for (const alive of [
      cpu(MpState.HALTED, true),
      cpu(MpState.RUNNABLE),
      Object.assign(cpu(MpState.HALTED), { nmi: true }),
    ]) {
      const { pass, halted } = detector([cpu(MpState.HALTED), alive]);
      await pass(5);
      expect(halted()).toBe(0);
    }
  });

  it('does not park a guest that is busy', async () => {
    const busy = cpu(MpState.RUNNABLE);
    const { pass, looks } = detector([busy]);
    for (let round = 0; round < 5; round++) {
      busy.exits++;
      await pass(1);
    }
    expect(looks()).toBe(0);
  });

  it('is silent after stop', async () => {
    const { detect, pass, halted } = detector([cpu(MpState.HALTED)]);
    detect.stop();
    await pass(5);
    expect(halted()).toBe(0);
  });
});
