/**
 * A snapshot opened for reading: everything about it is checked when it is opened, but the memory, whose groups are checked
 * when they are read. It holds all files of its chain, so that deleting a snapshot does not disturb who restores it.
 */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { hostClock, type Clock } from '../base/clock.js';
import { AbortError, VmmError } from '../base/errors.js';
import type { SavedPart } from '../base/saved-state.js';
import { naming } from '../base/system-call.js';
import { GroupReader, type AddressSpace } from '../memory/index.js';
import { closeChain, locate, openChain, readManifest, readPart, resolveChain, type Link } from './chain.js';
import { diskFilesOf, verifyDiskFile } from './disk-files.js';
import { allEnded, OpenFolder, readExactly } from './files.js';
import { damaged, FileName, GROUP_BYTES, groupCount } from './format.js';
import type { GroupTable } from './group-index.js';
import { holdAsParent } from './hold.js';
import type { Manifest } from './manifest.js';
import { meter, type SnapshotProgress } from './progress.js';
import { decodeState } from './state-file.js';

/** How much of a gap is looked at at once. */
const GAP_BYTES = 1 << 20;

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: SnapshotProgress) => void) | undefined;
  readonly clock?: Clock | undefined;
}

interface Opened {
  readonly dir: string;
  readonly links: readonly Link[];
  readonly table: GroupTable;
  readonly state: readonly SavedPart[];
  readonly access: Uint16Array | undefined;
}

export class SnapshotReader {
  readonly dir: string;
  readonly id: string;
  readonly createdMs: number;
  readonly memoryBytes: number;
  /** The digest by which children know it. */
  readonly content: string;
  /** As it was given to the writer. Its schema is the machine's. */
  readonly config: unknown;
  readonly state: readonly SavedPart[];
  /** For each group how often it was used, in the unit of who counted; undefined where nobody did. */
  readonly access: Uint16Array | undefined;
  /** Folders of the chain, this snapshot's first. */
  readonly chain: readonly string[];
  readonly #links: readonly Link[];
  readonly #table: GroupTable;
  #groups: GroupReader | undefined;
  #closed = false;

  private constructor({ dir, links, table, state, access }: Opened) {
    const { manifest } = links[0]!;
    this.dir = dir;
    this.id = manifest.id;
    this.createdMs = manifest.createdMs;
    this.memoryBytes = manifest.memoryBytes;
    this.content = manifest.content;
    this.config = manifest.config;
    this.state = state;
    this.access = access;
    this.chain = links.map((link) => link.path);
    this.#links = links;
    this.#table = table;
  }

  /**
   * @throws VmmError ERR_SNAPSHOT for what is no snapshot or a damaged one, ERR_SNAPSHOT_VERSION, ERR_SNAPSHOT_PARENT;
   *   SystemError for a file that can't be read.
   */
  static async open(folderPath: string): Promise<SnapshotReader> {
    const dir = path.resolve(folderPath);
    const folder = await OpenFolder.open(dir);
    try {
      const manifest = await readManifest(folder);
      const opening = openChain(folder, manifest);
      try {
        const [links, state, access] = await allEnded<[Link[], readonly SavedPart[], Uint16Array | undefined]>([
          opening,
          readState(folder, manifest),
          readAccess(folder, manifest),
        ]);
        return new SnapshotReader({ dir, links, table: resolveChain(links), state, access });
      } catch (error) {
        await opening.then(closeChain).catch(() => undefined);
        throw error;
      }
    } finally {
      await folder.close();
    }
  }

  get groups(): number {
    return this.#table.groups;
  }

  /**
   * Where groups come from: its `native` is the GroupSource of a pager. It lives as long as this reader.
   *
   * @throws VmmError ERR_CLOSED; ERR_KVM_CAPABILITY where groups are compressed and libzstd.so.1 is missing.
   */
  source(): GroupReader {
    if (this.#closed) throw new VmmError('ERR_CLOSED', `${this.dir}: the snapshot was closed`);
    this.#groups ??= new GroupReader(
      this.#links.map((link) => ({ fd: link.memory.fd, path: path.join(link.path, FileName.MEMORY) })),
      this.#table.bytes,
      this.#table.groups,
    );
    return this.#groups;
  }

  /**
   * What tells its memory from all other: what is expected of each group, and the files that it is read from, unchanged since. A copy of
   * a snapshot has another one, since a checksum of a group is no proof against who means harm.
   */
  get memoryKey(): string {
    return this.#links
      .map(({ manifest, memoryIdentity }) => `${manifest.parts.index.sha256}:${memoryIdentity}`)
      .join(' ');
  }

  /** Nobody deletes it, or merges into it, until this is closed. @throws as holdAsParent */
  hold(): Promise<void> {
    return holdAsParent(this.dir, this.#links[0]!.memory);
  }

  /** CRC-32C of a group's bytes. */
  contentCrc(group: number): number {
    return this.#table.contentCrc(group);
  }

  /** Whether a group is zero, so that reading it costs nothing. */
  isZero(group: number): boolean {
    return this.#table.storedBytes(group) === 0;
  }

  /**
   * Reads all of it into guest memory of its size; `fresh`: memory that was never touched.
   *
   * @throws GroupReadError; AbortError; RangeError for memory of another size.
   */
  async loadAll(memory: AddressSpace, options: ReadOptions & { readonly fresh?: boolean } = {}): Promise<void> {
    if (memory.sizeBytes !== this.memoryBytes) throw new RangeError('memory: not of the size of the snapshot');
    await this.#load(options, memory, options.fresh ?? false);
  }

  /**
   * Reads everything that this snapshot needs, and what else is in its own files: every byte is held against a check.
   *
   * @throws GroupReadError, VmmError ERR_SNAPSHOT; AbortError.
   */
  async verify(options: ReadOptions = {}): Promise<void> {
    // A file may have changed its length since it was opened.
    const { memory, manifest, path: folder } = this.#links[0]!;
    const file = path.join(folder, FileName.MEMORY);
    const { sizeBytes } = manifest.parts.memory;
    if ((await memory.stat()).size !== sizeBytes) throw damaged(file, 'its length is wrong');
    for (const [offset, length] of this.#links[0]!.table.gaps(sizeBytes)) {
      for (let at = offset; at < offset + length; at += GAP_BYTES) {
        if (options.signal?.aborted === true) throw new AbortError(options.signal);
        const piece = await readExactly(memory, at, Math.min(GAP_BYTES, offset + length - at), file);
        if (piece.some((byte) => byte !== 0)) throw damaged(file, `a byte between groups at ${at} is not zero`);
      }
    }
    await this.#verifyOtherFiles(options.signal);
    await this.#load(options);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#groups?.close();
    await closeChain(this.#links);
  }

  /** Contents of disks, and that the folder holds nothing else. */
  async #verifyOtherFiles(signal: AbortSignal | undefined): Promise<void> {
    const folder = await OpenFolder.open(this.dir);
    try {
      const disks = diskFilesOf(this.state);
      const known = new Set<string>([...Object.values(FileName), ...disks.map(({ name }) => name)]);
      if (this.access === undefined) known.delete(FileName.ACCESS);
      const stray = (await naming(this.dir, () => readdir(this.dir))).find((name) => !known.has(name));
      if (stray !== undefined) throw damaged(folder.file(stray), 'the snapshot has no such file, so nothing checks it');
      for (const disk of disks) await verifyDiskFile(folder, disk, signal);
    } finally {
      await folder.close();
    }
  }

  async #load(options: ReadOptions, memory?: AddressSpace, fresh?: boolean): Promise<void> {
    const { signal, onProgress, clock = hostClock } = options;
    const report = onProgress && meter(clock, this.memoryBytes, onProgress);
    await this.source().load(this.#inFileOrder(), {
      memory,
      fresh,
      signal,
      onProgress: report && ((progress) => report(progress.groupsDone * GROUP_BYTES)),
    });
  }

  /** All groups, those of one file after another and by where they stand in it. */
  #inFileOrder(): Uint32Array {
    const order = Uint32Array.from({ length: this.groups }, (_, group) => group);
    const key = (group: number): number => {
      const { link } = locate(this.#links, group);
      return link * 2 ** 43 + this.#table.offset(group);
    };
    const keys = Float64Array.from(order, key);
    if (keys.every((each, at) => at === 0 || each >= keys[at - 1]!)) return order;
    return order.sort((a, b) => keys[a]! - keys[b]!);
  }
}

async function readState(folder: OpenFolder, { parts }: Manifest): Promise<readonly SavedPart[]> {
  return decodeState(await readPart(folder, FileName.STATE, parts.state), folder.file(FileName.STATE));
}

async function readAccess(folder: OpenFolder, { parts, memoryBytes }: Manifest): Promise<Uint16Array | undefined> {
  if (parts.access === null) return undefined;
  if (parts.access.sizeBytes !== 2 * groupCount(memoryBytes)) {
    throw damaged(folder.file(FileName.ACCESS), 'its length is wrong');
  }
  return new Uint16Array((await readPart(folder, FileName.ACCESS, parts.access)).buffer);
}
