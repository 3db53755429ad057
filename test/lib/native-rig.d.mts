/** Types of native-rig.mjs. */
import type {
  NativeAddon,
  NativeMemory,
  NativeRuntime,
  NativeSystem,
  NativeVcpu,
  NativeVm,
} from '../../lib/kvm/native.js';

export const EXIT_IO: number;
export const EXIT_MMIO: number;
export const STATE: { PARKED: number; RUNNING: number; EXIT: number; FAILED: number };

export interface RigExit {
  reason: number;
  write: boolean;
  sizeBytes: number;
  address: number;
  count: number;
  data: Uint8Array;
}

export interface RigPosted {
  address: number;
  value: number;
  sizeBytes: number;
  space: number;
}

export interface RigCpu {
  native: NativeVcpu;
  run: DataView;
  state(): number;
  runErrno(): number;
  counters(): { exits: bigint; native: bigint; script: bigint; kicks: bigint };
  /** The words of struct kvm_regs: rax first, rip at 16, rflags at 17. */
  regs(): BigUint64Array;
  exit(): RigExit;
  nextExit(): Promise<RigExit>;
  park(): Promise<void>;
}

export interface RigVm {
  vm: NativeVm;
  memory: NativeMemory;
  bytes: Uint8Array;
  cpus: RigCpu[];
  cpu: RigCpu;
  portFlags: Uint8Array;
  portValues: Uint8Array;
  takePosted(): RigPosted[];
  postedWaiters(): number;
  postedCount(): number;
  close(): void;
}

export interface RigBoot {
  code?: number[] | number[][];
  memoryBytes?: number;
  vcpus?: number;
  irqchip?: boolean;
}

export interface Rig {
  addon: NativeAddon;
  runtime: NativeRuntime;
  readonly system: NativeSystem;
  rung: { doorbells: number; sources: number[] };
  until(condition: () => boolean): Promise<void>;
  boot(options?: RigBoot): RigVm;
}

/** What the error factory of the rig makes. */
export interface RigError extends Error {
  kind: string;
  errno: string;
  errnoNumber: number;
  detail: string | undefined;
}

export function makeRig(): Rig;
export function setRealMode(native: NativeVcpu, ip: number): void;
export function held(nodeLeaks?: string): {
  kvmFds: number;
  fds: number;
  kvmMaps: number;
  guestThreads: number;
  threads: number;
};
