/**
 * For fuzzing qcow2: a chain's files in memory, so that an execution costs microseconds, and images that are changed at
 * the places that mean something. What leaves the rules of the engine or of a chain is noted as a violation.
 */
import type { Random } from '../../../base/fuzzing.js';
import { VmmError } from '../../../base/errors.js';
import type { IoDone, IoEngine } from '../../../memory/io-engine.js';
import type { IoVector } from '../../../memory/io-vector.js';
import type { ChainFiles, OpenedFile } from './chain-files.js';
import { ImageFile } from './image-file.js';

/** A file that grows beyond it has got out of hand; the engine answers ENOSPC. */
const MAX_FILE_BYTES = 2 * 1024 * 1024;
/** Of one execution. */
const MAX_CALLS = 20_000;
const MAX_READ_BYTES = 32 * 1024 * 1024;
const ENOSPC = -28;
const EOPNOTSUPP = -95;

interface MemoryFile {
  readonly path: string;
  readonly store: Uint8Array;
  endBytes: number;
  /** Everything from here on is zero. */
  usedBytes: number;
  writers: number;
}

/** Files by path, and the engine that reads and writes them by descriptors, which are never used twice. */
export class MemoryFiles implements ChainFiles {
  readonly engine: IoEngine;
  readonly violations: string[] = [];
  readonly openedPaths: string[] = [];
  readonly #files = new Map<string, MemoryFile>();
  readonly #links = new Map<string, string>();
  readonly #open = new Map<number, { file: MemoryFile; readOnly: boolean }>();
  readonly #stores: Uint8Array[] = [];
  #lastFd = 0;
  #calls = 0;
  #readBytes = 0;

  constructor() {
    this.engine = {
      kind: 'fake',
      inFlight: 0,
      read: (fd, offset, data, done) => this.#read(fd, offset, data, done),
      write: (fd, offset, data, done) => this.#write(fd, offset, data, done),
      sync: (_fd, done) => queueMicrotask(() => done(0)),
      allocate: (fd, mode, offset, lengthBytes, done) => {
        const opened = this.#open.get(fd);
        if (!opened || opened.readOnly) this.violations.push(`${mode} of a file that may not be written`);
        if (mode !== 'punch-hole' || offset + lengthBytes > MAX_FILE_BYTES) {
          return queueMicrotask(() => done(EOPNOTSUPP));
        }
        opened?.file.store.fill(0, offset, Math.min(offset + lengthBytes, opened.file.endBytes));
        queueMicrotask(() => done(0));
      },
      flush: () => {},
      drained: () => Promise.resolve(),
      close: () => Promise.resolve(),
    };
  }

  get openCount(): number {
    return this.#open.size;
  }

  /** No file, nothing counted. */
  clear(): void {
    for (const { store, usedBytes, endBytes } of this.#files.values()) {
      store.fill(0, 0, usedBytes);
      if (endBytes > usedBytes) store.fill(0, Math.max(0, endBytes - 4096), endBytes);
      this.#stores.push(store);
    }
    this.#files.clear();
    this.#links.clear();
    this.#open.clear();
    this.violations.length = this.openedPaths.length = 0;
    this.#calls = this.#readBytes = 0;
  }

  put(path: string, bytes: Uint8Array): void {
    const store = this.#stores.pop() ?? new Uint8Array(MAX_FILE_BYTES);
    store.set(bytes);
    this.#files.set(path, { path, store, endBytes: bytes.length, usedBytes: bytes.length, writers: 0 });
  }

  link(path: string, target: string): void {
    this.#links.set(path, target);
  }

  bytes(path: string): Uint8Array {
    const { store, endBytes } = this.#files.get(path)!;
    return store.subarray(0, endBytes);
  }

  realPath(path: string): Promise<string | undefined> {
    const real = this.#links.get(path) ?? path;
    return Promise.resolve(this.#files.has(real) ? real : undefined);
  }

  async open(path: string, readOnly: boolean): Promise<OpenedFile> {
    const realPath = await this.realPath(path);
    const file = realPath === undefined ? undefined : this.#files.get(realPath);
    if (!file || realPath === undefined) throw new VmmError('ERR_DISK_IMAGE', `${path} does not exist`);
    this.openedPaths.push(realPath);
    const fd = ++this.#lastFd;
    this.#open.set(fd, { file, readOnly });
    return {
      realPath,
      identity: realPath,
      view: () => Promise.resolve(new ImageFile(path, fd, this.engine, file.endBytes)),
      close: () => {
        this.#open.delete(fd);
        return Promise.resolve();
      },
    };
  }

  #read(fd: number, offset: number, data: IoVector, done: IoDone): void {
    const { file } = this.#call(fd, offset, data.lengthBytes);
    this.#readBytes += data.lengthBytes;
    if (this.#readBytes > MAX_READ_BYTES) this.#violate('reads without end');
    const part = file.store.subarray(
      Math.min(offset, file.endBytes),
      Math.min(file.endBytes, offset + data.lengthBytes),
    );
    data.slice(0, part.length).copyFrom(part);
    queueMicrotask(() => done(part.length));
  }

  #write(fd: number, offset: number, data: IoVector, done: IoDone): void {
    const { file, readOnly } = this.#call(fd, offset, data.lengthBytes);
    if (readOnly) this.#violate(`a write to ${file.path}, which may only be read`);
    const end = offset + data.lengthBytes;
    if (end > MAX_FILE_BYTES) return queueMicrotask(() => done(ENOSPC));
    // The file grows by a write near its new end: what is before stays a hole.
    if (offset <= file.usedBytes + 65536) file.usedBytes = Math.max(file.usedBytes, end);
    else if (file.endBytes > end) file.usedBytes = file.endBytes;
    file.endBytes = Math.max(file.endBytes, end);
    data.copyTo(file.store.subarray(offset, end));
    queueMicrotask(() => done(data.lengthBytes));
  }

  #call(fd: number, offset: number, lengthBytes: number): { file: MemoryFile; readOnly: boolean } {
    if (++this.#calls > MAX_CALLS) this.#violate('calls without end');
    const opened = this.#open.get(fd);
    if (!opened) return this.#violate(`descriptor ${fd} is not open`);
    if (!Number.isSafeInteger(offset) || offset < 0 || lengthBytes < 0) this.#violate(`an access at ${offset}`);
    return opened;
  }

  /** Also ends whoever goes on and on. */
  #violate(what: string): never {
    this.violations.push(what);
    throw new Error(what);
  }
}

const field = (bytes: Uint8Array, at: number): number =>
  at + 8 > bytes.length
    ? 0
    : Number(new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getBigUint64(at) & 0x00ffffffffffffffn);

/** Where the tables of an image are: each is a place to change something. */
export function places(bytes: Uint8Array): Record<string, number> {
  const l1 = field(bytes, 40);
  const table = field(bytes, 48);
  return { l1, table, l2: field(bytes, l1), block: field(bytes, table), 'block+8': field(bytes, table) + 8 };
}

export function edit(bytes: Uint8Array, at: number, width: number, value: bigint): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (at < 0 || at + width > bytes.length) return;
  if (width === 8) view.setBigUint64(at, BigInt.asUintN(64, value));
  else if (width === 4) view.setUint32(at, Number(BigInt.asUintN(32, value)));
  else view.setUint8(at, Number(BigInt.asUintN(8, value)));
}

const INTERESTING = [
  ...[0n, 1n, 2n, 0x1ffn, 0x200n, 0x400n, 0x600n, 0x800n, 0xa00n, 0x1000n, 0x7fffffffn, 0xffffffffn, 0x100000000n],
  ...[0x00ffffffffffe000n, 0x4000000000000000n, 0x8000000000000200n, 0x8000000000000801n, 0xffffffffffffffffn],
];
const HEADER_FIELDS = [0, 4, 8, 16, 20, 24, 32, 36, 40, 48, 56, 60, 64, 72, 79, 80, 88, 96, 100, 104, 108, 112];

/** A copy with some fields of header and tables changed; seldom cut short, seldom as it was. */
export function mutate(source: Uint8Array, random: Random): Uint8Array {
  const bytes = source.slice();
  const tables = Object.values(places(bytes));
  for (let count = random.below(5); count > 0; count--) {
    const inHeader = random.chance(4);
    const at = inHeader ? random.of(HEADER_FIELDS) : random.of(tables) + 8 * random.below(24);
    if (at + 8 > bytes.length) continue;
    const old = new DataView(bytes.buffer).getBigUint64(at);
    const other = field(bytes, random.of(tables) + 8 * random.below(8));
    const value = [
      () => random.of(INTERESTING),
      () => old ^ (1n << BigInt(random.below(64))),
      () => old + BigInt(512 * (random.below(9) - 4)),
      () => BigInt(random.word()) * BigInt(random.word()),
      // What another entry names: loops, and clusters that two share.
      () => BigInt(other) | (random.chance(2) ? 1n << 63n : 0n),
    ][random.below(5)]!();
    edit(bytes, at, random.of([8, 8, 4, 1]), value);
  }
  return random.chance(16) ? bytes.slice(0, random.below(bytes.length + 1)) : bytes;
}
