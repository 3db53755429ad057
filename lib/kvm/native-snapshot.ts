/**
 * The part of the addon's contract (native.ts) that writes and reads the memory of snapshots: native/snapshot/group_writer,
 * group_reader. Mechanism only: which groups, where rows go and what they mean is lib/memory's and lib/snapshot's matter.
 */

import type { NativeGroupSink, NativeGroupSource } from './native-pager.js';

/** A group of guest memory: 64 KiB, aligned, by offset into the one mapping of guest memory. */
export const GROUP_BYTES = 65_536;

export interface NativeGroupWriterOptions {
  /** Of a file that is open for reading and writing; duplicated. */
  readonly fd: number;
  /** 0: no compression. ERR_KVM_CAPABILITY where it is above 0 and libzstd.so.1 is missing. */
  readonly zstdLevel: number;
  readonly threads: number;
  /** Copies of groups that offers may have waiting; 0 where nothing offers. */
  readonly bufferGroups: number;
}

/** Writes groups on threads of its own. It is a GroupSink (native/snapshot/group_sink.h) for whom the addon hands it to. */
export interface NativeGroupWriter {
  /** Stands in the runtime's queue after some progress, a failure, and when nothing is under way any more. */
  readonly sourceId: number;
  /** These groups of the memory, as they are when a thread comes to them. ERR_STATE while a list is under way. */
  write(groups: Uint32Array): void;
  /** Copies of these groups as they are now, taken before it returns. ERR_STATE where there is no room for all; none is taken then. */
  copy(groups: Uint32Array): void;
  /** A copy of one group; false when there is no room for it now. After a failure it is dropped. */
  offer(group: number, bytes: Uint8Array): boolean;
  /** Gives up what waits; for good, with ECANCELED as the failure. */
  cancel(): void;
  /** With nothing under way: gaps become zeros, the file ends behind what is in use, fdatasync. Nothing follows. */
  finish(): void;
  progress(): NativeGroupWriterProgress;
  /** See GroupRow: one for each group, while nothing is under way. */
  rows(): Uint8Array;
  fileBytes(): number;
  /** For a write intercept. */
  sink(): NativeGroupSink;
  /** Waits for what each thread has in hand. Idempotent. */
  close(): void;
}

export interface NativeGroupWriterProgress {
  /** Nothing waits and nothing is under way. */
  readonly idle: boolean;
  /** All ever; a group that was written again counts again. */
  readonly groupsDone: number;
  readonly zeroGroups: number;
  readonly sameGroups: number;
  readonly rawGroups: number;
  readonly zstdGroups: number;
  readonly bytesWritten: number;
  readonly failure?: {
    readonly syscall: string;
    readonly errno: string;
    readonly errnoNumber: number;
    readonly fileOffset: number;
  };
}

/** Reads groups by a table of rows. It is a GroupSource (native/snapshot/group_source.h) for whom the addon hands it to. */
export interface NativeGroupReader {
  readonly sourceId: number;
  /** One group, on the JavaScript thread. `into` holds it afterwards, unless it is zero or failed. */
  read(group: number, into: Uint8Array): NativeGroupResult;
  /** Reads groups into guest memory, or only checks them. In `fresh` memory zero groups are left alone. */
  load(groups: Uint32Array, memory?: object, fresh?: boolean): void;
  cancel(): void;
  /** For a pager. */
  source(): NativeGroupSource;
  progress(): {
    readonly idle: boolean;
    readonly groupsDone: number;
    readonly bytesRead: number;
    readonly failure?: NativeGroupResult;
  };
  /** Idempotent. Whoever was given it as a source may still hold it: it answers EBADF. */
  close(): void;
}

export interface NativeGroupResult {
  readonly kind: 'data' | 'zero' | 'short-read' | 'checksum' | 'decompress' | 'system';
  readonly group: number;
  /** Which of the reader's files, and where in it. */
  readonly file: number;
  readonly fileOffset: number;
  /** Of kind system; '' and 0 otherwise. */
  readonly errno: string;
  readonly errnoNumber: number;
}

/** One row of a table of groups: 24 bytes, little endian. */
export const GroupRow = {
  /** u64: in the file; of SAME the number of the earlier group that has the bytes. */
  OFFSET: 0,
  /** u32 */
  STORED_BYTES: 8,
  /** u32: CRC-32C of the stored bytes. */
  STORED_CRC: 12,
  /** u32: CRC-32C of the group's 65536 bytes. */
  CONTENT_CRC: 16,
  /** u16: for the reader, which of its files; 0 in an index. */
  FILE: 20,
  /** u8, see GroupCodec. */
  CODEC: 22,
  /** u8, 0 */
  RESERVED: 23,
  STRIDE: 24,
} as const;

export const GroupCodec = {
  ZERO: 0,
  RAW: 1,
  /** One zstd frame of exactly 65536 bytes. */
  ZSTD: 2,
  /** As an earlier group of this file, which is raw or zstd. */
  SAME: 3,
  /** As in the parent. */
  PARENT: 4,
  /** Never written. */
  NONE: 255,
} as const;
