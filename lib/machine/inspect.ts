/**
 * The JSON tree of everything that `vm.inspect()` gives: configuration, CPUs, memory, devices, counters of KVM.
 * 64-bit values are texts (hexadecimal for registers, decimal for counters), since JSON has no bigint.
 */
import { formatGpa } from '../base/address.js';
import type { BootImage } from '../boot/index.js';
import type { Vcpu, VcpuCounters } from '../kvm/index.js';
import type { AddressSpace } from '../memory/index.js';
import type { PitStatus } from '../time/index.js';
import type { DeviceContract } from '../vsp/index.js';
import type { Board } from './board.js';
import type { MachineConfig } from './options.js';
import type { EndStatus } from './status.js';

/** A value that JSON.stringify takes as it is. */
export type JsonValue = string | number | boolean | null | JsonValue[] | { [key: string]: JsonValue };

export interface InspectInput {
  readonly config: MachineConfig;
  readonly state: string;
  readonly status: EndStatus | undefined;
  readonly resets: number;
  readonly board: Board;
  /** The devices that the guest has been lent. */
  readonly lent: unknown;
  readonly pit: PitStatus;
  readonly space: AddressSpace;
  /** What stands on its memory: a pager, memory that is shared with other clones. */
  readonly paging: object;
}

/** What is counted: of CPUs, and of lent devices by function. */
export interface MachineCounters {
  readonly cpus: readonly { readonly id: number; readonly counters: VcpuCounters }[];
  readonly devices: ReadonlyMap<string, DeviceContract>;
}

export function countersOf(
  board: Board,
  devices: { contracts(): ReadonlyMap<string, DeviceContract> },
): MachineCounters {
  const vcpus = board.isClosed ? [] : board.vcpus;
  return { cpus: vcpus.map((vcpu) => ({ id: vcpu.id, counters: vcpu.counters() })), devices: devices.contracts() };
}

export function inspectMachine(input: InspectInput): JsonValue {
  const { config, board, space } = input;
  const tree = {
    name: config.name,
    state: input.state,
    status: input.status,
    resets: input.resets,
    boot: describeBoot(config.boot),
    memory: {
      sizeBytes: space.sizeBytes,
      backing: config.memoryBacking,
      ranges: space.ranges.map((range) => ({ gpa: formatGpa(range.gpa), sizeBytes: range.sizeBytes })),
      ...input.paging,
    },
    cpus: board.isClosed ? [] : board.vcpus.map(inspectCpu),
    buses: { port: board.ports.inspect(), mmio: board.mmio.inspect() },
    devices: board.chipset.inspect(),
    pci: board.pci?.inspect(),
    lent: input.lent,
    pit: input.pit,
    kvm: board.isClosed ? null : board.vm.stats(),
  };
  return toJson(tree);
}

function inspectCpu(vcpu: Vcpu): unknown {
  const base = { id: vcpu.id, state: vcpu.state, threadId: vcpu.threadId, counters: vcpu.counters() };
  if (vcpu.state === 'running') return base;
  const regs = Object.fromEntries(
    Object.entries(vcpu.getRegs()).map(([name, value]) => [name, `0x${value.toString(16)}`]),
  );
  return { ...base, mpState: vcpu.getMpState(), regs };
}

/** The boot image with bytes told by their number. */
export function describeBoot(boot: BootImage): unknown {
  const size = (image: unknown): unknown => (image instanceof Uint8Array ? `${image.length} bytes` : image);
  return Object.fromEntries(
    Object.entries(boot).map(([name, value]: [string, unknown]) => [
      name,
      Array.isArray(value) ? value.map(size) : size(value),
    ]),
  );
}

/** Bigints become decimal texts, typed arrays lists, undefined is left out. */
export function toJson(value: unknown): JsonValue {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      return Number.isFinite(value) ? value : String(value);
    case 'bigint':
      return value.toString();
    case 'object':
      if (value === null) return null;
      if (value instanceof Error) return `${value.name}: ${value.message}`;
      if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<number | bigint>, toJson);
      if (Array.isArray(value)) return value.map(toJson);
      return Object.fromEntries(
        Object.entries(value)
          .filter(([, member]) => member !== undefined && typeof member !== 'function')
          .map(([key, member]) => [key, toJson(member)]),
      );
    default:
      return null;
  }
}
