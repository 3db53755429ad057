/**
 * Writes a snapshot: memory by groups, as often as a way to save needs it, then state and manifest, then the one rename that
 * makes it one. Until then it is a draft beside (draft.ts), and whatever fails or is aborted leaves nothing of it behind.
 * Which groups are written when, and that a group written while the guest ran is written again, is its user's matter.
 */
import { randomUUID } from 'node:crypto';
import { lstat, open, type FileHandle } from 'node:fs/promises';
import { constants } from 'node:os';
import path from 'node:path';
import { hostClock, type Clock } from '../base/clock.js';
import { AbortError, SystemError, VmmError } from '../base/errors.js';
import type { SavedPart } from '../base/saved-state.js';
import { naming, systemError } from '../base/system-call.js';
import { canCompress, GroupWriter, lockFile, type AddressSpace, type GroupWriterTotals } from '../memory/index.js';
import { GroupCodec } from '../kvm/native-snapshot.js';
import { diskFilesOf } from './disk-files.js';
import { Draft } from './draft.js';
import { writeNew } from './files.js';
import { FileName, FORMAT_VERSION, GROUP_BYTES, Limit } from './format.js';
import { encodeIndex, GroupTable } from './group-index.js';
import { configText, digestOf, encodeManifest, type Manifest } from './manifest.js';
import { meter, type SnapshotProgress } from './progress.js';
import { SnapshotReader } from './reader.js';
import { encodeState } from './state-file.js';

/** What zstd is fastest with and still halves most memory. */
const ZSTD_LEVEL = 1;

export interface SnapshotWriterOptions {
  readonly memory: AddressSpace;
  /** 'zstd' where it is not given and this machine has it. */
  readonly compress?: 'zstd' | 'none' | undefined;
  /** The folder of the snapshot that groups which are never written are taken from. */
  readonly parent?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Room for copies of a write intercept, in bytes; 64 MiB where it is not given. Its pages come with their first use. */
  readonly bufferBytes?: number | undefined;
  readonly threads?: number | undefined;
  readonly clock?: Clock | undefined;
}

/** What a snapshot is made of besides memory. */
export interface SnapshotContents {
  readonly state: readonly SavedPart[];
  readonly config: unknown;
  /** For each group how often it was used. */
  readonly access?: Uint16Array | undefined;
}

const BUFFER_BYTES = 64 << 20;

export class SnapshotWriter {
  /** The snapshot to be. */
  readonly dir: string;
  readonly id: string = randomUUID();
  readonly groups: number;
  readonly #draft: Draft;
  readonly #file: FileHandle;
  readonly #writer: GroupWriter;
  readonly #parent: SnapshotReader | undefined;
  readonly #options: SnapshotWriterOptions;
  readonly #clock: Clock;
  #ended: Promise<void> | undefined;

  private constructor(
    dir: string,
    draft: Draft,
    file: FileHandle,
    writer: GroupWriter,
    parent: SnapshotReader | undefined,
    options: SnapshotWriterOptions,
  ) {
    this.dir = dir;
    this.groups = writer.groups;
    this.#draft = draft;
    this.#file = file;
    this.#writer = writer;
    this.#parent = parent;
    this.#options = options;
    this.#clock = options.clock ?? hostClock;
  }

  /**
   * Begins a snapshot that will be `folder`, in an existing folder.
   *
   * @throws SystemError EEXIST where something is there already, or naming what can't be made; VmmError ERR_SNAPSHOT,
   *   ERR_SNAPSHOT_PARENT for the parent; ERR_KVM_CAPABILITY for 'zstd' without libzstd.so.1; RangeError for memory that is too large.
   */
  static async create(folder: string, options: SnapshotWriterOptions): Promise<SnapshotWriter> {
    const dir = path.resolve(folder);
    const { memory, compress = canCompress() ? 'zstd' : 'none' } = options;
    if (memory.sizeBytes > Limit.MEMORY_BYTES) throw new RangeError('memory: too large for a snapshot');
    if (options.signal?.aborted === true) throw new AbortError(options.signal);
    await refuseExisting(dir);
    const parent = options.parent === undefined ? undefined : await SnapshotReader.open(options.parent);
    let draft: Draft | undefined;
    let file: FileHandle | undefined;
    try {
      if (parent && parent.memoryBytes !== memory.sizeBytes) {
        throw new VmmError('ERR_SNAPSHOT_PARENT', `${parent.dir}: a parent with memory of another size`);
      }
      await parent?.hold();
      draft = await Draft.make(dir);
      const name = draft.file(FileName.MEMORY);
      const handle = await naming(name, () => open(name, 'wx+', 0o600));
      file = handle;
      lockFile(handle.fd, 'exclusive');
      const writer = new GroupWriter(memory, {
        fd: handle.fd,
        file: name,
        zstdLevel: compress === 'zstd' ? ZSTD_LEVEL : 0,
        threads: options.threads,
        bufferBytes: options.bufferBytes ?? BUFFER_BYTES,
      });
      return new SnapshotWriter(dir, draft, handle, writer, parent, options);
    } catch (error) {
      await file?.close();
      await draft?.remove();
      await parent?.close();
      throw error;
    }
  }

  /**
   * Writes these groups of guest memory, or all, as they are when a thread comes to them. One call at a time. A failure
   * ends the whole snapshot.
   *
   * @throws SystemError of a write, naming the file; AbortError.
   */
  async writeGroups(
    groups: Uint32Array | 'all',
    onProgress?: (progress: SnapshotProgress) => void,
  ): Promise<GroupWriterTotals> {
    const list = groups === 'all' ? Uint32Array.from({ length: this.groups }, (_, group) => group) : groups;
    const report = onProgress && meter(this.#clock, list.length * GROUP_BYTES, onProgress);
    return this.#orAbort(() => {
      const before = this.#writer.totals.groupsDone;
      return this.#writer.write(list, {
        signal: this.#options.signal,
        onProgress: report && (({ groupsDone }) => report((groupsDone - before) * GROUP_BYTES)),
      });
    });
  }

  /** Where it is made: further files of the snapshot that its state tells of go here, synced, before the commit. */
  get draftFolder(): string {
    return this.#draft.folder;
  }

  /** Groups that `copyGroups` and a write intercept may have waiting. */
  get bufferGroups(): number {
    return Math.ceil((this.#options.bufferBytes ?? BUFFER_BYTES) / GROUP_BYTES);
  }

  /** Copies groups as they are now; `drained` resolves when they are written. @throws VmmError ERR_STATE beyond `bufferGroups`. */
  copyGroups(groups: Uint32Array): Promise<void> {
    return this.#orAbort(() => {
      this.#writer.copy(groups);
      return Promise.resolve();
    });
  }

  /** Where a write intercept hands its copies: a GroupSink of the addon. It may outlive the writer. */
  sinkForPager(): GroupWriter['native'] {
    return this.#writer.native;
  }

  /** Resolves when all that was offered to the sink is written. @throws as writeGroups. */
  drained(): Promise<GroupWriterTotals> {
    return this.#orAbort(() => this.#writer.idle());
  }

  /** Groups written so far, those again that were written again. */
  get groupsDone(): number {
    return this.#writer.totals.groupsDone;
  }

  /**
   * Every group was written, or is as in the parent: makes it a snapshot. After it nothing is left to close.
   *
   * @throws SystemError naming the file; AbortError; VmmError ERR_STATE for a group that was never written. Nothing is
   *   left behind then.
   */
  async commit(contents: SnapshotContents): Promise<{ id: string; bytes: number; zeroGroups: number }> {
    return this.#orAbort(async () => {
      await this.#writer.finish();
      this.#checkSignal();
      const table = this.#finishedTable();
      const manifest = await this.#writeParts(table, contents);
      this.#checkSignal();
      await writeNew(this.#draft.file(FileName.MANIFEST), encodeManifest(manifest));
      // It was held; this is for what asks no locks.
      await this.#parent?.hold();
      this.#checkSignal();
      await this.#draft.publish();
      const zeroGroups = this.#zeroGroups(table);
      await this.abort();
      const { state, index, memory, access } = manifest.parts;
      const ofDisks = diskFilesOf(contents.state).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      return {
        id: this.id,
        bytes: state.sizeBytes + index.sizeBytes + memory.sizeBytes + (access?.sizeBytes ?? 0) + ofDisks,
        zeroGroups,
      };
    });
  }

  /** Gives the snapshot up and removes the draft. Idempotent; after a commit it does nothing. @throws SystemError */
  abort(): Promise<void> {
    this.#ended ??= (async () => {
      await this.#writer.close();
      await this.#file.close();
      await this.#parent?.close();
      await this.#draft.remove();
    })();
    return this.#ended;
  }

  #zeroGroups(table: GroupTable): number {
    let count = 0;
    for (let group = 0; group < table.groups; group++) {
      const codec = table.codec(group);
      if (codec === GroupCodec.ZERO || (codec === GroupCodec.PARENT && this.#parent!.isZero(group))) count++;
    }
    return count;
  }

  #finishedTable(): GroupTable {
    const table = new GroupTable(this.#writer.rows());
    const parent = this.#parent;
    for (let group = 0; group < table.groups; group++) {
      if (table.codec(group) !== GroupCodec.NONE) continue;
      if (parent === undefined) throw new VmmError('ERR_STATE', `${this.dir}: group ${group} was never written`);
      const contentCrc = parent.contentCrc(group);
      table.set(group, { codec: GroupCodec.PARENT, offset: 0, storedBytes: 0, storedCrc: 0, contentCrc });
    }
    return table;
  }

  async #writeParts(table: GroupTable, contents: SnapshotContents): Promise<Manifest> {
    const memoryBytes = this.#options.memory.sizeBytes;
    const memoryFileBytes = this.#writer.fileBytes;
    const { access } = contents;
    if (access !== undefined && access.length !== table.groups) throw new RangeError('access: not one for each group');
    const write = async (name: string, bytes: Uint8Array) => {
      await writeNew(this.#draft.file(name), bytes);
      return { sizeBytes: bytes.length, sha256: digestOf(bytes) };
    };
    const index = await write(FileName.INDEX, encodeIndex(table, memoryFileBytes));
    const state = await write(FileName.STATE, encodeState(contents.state));
    const bytesOfAccess = access && new Uint8Array(access.buffer, access.byteOffset, access.byteLength);
    const parent = this.#parent;
    return {
      format: 'vivarium snapshot',
      version: FORMAT_VERSION,
      id: this.id,
      createdMs: this.#clock.wallMs(),
      memoryBytes,
      content: contentDigest(table, state.sha256, contents.config),
      parent: parent ? { id: parent.id, content: parent.content, path: path.relative(this.dir, parent.dir) } : null,
      parts: {
        state,
        index,
        memory: { sizeBytes: memoryFileBytes },
        access: bytesOfAccess ? await write(FileName.ACCESS, bytesOfAccess) : null,
      },
      config: contents.config,
    };
  }

  async #orAbort<T>(work: () => Promise<T>): Promise<T> {
    if (this.#ended) throw new VmmError('ERR_CLOSED', `${this.dir}: the writer of the snapshot has ended`);
    try {
      return await work();
    } catch (error) {
      // What it failed with says more than that the draft can't be removed either.
      await this.abort().catch(() => undefined);
      throw error;
    }
  }

  #checkSignal(): void {
    const { signal } = this.#options;
    if (signal?.aborted === true) throw new AbortError(signal);
  }
}

/** By which children know their parent: it does not depend on where groups stand. */
export function contentDigest(table: GroupTable, stateSha256: string, config: unknown): string {
  const crcs = Uint32Array.from({ length: table.groups }, (_, group) => table.contentCrc(group));
  return digestOf(stateSha256, digestOf(configText(config)), new Uint8Array(crcs.buffer));
}

async function refuseExisting(dir: string): Promise<void> {
  try {
    await lstat(dir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw systemError(error, dir);
  }
  throw new SystemError('mkdir', 'EEXIST', constants.errno.EEXIST, dir);
}
