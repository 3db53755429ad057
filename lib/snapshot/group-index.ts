/**
 * The file `index`: where each group of guest memory stands, for direct access. A header of 32 bytes, then one row for each
 * group (GroupRow of lib/kvm/native-snapshot.ts); all little endian. The manifest has its checksum; the rows are checked
 * here as hostile input all the same.
 *
 *   0 magic 'VIVGROUP'   8 u32 version   12 u32 bytes of a group   16 u64 groups   24 u64 bytes of the file `memory`
 */
import { VmmError } from '../base/errors.js';
import { crc32c } from '../memory/index.js';
import { GroupCodec, GroupRow } from '../kvm/native-snapshot.js';
import { damaged, FORMAT_VERSION, GROUP_BYTES, groupCount } from './format.js';

const MAGIC = Buffer.from('VIVGROUP', 'latin1');
const HEADER_BYTES = 32;
const WORDS = GroupRow.STRIDE / 4;
const WORD = 2 ** 32;
/** The last words of rows without anything else in them, and the upper half of an offset that is surely exact. */
const PLAIN_ZERO = GroupCodec.ZERO << 16;
const PLAIN_RAW = GroupCodec.RAW << 16;
const PLAIN_HIGH = 2 ** 20;
const PLACES_OF_HIGH = WORD / GROUP_BYTES;

let zeroCrcOnce: number | undefined;

/** CRC-32C of a group of zeros. */
export function zeroCrc(): number {
  return (zeroCrcOnce ??= crc32c(new Uint8Array(GROUP_BYTES)));
}

/** So many rows of zero groups are compared in one piece: most of a large memory is zero. */
const ZERO_ROWS = 256;
let zeroRowsOnce: Buffer | undefined;

function zeroRows(): Buffer {
  if (zeroRowsOnce !== undefined) return zeroRowsOnce;
  const rows = Buffer.alloc(ZERO_ROWS * GroupRow.STRIDE);
  for (let row = 0; row < ZERO_ROWS; row++) {
    rows.writeUInt32LE(zeroCrc(), row * GroupRow.STRIDE + GroupRow.CONTENT_CRC);
    rows.writeUInt8(GroupCodec.ZERO, row * GroupRow.STRIDE + GroupRow.CODEC);
  }
  return (zeroRowsOnce = rows);
}

/** A row as an object; made where speed does not matter. */
export interface Row {
  readonly codec: number;
  /** In the file `memory`; of SAME the group that has the bytes. */
  readonly offset: number;
  readonly storedBytes: number;
  readonly storedCrc: number;
  readonly contentCrc: number;
}

/** Rows of groups in memory, as in the file behind its header. */
export class GroupTable {
  readonly groups: number;
  readonly bytes: Uint8Array;
  readonly #words: Uint32Array;
  #special: readonly number[] | undefined;

  /** `bytes` as native code gives them, or new rows, all NONE. */
  constructor(from: Uint8Array | number) {
    if (typeof from === 'number') {
      this.bytes = new Uint8Array(from * GroupRow.STRIDE);
    } else {
      this.bytes = from.byteOffset % 4 === 0 ? from : from.slice();
    }
    this.groups = this.bytes.length / GroupRow.STRIDE;
    this.#words = new Uint32Array(this.bytes.buffer, this.bytes.byteOffset, this.groups * WORDS);
    if (typeof from === 'number') {
      for (let group = 0; group < this.groups; group++) this.#words[group * WORDS + 5] = GroupCodec.NONE << 16;
    }
  }

  codec(group: number): number {
    return (this.#words[group * WORDS + 5]! >>> 16) & 0xff;
  }

  offset(group: number): number {
    return this.#words[group * WORDS + 1]! * WORD + this.#words[group * WORDS]!;
  }

  storedBytes(group: number): number {
    return this.#words[group * WORDS + 2]!;
  }

  storedCrc(group: number): number {
    return this.#words[group * WORDS + 3]!;
  }

  contentCrc(group: number): number {
    return this.#words[group * WORDS + 4]!;
  }

  /** The last word without the codec: the reader's file, and a reserved byte. */
  rest(group: number): number {
    return this.#words[group * WORDS + 5]! & 0xff00_ffff;
  }

  row(group: number): Row {
    return {
      codec: this.codec(group),
      offset: this.offset(group),
      storedBytes: this.storedBytes(group),
      storedCrc: this.storedCrc(group),
      contentCrc: this.contentCrc(group),
    };
  }

  set(group: number, row: Row, file = 0): void {
    const at = group * WORDS;
    this.#words[at] = row.offset % WORD;
    this.#words[at + 1] = Math.floor(row.offset / WORD);
    this.#words[at + 2] = row.storedBytes;
    this.#words[at + 3] = row.storedCrc;
    this.#words[at + 4] = row.contentCrc;
    this.#words[at + 5] = (row.codec << 16) | file;
  }

  /**
   * Has `check` look at every row that is not of the two plain kinds, zero or raw, and at those that are wrong. Where all that is stored is
   * raw, each in a place of its own of the file's 64 KiB pieces, it gives the end of the last one, else undefined. There are 65,536 rows
   * for 4 GiB, and whoever restores waits for this.
   */
  plainEnd(fileBytes: number, check: (group: number) => void): number | undefined {
    // As signed numbers, which are never boxed.
    const ints = new Int32Array(this.bytes.buffer, this.bytes.byteOffset, this.groups * WORDS);
    const zero = zeroCrc() | 0;
    const zeros = zeroRows();
    const special: number[] = [];
    const places = new Uint8Array(Math.min(this.groups, Math.ceil(fileBytes / GROUP_BYTES)));
    let end = 0;
    let isPlain = true;
    for (let group = 0, at = 0; group < this.groups; group++, at += WORDS) {
      if (group % ZERO_ROWS === 0 && this.#startsWith(group, zeros)) {
        group += ZERO_ROWS - 1;
        at += (ZERO_ROWS - 1) * WORDS;
        continue;
      }
      const kind = ints[at + 5]!;
      const low = ints[at]!;
      const high = ints[at + 1]!;
      const stored = ints[at + 2]!;
      const crc = ints[at + 3]!;
      if (kind === PLAIN_ZERO && (low | high | stored | crc) === 0 && ints[at + 4] === zero) continue;
      const isRaw =
        kind === PLAIN_RAW && stored === GROUP_BYTES && crc === ints[at + 4] && high >= 0 && high < PLAIN_HIGH;
      if (!isRaw) {
        check(group);
        special.push(group);
        isPlain &&= !this.isStored(group);
        continue;
      }
      const place = high * PLACES_OF_HIGH + (low >>> 16);
      isPlain &&= (low & 0xffff) === 0 && places[place] === 0;
      if (isPlain) places[place] = 1;
      end = Math.max(end, (place + 1) * GROUP_BYTES);
    }
    this.#special = special;
    return isPlain ? end : undefined;
  }

  /** Groups that may be something else than zero or raw: after plainEnd() those that are. */
  specialGroups(): Iterable<number> {
    return this.#special ?? Array(this.groups).keys();
  }

  #startsWith(group: number, rows: Buffer): boolean {
    const from = this.bytes.byteOffset + group * GroupRow.STRIDE;
    if (group + ZERO_ROWS > this.groups) return false;
    return rows.equals(Buffer.from(this.bytes.buffer, from, rows.length));
  }

  /** Takes over a row of another table, whose codec stands for itself, as of that file of the reader. */
  take(group: number, from: GroupTable, owner: number, file: number): void {
    const at = group * WORDS;
    for (let word = 0; word < WORDS; word++) this.#words[at + word] = from.#words[owner * WORDS + word]!;
    this.#words[at + 5] = (this.#words[at + 5]! & 0x00ff_0000) | file;
  }

  /** Stands for itself in the file. */
  isStored(group: number): boolean {
    const codec = this.codec(group);
    return codec === GroupCodec.RAW || codec === GroupCodec.ZSTD;
  }

  /** The groups that stand for themselves in the file, by where they stand. */
  storedByOffset(): Uint32Array {
    const stored = new Uint32Array(this.groups);
    let count = 0;
    let ascending = true;
    let last = -1;
    for (let group = 0; group < this.groups; group++) {
      if (!this.isStored(group)) continue;
      const offset = this.offset(group);
      ascending &&= offset >= last;
      last = offset;
      stored[count++] = group;
    }
    const found = stored.subarray(0, count);
    if (ascending) return found;
    const by = this.groups;
    // Exact as long as both fit into one number, and then many times faster than to compare by a function.
    const keys = Float64Array.from(found, (group) => this.offset(group) * by + group);
    if (!keys.every((key) => key <= Number.MAX_SAFE_INTEGER)) {
      return found.sort((a, b) => this.offset(a) - this.offset(b));
    }
    return Uint32Array.from(keys.sort(), (key) => key % by);
  }

  /** What no group stands in, ascending: [offset, length], up to `fileBytes`. */
  gaps(fileBytes: number): [number, number][] {
    const gaps: [number, number][] = [];
    let at = 0;
    for (const group of this.storedByOffset()) {
      const offset = this.offset(group);
      if (offset > at) gaps.push([at, offset - at]);
      at = offset + this.storedBytes(group);
    }
    if (fileBytes > at) gaps.push([at, fileBytes - at]);
    return gaps;
  }
}

export function encodeIndex(table: GroupTable, memoryFileBytes: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + table.bytes.length);
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  view.setUint32(8, FORMAT_VERSION, true);
  view.setUint32(12, GROUP_BYTES, true);
  view.setBigUint64(16, BigInt(table.groups), true);
  view.setBigUint64(24, BigInt(memoryFileBytes), true);
  bytes.set(table.bytes, HEADER_BYTES);
  return bytes;
}

/** How long the file is for so much memory. */
export function indexBytes(memoryBytes: number): number {
  return HEADER_BYTES + groupCount(memoryBytes) * GroupRow.STRIDE;
}

export interface IndexExpectation {
  readonly memoryBytes: number;
  readonly memoryFileBytes: number;
  readonly hasParent: boolean;
}

/** @throws VmmError ERR_SNAPSHOT naming `file` and the group, ERR_SNAPSHOT_VERSION for an index of another version. */
export function decodeIndex(bytes: Uint8Array, expected: IndexExpectation, file: string): GroupTable {
  if (bytes.length !== indexBytes(expected.memoryBytes)) throw damaged(file, 'its length is wrong');
  const version = new DataView(bytes.buffer, bytes.byteOffset).getUint32(8, true);
  if (MAGIC.equals(bytes.subarray(0, MAGIC.length)) && version !== FORMAT_VERSION) {
    const known = `this vivarium reads ${FORMAT_VERSION}`;
    throw new VmmError('ERR_SNAPSHOT_VERSION', `${file}: version ${version} of an index; ${known}`);
  }
  const header = encodeIndex(new GroupTable(0), expected.memoryFileBytes);
  new DataView(header.buffer).setBigUint64(16, BigInt(groupCount(expected.memoryBytes)), true);
  if (Buffer.compare(bytes.subarray(0, HEADER_BYTES), header) !== 0) throw damaged(file, 'its header is wrong');
  const table = new GroupTable(bytes.subarray(HEADER_BYTES));
  const fileBytes = expected.memoryFileBytes;
  const end = table.plainEnd(fileBytes, (group) => {
    const wrong = whyWrong(table, group, expected.hasParent);
    if (wrong !== undefined) throw damaged(file, `group ${group}: ${wrong}`);
  });
  if (end === fileBytes || checkExtents(table, fileBytes, file) === fileBytes) return table;
  throw damaged(file, 'it does not cover the file of the memory');
}

/** Where the last group ends, in a file where they don't stand in the order of their numbers. */
function checkExtents(table: GroupTable, fileBytes: number, file: string): number {
  let end = 0;
  for (const group of table.storedByOffset()) {
    const offset = table.offset(group);
    if (offset < end) throw damaged(file, `group ${group}: it overlaps another one in the file`);
    end = offset + table.storedBytes(group);
    if (end > fileBytes) throw damaged(file, `group ${group}: it ends behind the file`);
  }
  return end;
}

function whyWrong(table: GroupTable, group: number, hasParent: boolean): string | undefined {
  if (table.rest(group) !== 0) return 'reserved fields are set';
  const offset = table.offset(group);
  const stored = table.storedBytes(group);
  const storesNothing = stored === 0 && table.storedCrc(group) === 0;
  switch (table.codec(group)) {
    case GroupCodec.ZERO:
      return storesNothing && offset === 0 && table.contentCrc(group) === zeroCrc()
        ? undefined
        : 'a zero group with data';
    case GroupCodec.RAW:
      if (stored !== GROUP_BYTES || table.storedCrc(group) !== table.contentCrc(group))
        return 'a raw group of wrong size';
      return offset <= Number.MAX_SAFE_INTEGER - GROUP_BYTES ? undefined : 'its offset is too large';
    case GroupCodec.ZSTD:
      if (stored === 0 || stored >= GROUP_BYTES) return 'a compressed group of wrong size';
      return offset <= Number.MAX_SAFE_INTEGER - GROUP_BYTES ? undefined : 'its offset is too large';
    case GroupCodec.SAME:
      if (!storesNothing || offset >= group || !table.isStored(offset)) return 'a duplicate of no earlier stored group';
      return table.contentCrc(group) === table.contentCrc(offset) ? undefined : 'a duplicate of a different group';
    case GroupCodec.PARENT:
      if (!hasParent) return 'it is in a parent, and there is none';
      return storesNothing && offset === 0 ? undefined : 'a group of the parent with data';
    default:
      return 'of an unknown codec';
  }
}
