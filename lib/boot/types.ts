/**
 * What loadBoot takes and gives: the boot images of the public contract, the shape of the machine, and the first
 * register state. Types, and their names as values.
 */
import type { InitrdSource } from './initrd.js';
import type { CpuState } from './registers.js';
import type { SegmentLoader } from './segment.js';

/** A Linux kernel (bzImage or vmlinux), another kernel with a PVH note, or an ELF32 multiboot image. */
export interface KernelBoot {
  readonly kernel: string;
  readonly initrd?: InitrdSource;
  readonly cmdline?: string;
  /** Where unpacked kernels are kept. Without it nothing is kept. */
  readonly cacheDir?: string;
  /** Default 'auto'. 'bzimage' leaves the unpacking to the guest. */
  readonly entry?: KernelEntry;
}

/** The ways into a kernel. */
export const KERNEL_ENTRIES = ['auto', '64bit', 'pvh', 'bzimage'] as const;
export type KernelEntry = (typeof KERNEL_ENTRIES)[number];

/** Raw bytes, put at an address and entered. */
export interface FlatBoot {
  /** The bytes, or the path of a file that holds them. */
  readonly flat: Uint8Array | string;
  readonly address: number;
  readonly entry?: number;
  readonly mode: 'real16' | 'protected32' | 'long64';
}

/** A multiboot 1 image with its modules. */
export interface MultibootBoot {
  readonly multiboot: string;
  readonly modules?: readonly (string | { readonly path: string; readonly cmdline?: string })[];
  readonly cmdline?: string;
}

export type BootImage = KernelBoot | FlatBoot | MultibootBoot;

/** What a loader must know of the machine beside its memory. */
export interface MachineShape {
  /** Where the RSDP will stand; default: where buildAcpi writes it. undefined tells the kernel of none. */
  readonly rsdpGpa?: number | undefined;
  /** Areas that the guest must not use: KVM's own pages. */
  readonly reserved?: readonly { readonly gpa: number; readonly sizeBytes: number }[];
  /** Guest memory was never written: zeros need not be written either. Default false. */
  readonly memoryIsZero?: boolean;
  /** Seed for the guest's random numbers. Default: 32 random bytes. */
  readonly rngSeed?: Uint8Array;
  /** How bytes get from a file into guest memory. */
  readonly loadSegment?: SegmentLoader;
}

/** MachineShape with its defaults filled in. */
export interface ResolvedShape {
  readonly rsdpGpa: number | undefined;
  readonly reserved: readonly { readonly gpa: number; readonly sizeBytes: number }[];
  readonly memoryIsZero: boolean;
  readonly rngSeed: Uint8Array | undefined;
  readonly loadSegment: SegmentLoader;
}

/** An image in memory, ready to start. */
export interface LoadedBoot {
  readonly kind: 'flat' | 'linux' | 'multiboot';
  readonly format: 'flat' | 'bzimage' | 'elf' | 'multiboot';
  readonly entry: 'flat' | '64bit' | 'pvh' | '32bit';
  /** For the first CPU. */
  readonly state: CpuState;
  /** For the log: what was done that a user may want to know. */
  readonly notes: readonly string[];
}
