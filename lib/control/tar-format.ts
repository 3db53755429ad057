/**
 * tar archives: headers of pax and ustar (POSIX.1-2008, pax) with the long names of GNU tar, as bytes. What writes and reads the
 * streams is tar-files.ts and tar-reader.ts.
 *
 * | offset | size | field        | offset | size | field                |
 * | 0      | 100  | name         | 156    | 1    | type                 |
 * | 100    | 8    | mode, octal  | 157    | 100  | link name            |
 * | 108    | 8    | uid          | 257    | 8    | magic and version    |
 * | 116    | 8    | gid          | 265    | 64   | user and group name  |
 * | 124    | 12   | size         | 329    | 16   | device numbers       |
 * | 136    | 12   | mtime        | 345    | 155  | prefix of the name   |
 * | 148    | 8    | checksum     |        |      |                      |
 */
import { VmmError } from '../base/errors.js';

export const BLOCK_BYTES = 512;

export type TarKind = 'file' | 'directory' | 'symlink' | 'hardlink' | 'other';

export interface TarEntry {
  readonly name: string;
  readonly kind: TarKind;
  /** Permissions, of at most 0o7777. */
  readonly mode: number;
  readonly sizeBytes: number;
  /** Seconds since 1970. */
  readonly mtimeS: number;
  /** Of links. */
  readonly linkName: string;
}

const TYPES: Readonly<Record<string, TarKind>> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '5': 'directory',
};
const CODES: Readonly<Record<Exclude<TarKind, 'other' | 'hardlink'>, string>> = {
  file: '0',
  symlink: '2',
  directory: '5',
};
const MAX_OCTAL_SIZE = 0o77777777777;

export function broken(what: string): VmmError {
  return new VmmError('ERR_CONTROL', `an archive that is none: ${what}`);
}

/** The headers of an entry: one, or with a pax header before it for what does not fit. Owner and group are root. */
export function encodeHeader(entry: Omit<TarEntry, 'kind'> & { readonly kind: keyof typeof CODES }): Buffer {
  const { name, linkName, sizeBytes } = entry;
  const long: [string, string][] = [];
  if (Buffer.byteLength(name) > 100) long.push(['path', name]);
  if (Buffer.byteLength(linkName) > 100) long.push(['linkpath', linkName]);
  if (sizeBytes > MAX_OCTAL_SIZE) long.push(['size', String(sizeBytes)]);
  const main = header(name, CODES[entry.kind], entry);
  if (long.length === 0) return main;
  const records = Buffer.concat(long.map(([key, value]) => paxRecord(key, value)));
  const extended = header('pax', 'x', { ...entry, sizeBytes: records.length, linkName: '' });
  return Buffer.concat([extended, records, padding(records.length), main]);
}

/** What fills the last block. */
export function padding(sizeBytes: number): Buffer {
  return Buffer.alloc((BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES);
}

function header(
  name: string,
  type: string,
  { mode, sizeBytes, mtimeS, linkName }: Pick<TarEntry, 'mode' | 'sizeBytes' | 'mtimeS' | 'linkName'>,
): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, at: number, digits: number): void => {
    block.write(`${Math.max(0, Math.floor(value)).toString(8).padStart(digits, '0').slice(-digits)}\0`, at, 'latin1');
  };
  Buffer.from(name).copy(block, 0, 0, 100);
  octal(mode, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(Math.min(sizeBytes, MAX_OCTAL_SIZE), 124, 11);
  octal(mtimeS, 136, 11);
  block.write(type, 156, 'latin1');
  Buffer.from(linkName).copy(block, 157, 0, 100);
  block.write('ustar\x0000', 257, 'latin1');
  block.write(`${checksum(block).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** "LENGTH KEY=VALUE\n", where LENGTH counts itself. */
function paxRecord(key: string, value: string): Buffer {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest + String(rest).length;
  if (rest + String(length).length !== length) length = rest + String(length).length;
  return Buffer.from(`${length} ${key}=${value}\n`);
}

/** The sum of the header's bytes, with the checksum's own as blanks. */
function checksum(block: Buffer): number {
  let sum = 0;
  for (let at = 0; at < BLOCK_BYTES; at++) sum += at >= 148 && at < 156 ? 0x20 : block[at]!;
  return sum;
}

/** A header with its type as written; undefined for a block of zeros. @throws VmmError ERR_CONTROL */
export function decodeHeader(block: Buffer): (TarEntry & { readonly type: string }) | undefined {
  if (block.every((byte) => byte === 0)) return undefined;
  if (checksum(block) !== number(block, 148, 8)) throw broken('the checksum of a header is wrong');
  const type = String.fromCharCode(block[156]!);
  const prefix = block.toString('latin1', 257, 263) === 'ustar\0' ? text(block, 345, 155) : '';
  const name = text(block, 0, 100);
  return {
    name: prefix === '' ? name : `${prefix}/${name}`,
    type,
    kind: TYPES[type] ?? 'other',
    mode: number(block, 100, 8) & 0o7777,
    sizeBytes: number(block, 124, 12),
    mtimeS: number(block, 136, 12),
    linkName: text(block, 157, 100),
  };
}

/** What is used of pax headers: the rest could be without end. */
const PAX_KEYS = new Set(['path', 'linkpath', 'size', 'mtime']);

/** The records of a pax header that are used. @throws VmmError ERR_CONTROL, for a sparse file too */
export function decodePax(payload: Buffer): Map<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < payload.length;) {
    const blank = payload.indexOf(0x20, at);
    const digits = blank < 0 ? '' : payload.toString('latin1', at, blank);
    const length = /^\d{1,7}$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    const equals = payload.indexOf(0x3d, blank);
    if (length <= digits.length + 1 || end > payload.length || payload[end - 1] !== 0x0a) throw broken('a pax record');
    if (equals < 0 || equals >= end) throw broken('a pax record without a value');
    const key = payload.toString('utf8', blank + 1, equals);
    if (key.startsWith('GNU.sparse')) throw broken('a sparse file');
    if (PAX_KEYS.has(key)) records.set(key, payload.toString('utf8', equals + 1, end - 1));
    at = end;
  }
  return records;
}

/** A text that ends with a NUL or its field. */
function text(block: Buffer, at: number, length: number): string {
  const end = block.subarray(at, at + length).indexOf(0);
  return block.toString('utf8', at, end < 0 ? at + length : at + end);
}

/** Octal digits, or with the highest bit set a number to the base of 256 (GNU tar). */
function number(block: Buffer, at: number, length: number): number {
  if ((block[at]! & 0x80) !== 0) {
    let value = block[at]! & 0x7f;
    for (let offset = 1; offset < length; offset++) value = value * 256 + block[at + offset]!;
    if (!Number.isSafeInteger(value)) throw broken('a number that is too large');
    return value;
  }
  const digits = text(block, at, length).trim();
  if (!/^[0-7]*$/.test(digits)) throw broken(`${JSON.stringify(digits)} is no octal number`);
  return digits === '' ? 0 : parseInt(digits, 8);
}
