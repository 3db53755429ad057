/**
 * Writes groups of guest memory into a snapshot's memory file with the addon's threads (native/snapshot/group_writer.h).
 * It knows nothing of snapshots: which groups there are to write, and what becomes of the rows, is lib/snapshot's matter.
 */
import { availableParallelism } from 'node:os';
import { AbortError, SystemError } from '../base/errors.js';
import { loadBinding } from '../kvm/binding.js';
import {
  GROUP_BYTES,
  type NativeGroupWriter,
  type NativeGroupWriterProgress as Progress,
} from '../kvm/native-snapshot.js';
import type { AddressSpace } from './address-space.js';
import { PoolWait } from './pool-wait.js';

const MAX_THREADS = 4;

export interface GroupWriterOptions {
  /** Open for reading and writing. */
  readonly fd: number;
  /** The file's name, for errors. */
  readonly file: string;
  /** 0: none. */
  readonly zstdLevel: number;
  /** One for each CPU, at most four, where it is not given. */
  readonly threads?: number | undefined;
  /** Room for copies that a write intercept hands over, in bytes; none where it is not given. */
  readonly bufferBytes?: number | undefined;
}

/** What has been written since the writer was made. A group that was written again counts again. */
export interface GroupWriterTotals {
  readonly groupsDone: number;
  readonly zeroGroups: number;
  readonly sameGroups: number;
  readonly rawGroups: number;
  readonly zstdGroups: number;
  readonly bytesWritten: number;
}

/** Whether groups can be compressed: libzstd.so.1 is there. */
export function canCompress(): boolean {
  return loadBinding().addon.zstdAvailable();
}

export class GroupWriter {
  readonly groups: number;
  readonly #native: NativeGroupWriter;
  readonly #wait: PoolWait<Progress>;
  readonly #file: string;
  #signal: AbortSignal | undefined;
  #closed = false;

  /** @throws SystemError, VmmError ERR_CLOSED; VmmError ERR_KVM_CAPABILITY where zstd is missing. */
  constructor(memory: AddressSpace, options: GroupWriterOptions) {
    const native = new (loadBinding().addon.GroupWriter)(memory.native, {
      fd: options.fd,
      zstdLevel: options.zstdLevel,
      threads: options.threads ?? Math.min(availableParallelism(), MAX_THREADS),
      bufferGroups: Math.ceil((options.bufferBytes ?? 0) / GROUP_BYTES),
    });
    this.#native = native;
    this.groups = Math.ceil(memory.sizeBytes / GROUP_BYTES);
    this.#file = options.file;
    this.#wait = new PoolWait(native.sourceId, () => native.progress());
  }

  /** The addon's side: a GroupSink for a write intercept, which must have let go of it before `close`. */
  get native(): NativeGroupWriter {
    return this.#native;
  }

  /**
   * Writes these groups of guest memory, as they are when a thread comes to them. One list at a time.
   *
   * @throws SystemError, as of `idle`; AbortError: then nothing can be written any more.
   */
  async write(
    groups: Uint32Array,
    options: { signal?: AbortSignal | undefined; onProgress?: ((totals: GroupWriterTotals) => void) | undefined } = {},
  ): Promise<GroupWriterTotals> {
    const { signal } = options;
    if (signal?.aborted === true) {
      this.#abort(signal);
      throw new AbortError(signal);
    }
    const abort = (): void => this.#abort(signal);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      this.#native.write(groups);
      return await this.idle(options.onProgress);
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /**
   * Copies these groups as they are now, within `bufferBytes`; they are written from there.
   *
   * @throws VmmError ERR_STATE when there is no room for all of them
   */
  copy(groups: Uint32Array): void {
    this.#native.copy(groups);
  }

  /**
   * Waits until nothing is under way, what was offered included.
   *
   * @throws SystemError of the first write that failed, with the file and where in it; AbortError after `cancel`.
   */
  async idle(onProgress?: (totals: GroupWriterTotals) => void): Promise<GroupWriterTotals> {
    const progress = await this.#wait.idle(onProgress);
    const { failure } = progress;
    if (failure === undefined) return progress;
    if (failure.syscall === 'cancel') throw new AbortError(this.#signal);
    const detail = `${this.#file}, at byte ${failure.fileOffset}`;
    throw new SystemError(failure.syscall, failure.errno, failure.errnoNumber, detail);
  }

  /** Gaps become zeros and the file is synced; nothing can be written after. @throws as `idle`. */
  async finish(): Promise<void> {
    this.#native.finish();
    await this.idle();
  }

  /** What was written so far. */
  get totals(): GroupWriterTotals {
    return this.#native.progress();
  }

  /** See GroupRow; of a writer that is idle. */
  rows(): Uint8Array {
    return this.#native.rows();
  }

  /** The end of what is in use in the file. */
  get fileBytes(): number {
    return this.#native.fileBytes();
  }

  /** Gives up what waits, waits for what is under way, ends the threads. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.cancel();
    await this.#wait.idle();
    this.#wait.close();
    this.#native.close();
  }

  #abort(signal: AbortSignal | undefined): void {
    if (this.#closed) return;
    this.#signal ??= signal;
    this.#native.cancel();
  }
}
