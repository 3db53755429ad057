/**
 * What a guest tells of the members of a folder: each is its name, a /, and then the mode in hexadecimal digits, the size and the time of
 * its last change in seconds, as far as the end of the line. A name may hold anything but / and NUL, so that nothing else parts them.
 */
import { GuestFileError } from '../base/errors.js';

export interface GuestEntry {
  /** Bytes that are no UTF-8 are U+FFFD in it. Never empty, `.` or `..`, and without `/` and NUL. */
  readonly name: string;
  /** The name as it is, where it is no UTF-8. */
  readonly nameBytes?: Uint8Array;
  readonly type: GuestEntryType;
  readonly sizeBytes: number;
  /** Permissions, with set-user-id, set-group-id and sticky bits: at most 0o7777. */
  readonly mode: number;
  /** Since 1970, in whole seconds. */
  readonly modifiedMs: number;
}

export type GuestEntryType = (typeof TYPES)[number] | 'other';

export const TYPES = ['file', 'directory', 'link', 'device', 'pipe', 'socket'] as const;
export const MAX_ENTRIES = 100_000;
/** NAME_MAX of Linux. */
const MAX_NAME_BYTES = 255;
/** Longer than any mode, size and time. */
const MAX_FACTS_BYTES = 64;
const [SLASH, NEWLINE] = [0x2f, 0x0a];

/** Of the mode's upper digit (inode(7)). */
const TYPE_OF: Readonly<Record<number, GuestEntryType>> = {
  0o01: 'pipe',
  0o02: 'device',
  0o04: 'directory',
  0o06: 'device',
  0o10: 'file',
  0o12: 'link',
  0o14: 'socket',
};

/** @throws GuestFileError EPROTO for what is no listing, EFBIG for more entries than are taken */
export function parseListing(what: string, bytes: Buffer): GuestEntry[] {
  const entries: { readonly bytes: Buffer; readonly entry: GuestEntry }[] = [];
  for (let at = 0; at < bytes.length;) {
    const slash = bytes.subarray(at, at + MAX_NAME_BYTES + 1).indexOf(SLASH);
    const facts = at + slash + 1;
    const length = slash < 0 ? -1 : bytes.subarray(facts, facts + MAX_FACTS_BYTES).indexOf(NEWLINE);
    if (length < 0) throw broken(what, 'it ends in the middle');
    if (entries.length === MAX_ENTRIES)
      throw new GuestFileError(`${what}: there are more than ${MAX_ENTRIES} entries`, 'EFBIG');
    const name = bytes.subarray(at, at + slash);
    entries.push({ bytes: name, entry: entryOf(what, name, bytes.toString('latin1', facts, facts + length)) });
    at = facts + length + 1;
  }
  return entries.sort((one, other) => Buffer.compare(one.bytes, other.bytes)).map(({ entry }) => entry);
}

function entryOf(what: string, bytes: Buffer, facts: string): GuestEntry {
  const [, mode = '', size = '', seconds = ''] = /^([0-9a-f]{1,8}) (\d{1,16}) (-?\d{1,12})$/.exec(facts) ?? [];
  const [rawMode, sizeBytes, modifiedMs] = [parseInt(mode, 16), Number(size), Number(seconds) * 1000];
  if (mode === '' || sizeBytes > Number.MAX_SAFE_INTEGER) throw broken(what, 'there is a line that is none of stat');
  const name = bytes.toString('utf8');
  if (name === '' || name === '.' || name === '..' || bytes.includes(0)) throw broken(what, 'a name that no file has');
  return {
    name,
    ...(!Buffer.from(name).equals(bytes) && { nameBytes: Uint8Array.from(bytes) }),
    type: TYPE_OF[(rawMode >>> 12) & 0o17] ?? 'other',
    sizeBytes,
    mode: rawMode & 0o7777,
    modifiedMs,
  };
}

function broken(what: string, why: string): GuestFileError {
  return new GuestFileError(`${what}: what the guest sends is no listing: ${why}`, 'EPROTO');
}
