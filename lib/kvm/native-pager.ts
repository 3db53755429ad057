/**
 * The shape of the addon's pager (native/memory, native/snapshot): write intercept, missing pages, groups in memory.
 * Groups are 64 KiB of guest memory by offset into its mapping; runs of them are pairs of first group and count.
 */
import type { NativeMemory, NativeVm } from './native.js';

/** A native object on its way from who made it to the pager; nothing in JavaScript looks into it. */
export type NativeGroupSink = object & { readonly __sink?: never };
export type NativeGroupSource = object & { readonly __source?: never };

/** UFFD_FEATURE_* of linux/userfaultfd.h that matter here, with the kernel that brought each. */
export const UserFaultFeature = {
  /** 5.7, for anonymous memory */
  WRITE_PROTECT: 1 << 0,
  /** 4.11 */
  MISSING_SHMEM: 1 << 5,
  /** 5.19 */
  WP_SHMEM: 1 << 12,
  /** 6.4 */
  WP_UNPOPULATED: 1 << 13,
  /** 6.6 */
  POISON: 1 << 14,
  /** 5.14 */
  MINOR_SHMEM: 1 << 10,
} as const;

/** What this kernel offers to this user; `step` and `errno` where it is nothing. */
export interface NativeUserFaultSupport {
  readonly features: number;
  readonly step?: string;
  readonly errno?: string;
}

/** One byte for each group in NativePager.states(), written by native code. */
export const GroupState = {
  MISSING: 0,
  LOADING: 1,
  /** First touched by somebody who waited for it. */
  FAULTED: 2,
  /** Filled in before anybody touched it. */
  FILLED: 3,
  /** Asked for by ensure() or by an intercept. */
  ASKED: 4,
  FAILED: 5,
} as const;

export interface NativeInterceptStatus {
  readonly phase: 'off' | 'armed' | 'active' | 'done';
  /** Wanted; handed over or in the copy buffer; of those because of a write. */
  readonly groups: number;
  readonly saved: number;
  readonly savedByFault: number;
  /** Writes that met protection since begin(), and before it. */
  readonly faults: number;
  readonly armedFaults: number;
  /** Groups that begin() had to protect. */
  readonly protectedAgain: number;
  readonly bufferHighWater: number;
  /** Faults that found the copy buffer full, and how long they waited. */
  readonly stalls: number;
  readonly stallNs: number;
  readonly stallMaxNs: number;
  /** From a fault's arrival to its release, stalls apart. */
  readonly faultNs: number;
  readonly faultMaxNs: number;
  /** How long arm() and begin() took to protect. */
  readonly armNs: number;
  readonly protectNs: number;
}

export interface NativeLoadStatus {
  readonly missing: number;
  readonly hotMissing: number;
  readonly faults: number;
  readonly retries: number;
  readonly faultNs: number;
  readonly faultMaxNs: number;
}

export interface NativePagerFailure {
  readonly why: 'short-read' | 'checksum' | 'decompress' | 'system' | 'timeout' | 'install' | 'closed';
  readonly group: number;
  /** Which file of the source's chain, and where in it. */
  readonly file: number;
  readonly fileOffset: number;
  readonly errnoNumber: number;
}

export interface NativePagerStatus {
  readonly intercept: NativeInterceptStatus;
  /** Undefined before serve(). */
  readonly load: NativeLoadStatus | undefined;
  readonly failure: NativePagerFailure | undefined;
}

/** The pager of one memory; its thread starts with the first duty. See native/memory/pager.h. */
export interface NativePager {
  /** Stands in the runtime's queue when an intercept has ended, hot groups or all are there, or a group can't be had. */
  readonly sourceId: number;
  /**
   * GroupState of each group; all MISSING where serve() was not called, and then of no meaning. Blocks of zeros that serve() left to
   * the kernel are FILLED.
   */
  states(): ArrayBuffer;
  /** Whose vCPUs never run again when a group can't be had. */
  guard(vm: NativeVm): void;
  /** From now on every group is missing and comes from the source; once, before anything is touched. */
  serve(source: NativeGroupSource, order: Uint32Array, hotCount: number, readTimeoutMs: number): void;
  /** Starts to fill in what nobody has touched, which takes a core. */
  fill(): void;
  /** Blocks of zeros that serve() left to the kernel become FAULTED where they have been touched. */
  noteTouched(): void;
  /** Waits until the bytes are there, without JavaScript. */
  ensure(offset: number, length: number, timeoutMs: number): 'present' | 'failed' | 'timeout';
  /**
   * What takes time, before the vCPUs stop: registration, a copy buffer of so many groups. Once for each intercept.
   * Failure `capability` names what the kernel lacks.
   */
  prepare(bufferGroups: number): void;
  /** Protects ahead of the instant; what is written until then is protected again by begin(). */
  arm(runs: Uint32Array): void;
  /** The instant: with the vCPUs stopped and I/O drained. */
  begin(runs: Uint32Array, sink: NativeGroupSink): void;
  /** Starts to hand over what nobody writes to; after the vCPUs go on. */
  walk(): void;
  /** Ends the intercept, finished or not: nothing is protected afterwards. */
  release(): void;
  status(): NativePagerStatus;
  /** Groups still missing can't be had any more. Idempotent. */
  close(): void;
}

/** Memory of one snapshot that its clones share; see native/memory/group_store.h. It goes with the last memory on it. */
export interface NativeGroupStore {
  status(): NativeStoreStatus;
  /** Lets go of it here. Idempotent. */
  close(): void;
}

export interface NativeStoreStatus {
  /** Groups that clones map, and those of them that are there. */
  readonly groups: number;
  readonly held: number;
  /** How often a clone got a group without its being read. */
  readonly taken: number;
  /** All is there, and nothing can be written to it any more. */
  readonly isSealed: boolean;
}

/** Groups in a memory instead of a file: sink, source, and what can go wrong with them. */
export interface NativeMemoryGroups {
  sink(): NativeGroupSink;
  source(): NativeGroupSource;
  /** How many further offers there is room for. */
  setRoom(offers: number): void;
  /** The next `times` reads of the group fail so, or hang until letGo(). */
  failAt(
    group: number,
    kind: 'short-read' | 'checksum' | 'decompress' | 'system' | 'hang',
    errnoNumber: number,
    times: number,
  ): void;
  letGo(): void;
  /** How often each group was offered. */
  offers(): Uint32Array;
}

export interface NativePagerClasses {
  /** SystemError where there is no userfaultfd for this user. */
  readonly Pager: new (memory: NativeMemory) => NativePager;
  readonly GroupStore: new (source: NativeGroupSource, sizeBytes: number) => NativeGroupStore;
  readonly MemoryGroups: new (memory: NativeMemory) => NativeMemoryGroups;
  userFaultSupport(): NativeUserFaultSupport;
}
