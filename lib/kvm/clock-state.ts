/**
 * A machine's clocks as a part of a snapshot: kvmclock with the host's time at that moment, and what the TSC of each vCPU showed
 * then, with their deadlines. Restored before any vCPU runs, TSCs before deadlines. Which time passes in between is the caller's choice:
 * with `realtime` kvmclock goes on by what the host's calendar did (KVM_CLOCK_REALTIME), without it from where it was.
 *
 * A KVM whose guests see the host's own TSC takes offsets and forgets them; that is found by reading them back.
 */
import * as v from 'valibot';
import { Cap, ClockFlag } from '../abi/kvm.js';
import type { KvmClockData } from '../abi/kvm-structs.js';
import { Msr } from '../abi/x86.js';
import { KvmError, VmmError } from '../base/errors.js';
import { integer, stateFormat, u64, type SavedPart } from '../base/saved-state.js';
import { isSameFrequency, signed, together, tscAt, wrap } from './guest-tsc.js';
import type { Vcpu } from './vcpu.js';
import type { Vm } from './vm.js';

const clockFormat = stateFormat({
  type: 'kvm-clock',
  version: 1,
  schema: v.strictObject({
    clockNs: u64,
    /** The host's CLOCK_REALTIME at that moment, from KVM or, where it does not tell, from just after. */
    realtimeNs: u64,
    /** 0 where KVM does not tell. */
    tscKhz: integer(0, 0xffff_ffff),
    cpus: v.pipe(v.array(v.strictObject({ tsc: u64, deadlineTsc: u64 })), v.maxLength(4096)),
  }),
});
export type ClockData = ReturnType<typeof clockFormat.load>;

/** Some 20 ms. */
const SOON_CYCLES = 50_000_000n;

type ClockVm = Pick<Vm, 'checkExtension' | 'getClock' | 'setClock'>;
type ClockVcpu = Pick<Vcpu, 'getTscKhz' | 'setTscKhz' | 'getTscOffset' | 'setTscOffset' | 'readMsrs' | 'writeMsrs'>;

/** With all vCPUs parked. `wallNs`: the host's calendar, for a KVM that does not tell it. */
export function saveClock(vm: ClockVm, vcpus: readonly ClockVcpu[], wallNs: () => bigint): SavedPart {
  const clock = vm.getClock();
  const realtimeNs = (clock.flags & ClockFlag.REALTIME) !== 0 ? clock.realtime : wallNs();
  const tscs = readTscs(vcpus, clock);
  const tscKhz = vm.checkExtension(Cap.GET_TSC_KHZ) > 0 ? vcpus[0]!.getTscKhz() : 0;
  return clockFormat.save({
    clockNs: clock.clock,
    realtimeNs,
    tscKhz,
    cpus: together(tscs, tscKhz).map((tsc, index) => ({ tsc, deadlineTsc: readDeadline(vcpus[index]!) })),
  });
}

/** @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION */
export function loadClock(part: SavedPart): ClockData {
  return clockFormat.load(part);
}

/**
 * The TSC frequency that the guest knows. On vCPUs that have their CPUID.
 *
 * @throws VmmError ERR_SNAPSHOT_HOST where the host's is another and can't be scaled; `masked`: then it is left as it is
 */
export function restoreFrequency(
  vm: Pick<Vm, 'checkExtension'>,
  vcpus: readonly ClockVcpu[],
  tscKhz: number,
  masked: boolean,
): void {
  const hostKhz = vm.checkExtension(Cap.GET_TSC_KHZ) > 0 ? vcpus[0]!.getTscKhz() : 0;
  if (isSameFrequency(tscKhz, hostKhz)) return;
  if (vm.checkExtension(Cap.TSC_CONTROL) > 0) {
    for (const vcpu of vcpus) vcpu.setTscKhz(tscKhz);
  } else if (!masked) {
    throw new VmmError(
      'ERR_SNAPSHOT_HOST',
      `the guest's TSC counts at ${tscKhz} kHz; this host's does at ${hostKhz} kHz, and it can't scale it (TSC scaling)`,
    );
  }
}

export interface RestoredClock {
  /** What kvmclock went on by between saving and now: with `realtime` the gap. */
  readonly passedNs: bigint;
  /** What the TSC-deadline timer of each vCPU must be set to; 0n for one that is not armed. */
  readonly deadlineTscs: bigint[];
  /** False where guests see the host's own TSC: it has jumped for them. */
  readonly tscKept: boolean;
}

/**
 * Sets kvmclock, then the TSCs by it. `wallNs`: the host's calendar, for a KVM without KVM_CLOCK_REALTIME. A calendar that
 * has gone back since is no time that has passed.
 */
export function restoreClock(
  vm: ClockVm,
  vcpus: readonly ClockVcpu[],
  data: ClockData,
  options: { readonly realtime: boolean; readonly wallNs: () => bigint },
): RestoredClock {
  const knowsRealtime = (vm.checkExtension(Cap.ADJUST_CLOCK) & ClockFlag.REALTIME) !== 0;
  if (!options.realtime) vm.setClock(data.clockNs);
  else if (knowsRealtime) vm.setClock(data.clockNs, data.realtimeNs);
  else {
    const gapNs = options.wallNs() - data.realtimeNs;
    vm.setClock(data.clockNs + (gapNs > 0n ? gapNs : 0n));
  }
  const clock = vm.getClock();
  const passedNs = clock.clock > data.clockNs ? clock.clock - data.clockNs : 0n;
  const wanted = data.cpus.map(({ tsc }) => tscAt(tsc, data.clockNs, clock.clock, data.tscKhz));
  const errors = writeTscs(vcpus, wanted, clock);
  return {
    passedNs,
    deadlineTscs: data.cpus.map(({ deadlineTsc }, index) =>
      deadlineTsc === 0n ? 0n : wrap(deadlineTsc + errors[index]!) || 1n,
    ),
    tscKept: errors.every((error) => error === 0n),
  };
}

/** Each vCPU's TSC at one moment. */
function readTscs(vcpus: readonly ClockVcpu[], clock: KvmClockData): bigint[] {
  const offsets = vcpus.map(offsetOf);
  if (offsets.includes(undefined)) return vcpus.map(readTsc);
  const at = tscWithoutOffset(vcpus[0]!, offsets[0]!, clock);
  return offsets.map((offset) => wrap(at + offset!));
}

/**
 * What a TSC without offset shows: at the moment of `clock`, where KVM tells that in the guest's frequency, else now. Its own word is
 * the host's TSC, so it is of use only where the guest's is not scaled: then the two are within milliseconds.
 */
function tscWithoutOffset(vcpu: ClockVcpu, offset: bigint, clock: KvmClockData): bigint {
  const now = wrap(readTsc(vcpu) - offset);
  if ((clock.flags & ClockFlag.HOST_TSC) === 0) return now;
  const since = signed(now - clock.host_tsc);
  return since >= 0n && since < SOON_CYCLES ? clock.host_tsc : now;
}

/** Sets them as if at one moment; how far off each stays, which is 0n where KVM takes it. */
function writeTscs(vcpus: readonly ClockVcpu[], wanted: readonly bigint[], clock: KvmClockData): bigint[] {
  const offsets = vcpus.map(offsetOf);
  if (offsets.includes(undefined)) {
    // KVM takes equal values written within a second as the wish that the TSCs be the same (kvm_synchronize_tsc).
    vcpus.forEach((vcpu, index) => vcpu.writeMsrs([{ index: Msr.IA32_TSC, value: wanted[index]! }]));
    return wanted.map(() => 0n);
  }
  const at = tscWithoutOffset(vcpus[0]!, offsets[0]!, clock);
  return vcpus.map((vcpu, index) => {
    const offset = wrap(wanted[index]! - at);
    vcpu.setTscOffset(offset);
    return signed(vcpu.getTscOffset() - offset);
  });
}

const readTsc = (vcpu: Pick<Vcpu, 'readMsrs'>): bigint => vcpu.readMsrs([Msr.IA32_TSC])[0]!.value;

/** Undefined before Linux 5.16. */
function offsetOf(vcpu: Pick<Vcpu, 'getTscOffset'>): bigint | undefined {
  try {
    return vcpu.getTscOffset();
  } catch (error) {
    if (error instanceof KvmError) return undefined;
    throw error;
  }
}

/** 0n where the timer is in another mode, not armed, or not there. */
function readDeadline(vcpu: Pick<Vcpu, 'readMsrs'>): bigint {
  try {
    return vcpu.readMsrs([Msr.IA32_TSC_DEADLINE])[0]!.value;
  } catch (error) {
    if (error instanceof KvmError) return 0n;
    throw error;
  }
}
