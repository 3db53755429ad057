/** A machine's clocks on a KVM written by hand: with and without TSC offsets, with a host's pair and without. */
import { describe, expect, it } from 'vitest';
import { Cap, ClockFlag } from '../abi/kvm.js';
import type { KvmClockData } from '../abi/kvm-structs.js';
import { Msr } from '../abi/x86.js';
import { KvmError } from '../base/errors.js';
import { loadClock, restoreClock, restoreFrequency, saveClock } from './clock-state.js';
import { wrap } from './guest-tsc.js';

const SECOND = 1_000_000_000n;
const KHZ = 2_000_000;

/** A host: its TSC and calendar move only by hand. */
class FakeHost {
  tsc = 10_000n * SECOND;
  wallNs = 1_700_000_000n * SECOND;
  readonly hasOffsets: boolean;
  readonly keepsOffsets: boolean;
  readonly knowsPair: boolean;
  readonly canScale: boolean;

  constructor(options: { offsets?: boolean; keeps?: boolean; pair?: boolean; scales?: boolean } = {}) {
    this.hasOffsets = options.offsets ?? true;
    this.keepsOffsets = options.keeps ?? true;
    this.knowsPair = options.pair ?? true;
    this.canScale = options.scales ?? false;
  }

  pass(ns: bigint): void {
    this.tsc += 2n * ns;
    this.wallNs += ns;
  }

  machine(cpus: number) {
    const fromTsc = { clockNs: 0n, tsc: this.tsc };
    const vm = {
      checkExtension: (capability: number): number => {
        if (capability === Cap.ADJUST_CLOCK) return this.knowsPair ? 14 : 2;
        if (capability === Cap.TSC_CONTROL) return this.canScale ? 1 : 0;
        return 1;
      },
      getClock: (): KvmClockData => ({
        clock: fromTsc.clockNs + (this.tsc - fromTsc.tsc) / 2n,
        flags: this.knowsPair ? ClockFlag.REALTIME | ClockFlag.HOST_TSC : 0,
        pad0: 0,
        realtime: this.knowsPair ? this.wallNs : 0n,
        host_tsc: this.knowsPair ? this.tsc : 0n,
        pad: [0, 0, 0, 0],
      }),
      setClock: (clockNs: bigint, realtimeNs?: bigint) => {
        const gapNs = realtimeNs === undefined || realtimeNs > this.wallNs ? 0n : this.wallNs - realtimeNs;
        fromTsc.clockNs = clockNs + gapNs;
        fromTsc.tsc = this.tsc;
      },
    };
    return { vm, vcpus: Array.from({ length: cpus }, () => this.#vcpu()) };
  }

  #vcpu() {
    const cpu = { offset: 0n, deadline: 0n, khz: KHZ };
    const unknown = (): never => {
      throw new KvmError('KVM_GET_DEVICE_ATTR', 'ENXIO', 6);
    };
    return {
      cpu,
      getTscKhz: () => cpu.khz,
      setTscKhz: (khz: number) => void (cpu.khz = khz),
      getTscOffset: () => (this.hasOffsets ? cpu.offset : unknown()),
      setTscOffset: (offset: bigint) => {
        if (!this.hasOffsets) unknown();
        if (this.keepsOffsets) cpu.offset = offset;
      },
      readMsrs: (indices: readonly number[]) =>
        indices.map((index) => {
          // Each look takes a little.
          this.tsc += 1000n;
          return { index, value: index === Msr.IA32_TSC ? wrap(this.tsc + cpu.offset) : cpu.deadline };
        }),
      writeMsrs: (entries: readonly { index: number; value: bigint }[]) => {
        for (const { index, value } of entries) {
          if (index === Msr.IA32_TSC) cpu.offset = wrap(value - this.tsc);
        }
      },
    };
  }
}

type FakeMachine = ReturnType<FakeHost['machine']>;

const tscOf = (host: FakeHost, { vcpus }: FakeMachine, index = 0): bigint => wrap(host.tsc + vcpus[index]!.cpu.offset);

function save(host: FakeHost, { vm, vcpus }: FakeMachine) {
  return loadClock(structuredClone(saveClock(vm, vcpus, () => host.wallNs)));
}

describe.each([
  ['tells its time and takes offsets', {}],
  ['takes offsets', { pair: false }],
  ['takes neither', { pair: false, offsets: false }],
])('on a KVM that %s', (_name, options) => {
  it.each([
    ['stand still', false, 0n],
    ['go on by the time between', true, 600n],
  ])('kvmclock and TSCs %s, and stay together', (_how, realtime, seconds) => {
    const source = new FakeHost(options);
    const machine = source.machine(2);
    machine.vcpus[0]!.cpu.offset = machine.vcpus[1]!.cpu.offset = wrap(-9_000n * SECOND);
    source.pass(30n * SECOND);
    const tsc = tscOf(source, machine);
    const clockNs = machine.vm.getClock().clock;
    const data = save(source, machine);

    const target = new FakeHost(options);
    target.tsc = 77n;
    target.wallNs = source.wallNs + 600n * SECOND;
    const other = target.machine(2);
    const result = restoreClock(other.vm, other.vcpus, data, { realtime, wallNs: () => target.wallNs });
    const near = (value: bigint, wanted: bigint) => expect(Math.abs(Number(value - wanted))).toBeLessThan(100_000);
    near(other.vm.getClock().clock, clockNs + seconds * SECOND);
    near(result.passedNs, seconds * SECOND);
    near(tscOf(target, other), tsc + seconds * 2n * SECOND);
    expect(tscOf(target, other, 1)).toBe(tscOf(target, other, 0));
    expect(result.tscKept).toBe(true);
  });
});

describe('a guest’s clocks', () => {
  it('do not go back with the host’s calendar', () => {
    const host = new FakeHost({ pair: false });
    const data = save(host, host.machine(1));
    host.wallNs -= 3600n * SECOND;
    const { vm, vcpus } = host.machine(1);
    const { passedNs } = restoreClock(vm, vcpus, data, { realtime: true, wallNs: () => host.wallNs });
    expect(Number(passedNs)).toBeLessThan(100_000);
  });

  it('keep the distance of TSCs that were apart', () => {
    const host = new FakeHost();
    const machine = host.machine(2);
    machine.vcpus[1]!.cpu.offset = 5n * SECOND;
    const data = save(host, machine);
    const other = host.machine(2);
    restoreClock(other.vm, other.vcpus, data, { realtime: false, wallNs: () => host.wallNs });
    expect(tscOf(host, other, 1) - tscOf(host, other, 0)).toBe(5n * SECOND);
  });

  it('have their deadlines moved with a TSC that can’t be kept', () => {
    const host = new FakeHost({ keeps: false, pair: false });
    const machine = host.machine(1);
    machine.vcpus[0]!.cpu.deadline = host.tsc + 4n * SECOND;
    const data = save(host, machine);
    host.pass(100n * SECOND);
    const other = host.machine(1);
    const result = restoreClock(other.vm, other.vcpus, data, { realtime: false, wallNs: () => host.wallNs });
    expect(result.tscKept).toBe(false);
    const leftCycles = result.deadlineTscs[0]! - tscOf(host, other);
    expect(Math.abs(Number(leftCycles - 4n * SECOND))).toBeLessThan(100_000);
  });

  it('keep their frequency, or are refused by its name', () => {
    const plain = new FakeHost().machine(2);
    restoreFrequency(plain.vm, plain.vcpus, KHZ + 100, false);
    expect(plain.vcpus[0]!.cpu.khz).toBe(KHZ);
    expect(() => restoreFrequency(plain.vm, plain.vcpus, 3_000_000, false)).toThrow(/3000000 kHz.*TSC scaling/);
    restoreFrequency(plain.vm, plain.vcpus, 3_000_000, true);
    const scaling = new FakeHost({ scales: true }).machine(2);
    restoreFrequency(scaling.vm, scaling.vcpus, 3_000_000, false);
    expect(scaling.vcpus.map(({ cpu }) => cpu.khz)).toEqual([3_000_000, 3_000_000]);
  });
});
