/**
 * A board's whole state but for guest memory, and a blank board that gets one. It joins the parts' own states in the one order
 * that is right, and knows none of them; why the order is so stands with each (kvm/vcpu-state, vm-state, clock-state).
 *
 *   save:     (paused, settled) time -> devices settle -> vCPUs -> clocks -> controllers, PIT -> devices
 *   restore:  (memory is there) CPUID -> TSC frequency -> clocks -> vCPUs -> devices drive lines -> controllers, PIT
 *
 * The host is found able before anything is changed. A board whose restore failed is of no use but to be closed.
 */
import * as v from 'valibot';
import { Cap } from '../../abi/kvm.js';
import type { Clock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { savedPart, stateFormat, type Savable, type SavedPart } from '../../base/saved-state.js';
import { cpuidForVcpu, fitCpuid } from '../../boot/index.js';
import { savedGuestHasAgent } from '../../chipset/index.js';
import {
  loadClock,
  loadVcpu,
  loadVm,
  restoreClock,
  restoreFrequency,
  restoreVcpu,
  restoreVm,
  saveClock,
  saveVcpu,
  saveVm,
  type Kvm,
  type VcpuData,
} from '../../kvm/index.js';
import type { GuestMemory } from '../../memory/index.js';
import { loadTime } from '../../time/index.js';
import type { Board } from '../board.js';
import type { RestoredTime } from '../machine-pit.js';
import { clockPlan, gapNs, type ClockMode } from './clock-mode.js';
import { tellStopped } from './tell-stopped.js';

const boardFormat = stateFormat({
  type: 'board',
  version: 1,
  schema: v.strictObject({
    cpus: v.pipe(v.array(savedPart), v.minLength(1), v.maxLength(4096)),
    clock: savedPart,
    vm: savedPart,
    chipset: savedPart,
    time: savedPart,
    pci: v.optional(savedPart),
  }),
});

/** What a board's state needs of its surroundings. */
export interface BoardContext {
  readonly kvm: Kvm;
  readonly clock: Clock;
  /** The PCI bus with its functions, on a board that has one. */
  readonly pci?: Savable | undefined;
}

/**
 * With every vCPU parked. `time`: MachinePit.save(), just before.
 *
 * @throws KvmError; VmmError ERR_STATE when a vCPU is not parked
 */
export function saveBoard(board: Board, time: SavedPart, { kvm, clock, pci }: BoardContext): SavedPart {
  const { vm, vcpus, chipset } = board;
  for (const { id, state } of vcpus) {
    if (state !== 'parked') throw new VmmError('ERR_STATE', `vCPU ${id} is ${state}, not parked: it can't be saved`);
  }
  // What they posted comes before anything that is saved.
  vm.drainCoalesced();
  const msrs = kvm.msrIndices();
  const { own, inForce } = loadTime(time).controller;
  // The devices first, since they end their turn with it: after that no line moves.
  const devices = chipset.saveState();
  const functions = pci?.saveState();
  return boardFormat.save({
    cpus: vcpus.map((vcpu) => saveVcpu(vm, vcpu, msrs)),
    clock: saveClock(vm, vcpus, () => wallNs(clock)),
    vm: saveVm(vm, { own, inForce }),
    chipset: devices,
    time,
    ...(functions ? { pci: functions } : {}),
  });
}

export interface RestoreBoardOptions {
  readonly mode: ClockMode;
  /** The guest's. */
  readonly memory: GuestMemory;
  /** What the host lacks is taken from the guest, where it is no failure. */
  readonly mask?: boolean;
}

export interface RestoredBoard {
  /** For MachinePit.attach(), which comes after this. */
  readonly time: RestoredTime;
  /** What this host could not keep, in words for the log. */
  readonly notes: string[];
}

/**
 * Gives a blank board (Board.create with `blank`) a saved state. Guest memory must be there, or its pager: KVM writes into kvmclock's
 * pages. The clocks go on from here: until the board runs, time passes as in a pause that counts.
 *
 * @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION, ERR_SNAPSHOT_HOST with the names of what is lacking; KvmError
 */
export function restoreBoard(
  board: Board,
  part: SavedPart,
  { kvm, clock, pci }: BoardContext,
  { mode, memory, mask = false }: RestoreBoardOptions,
): RestoredBoard {
  const { vm, vcpus, chipset } = board;
  const data = boardFormat.load(part);
  const cpus = data.cpus.map(loadVcpu);
  const clocks = loadClock(data.clock);
  const controllers = loadVm(data.vm);
  const saved = loadTime(data.time);
  if (cpus.length !== vcpus.length || clocks.cpus.length !== vcpus.length || cpus.some(({ id }, at) => id !== at)) {
    throw new VmmError('ERR_SNAPSHOT', `the snapshot has ${cpus.length} CPUs, the machine ${vcpus.length}`);
  }
  if ((data.pci === undefined) !== (pci === undefined)) {
    throw new VmmError(
      'ERR_SNAPSHOT',
      `the machine has ${pci ? 'a' : 'no'} PCI bus, the snapshot ${pci ? 'none' : 'one'}`,
    );
  }
  const tables = cpus.map((cpu) => fitCpuid(cpu.cpuid, offeredCpuid(kvm, cpu, vcpus.length), mask));

  vcpus.forEach((vcpu, at) => vcpu.setCpuid(tables[at]!));
  restoreFrequency(vm, vcpus, clocks.tscKhz, mask);
  const plan = clockPlan(mode);
  const restored = restoreClock(vm, vcpus, clocks, { realtime: plan.realtime, wallNs: () => wallNs(clock) });
  const notes = vcpus.flatMap((vcpu, at) =>
    restoreVcpu(vm, vcpu, cpus[at]!, { deadlineTsc: restored.deadlineTscs[at]!, masked: mask }).map(
      (name) => `this KVM refuses ${name}, which vCPU ${vcpu.id} held`,
    ),
  );
  chipset.restoreState(data.chipset);
  if (data.pci) pci?.restoreState(data.pci);
  restoreVm(vm, controllers);
  // After the controllers: an interrupt that falls due by it is a new one.
  const passedNs = gapNs(plan, restored.passedNs);
  if (passedNs > 0n) chipset.passTime(passedNs);
  tellStopped(vcpus, memory, passedNs);
  if (!restored.tscKept) notes.push("this KVM can't shift the TSC: the guest sees that of this host");
  return { time: { saved, passedNs, ticks: plan.ticks }, notes };
}

/** Whether the guest of a saved board had an agent. @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION */
export function savedBoardHasAgent(part: SavedPart): boolean {
  return savedGuestHasAgent(boardFormat.load(part).chipset);
}

function offeredCpuid(kvm: Kvm, cpu: VcpuData, count: number): ReturnType<typeof cpuidForVcpu> {
  const tscDeadline = kvm.checkExtension(Cap.TSC_DEADLINE_TIMER) > 0;
  return cpuidForVcpu(kvm.supportedCpuid(), { id: cpu.id, count, tscDeadline });
}

function wallNs(clock: Clock): bigint {
  return BigInt(Math.round(clock.wallMs() * 1e6));
}
