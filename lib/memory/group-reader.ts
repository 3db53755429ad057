/**
 * Reads groups of guest memory out of the files of a snapshot's chain with the addon's threads
 * (native/snapshot/group_reader.h), by a table that lib/snapshot has made. What can't be read is told by group and place.
 */
import { availableParallelism } from 'node:os';
import { AbortError, VmmError } from '../base/errors.js';
import { loadBinding } from '../kvm/binding.js';
import { GROUP_BYTES, type NativeGroupReader, type NativeGroupResult } from '../kvm/native-snapshot.js';
import type { AddressSpace } from './address-space.js';
import { PoolWait } from './pool-wait.js';

const MAX_THREADS = 4;

/** A group that can't be had, or is not what was saved: ERR_SNAPSHOT. */
export class GroupReadError extends VmmError {
  /** 'system': the read failed with `errno`. */
  readonly kind: 'short-read' | 'checksum' | 'decompress' | 'system';
  readonly group: number;
  readonly file: string;
  readonly fileOffset: number;
  /** For example 'EIO'; '' for the other kinds. */
  readonly errno: string;

  constructor(result: NativeGroupResult, file: string) {
    const { kind, group, fileOffset, errno } = result;
    const what = {
      data: '',
      zero: '',
      'short-read': 'the file ends too early',
      checksum: 'its checksum is wrong',
      decompress: 'it is no zstd frame of a group',
      system: errno,
    }[kind];
    super('ERR_SNAPSHOT', `group ${group} can't be read from ${file} at byte ${fileOffset}: ${what}`);
    this.kind = kind === 'data' || kind === 'zero' ? 'checksum' : kind;
    this.group = group;
    this.file = file;
    this.fileOffset = fileOffset;
    this.errno = errno;
  }
}

export interface GroupReaderFile {
  readonly fd: number;
  /** For errors. */
  readonly path: string;
}

export interface GroupLoadOptions {
  /** Of the snapshot's size; without it the groups are only checked. */
  readonly memory?: AddressSpace | undefined;
  /** The memory was never touched: zero groups are left alone. */
  readonly fresh?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: { groupsDone: number; bytesRead: number }) => void) | undefined;
}

export class GroupReader {
  readonly groups: number;
  readonly #native: NativeGroupReader;
  readonly #wait: PoolWait<ReturnType<NativeGroupReader['progress']>>;
  readonly #files: readonly string[];
  #closed = false;

  /**
   * `rows`: see GroupRow, each zero, raw or zstd. The descriptors are duplicated.
   *
   * @throws RangeError for a row that can't be read; VmmError ERR_KVM_CAPABILITY where zstd is needed and missing.
   */
  constructor(files: readonly GroupReaderFile[], rows: Uint8Array, groups: number, threads?: number) {
    const native = new (loadBinding().addon.GroupReader)(
      Uint32Array.from(files, (file) => file.fd),
      rows,
      threads ?? Math.min(availableParallelism(), MAX_THREADS),
    );
    this.#native = native;
    this.groups = groups;
    this.#files = files.map((file) => file.path);
    this.#wait = new PoolWait(native.sourceId, () => native.progress());
  }

  /** The addon's side: a GroupSource for a pager. */
  get native(): NativeGroupReader {
    return this.#native;
  }

  /** One group's bytes, read on this thread. @throws GroupReadError */
  read(group: number): Uint8Array {
    const into = new Uint8Array(GROUP_BYTES);
    const result = this.#native.read(group, into);
    if (result.kind !== 'data' && result.kind !== 'zero') throw this.#error(result);
    return into;
  }

  /** One load at a time. @throws GroupReadError of the first group that failed; AbortError; VmmError ERR_CLOSED. */
  async load(groups: Uint32Array, options: GroupLoadOptions = {}): Promise<{ groupsDone: number; bytesRead: number }> {
    const { signal } = options;
    if (signal?.aborted === true) throw new AbortError(signal);
    if (this.#closed) throw closedError();
    let aborted = false;
    const abort = (): void => {
      aborted = true;
      this.#native.cancel();
    };
    this.#native.load(groups, options.memory?.native, options.fresh ?? false);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const progress = await this.#wait.idle(options.onProgress);
      if (aborted) throw new AbortError(signal);
      if (progress.failure !== undefined) throw this.#error(progress.failure);
      if (this.#closed || progress.groupsDone !== groups.length) throw closedError();
      return { groupsDone: progress.groupsDone, bytesRead: progress.bytesRead };
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /** Gives up what waits. A pager that holds it as a source gets EBADF from now on. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.cancel();
    await this.#wait.idle();
    this.#wait.close();
    this.#native.close();
  }

  #error(result: NativeGroupResult): GroupReadError {
    return new GroupReadError(result, this.#files[result.file] ?? 'the snapshot');
  }
}

function closedError(): VmmError {
  return new VmmError('ERR_CLOSED', 'the reader of groups was closed');
}
