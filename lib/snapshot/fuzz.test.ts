/**
 * Structure-aware fuzzing of what a snapshot's files say: indexes, manifests and states, each changed in its fields with
 * every digest made to fit. Whatever stands there: an error of its class, or something that keeps every promise of the
 * format, so that native code can execute it.
 */
import { expect, it } from 'vitest';
import { VmmError } from '../base/errors.js';
import { FUZZ_TIMEOUT_MS, fuzz, Random } from '../base/fuzzing.js';
import { GroupCodec } from '../kvm/native-snapshot.js';
import { GroupReader } from '../memory/index.js';
import { FORMAT_VERSION, GROUP_BYTES } from './format.js';
import { decodeIndex, encodeIndex, GroupTable, zeroCrc } from './group-index.js';
import { decodeManifest, digestOf, encodeManifest, type Manifest } from './manifest.js';
import { decodeState, encodeState } from './state-file.js';

const EDGES = [
  0,
  1,
  2,
  3,
  4,
  5,
  255,
  4096,
  GROUP_BYTES - 1,
  GROUP_BYTES,
  GROUP_BYTES + 1,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 53,
  2 ** 63,
];
let accepted = 0;
let refused = 0;

/** The value, or undefined for an error of the class that all of them must be. */
function tried<T>(work: () => T): T | undefined {
  try {
    const value = work();
    accepted++;
    return value;
  } catch (error) {
    if (!(error instanceof VmmError) || !error.code.startsWith('ERR_SNAPSHOT')) throw error;
    refused++;
    return undefined;
  }
}

/** A sound table, and the length of its file. */
function soundTable(random: Random, groups: number, hasParent: boolean): { table: GroupTable; end: number } {
  const table = new GroupTable(groups);
  const none = { offset: 0, storedBytes: 0, storedCrc: 0 };
  let end = 0;
  const stored: number[] = [];
  for (let group = 0; group < groups; group++) {
    const crc = random.word();
    const codec = random.below(hasParent ? 5 : 4);
    if (codec === GroupCodec.SAME && stored.length > 0) {
      const owner = random.of(stored);
      table.set(group, { ...none, codec, offset: owner, contentCrc: table.contentCrc(owner) });
    } else if (codec === GroupCodec.PARENT) {
      table.set(group, { ...none, codec, contentCrc: crc });
    } else if (codec === GroupCodec.RAW || codec === GroupCodec.ZSTD) {
      const storedBytes = codec === GroupCodec.RAW ? GROUP_BYTES : 1 + random.below(GROUP_BYTES - 1);
      end += random.chance(3) ? random.below(10_000) : 0;
      table.set(group, { codec, offset: end, storedBytes, storedCrc: crc, contentCrc: crc });
      end += storedBytes;
      stored.push(group);
    } else {
      table.set(group, { ...none, codec: GroupCodec.ZERO, contentCrc: zeroCrc() });
    }
  }
  return { table, end };
}

function fuzzIndex(random: Random, withReader: boolean): void {
  const groups = 1 + random.below(16);
  const hasParent = random.chance(2);
  const { table, end } = soundTable(random, groups, hasParent);
  const bytes = encodeIndex(table, end);
  const view = new DataView(bytes.buffer);
  const expected = { memoryBytes: groups * GROUP_BYTES, memoryFileBytes: end, hasParent };
  decodeIndex(bytes, expected, 'index');
  for (let change = 0; change <= random.below(3); change++) {
    const at = random.chance(8) ? random.below(8) * 4 : 32 + 4 * random.below((bytes.length - 32) / 4);
    const value = random.chance(2) ? random.of(EDGES) : random.word();
    if (random.chance(4)) view.setUint8(at + random.below(4), value & 0xff);
    else if (random.chance(3) && at + 8 <= bytes.length) view.setBigUint64(at, BigInt(value), true);
    else view.setUint32(at, value >>> 0, true);
  }
  const read = tried(() => decodeIndex(bytes, expected, 'index'));
  if (read === undefined) return;
  let last = 0;
  for (const group of read.storedByOffset()) {
    expect(read.offset(group)).toBeGreaterThanOrEqual(last);
    last = read.offset(group) + read.storedBytes(group);
  }
  expect(last).toBe(end);
  const flat = new GroupTable(groups);
  for (let group = 0; group < groups; group++) {
    const codec = read.codec(group);
    if (codec === GroupCodec.PARENT) {
      expect(hasParent).toBe(true);
      flat.set(group, { codec: GroupCodec.ZERO, offset: 0, storedBytes: 0, storedCrc: 0, contentCrc: 0 });
    } else {
      flat.set(group, read.row(codec === GroupCodec.SAME ? read.offset(group) : group));
    }
  }
  // What was accepted native code takes.
  if (withReader) expect(new GroupReader([{ fd: 0, path: 'none' }], flat.bytes, groups, 1).groups).toBe(groups);
}

const MANIFEST: Manifest = {
  format: 'vivarium snapshot',
  version: FORMAT_VERSION,
  id: '01234567-89ab-cdef-0123-456789abcdef',
  createdMs: 1,
  memoryBytes: GROUP_BYTES,
  content: '0'.repeat(64),
  parent: { id: '01234567-89ab-cdef-0123-456789abcdee', content: '1'.repeat(64), path: '../parent' },
  parts: {
    state: { sizeBytes: 1, sha256: '2'.repeat(64) },
    index: { sizeBytes: 56, sha256: '3'.repeat(64) },
    memory: { sizeBytes: 0 },
    access: null,
  },
  config: { cpus: 1n, name: 'x' },
};
const VALUES: unknown[] = [
  null,
  [],
  {},
  '',
  'x',
  -1,
  0.5,
  1e300,
  true,
  { $n: '1' },
  { $n: 'x' },
  { $o: {} },
  '../../..',
  'a\0b',
  [[[[]]]],
];

/** Some place in a JSON value becomes something else. */
function changed(random: Random, json: unknown): unknown {
  if (typeof json !== 'object' || json === null || random.chance(5)) return random.of(VALUES);
  const keys = Object.keys(json);
  if (keys.length === 0) return random.of(VALUES);
  const key = random.of(keys);
  const copy = (Array.isArray(json) ? [...(json as unknown[])] : { ...json }) as Record<string, unknown>;
  if (random.chance(8)) copy[key] = undefined;
  else if (random.chance(8)) copy[`${key}x`] = random.of(VALUES);
  else copy[key] = changed(random, copy[key]);
  return copy;
}

function fuzzManifest(random: Random): void {
  const text = Buffer.from(encodeManifest(MANIFEST)).toString();
  const { digest: _, ...json } = JSON.parse(text) as Record<string, unknown>;
  const made = JSON.stringify(changed(random, json), undefined, 2);
  const body = `${made.slice(0, -2)},\n`;
  const bytes = Buffer.from(`${body}  "digest": "${digestOf(body)}"\n}\n`);
  const read = tried(() => decodeManifest(bytes, 'manifest'));
  if (read === undefined) return;
  expect(read.parts.memory.sizeBytes).toBeGreaterThanOrEqual(0);
  expect(read.parent?.path ?? 'x').not.toContain('\0');
  expect(tried(() => decodeManifest(encodeManifest(read), 'manifest'))).toEqual(read);
}

const STATE = encodeState([
  { type: 'a', version: 1, data: { n: 5n, b: new Uint8Array(10), list: [1, { x: -0 }] } },
  { type: 'b', version: 2, data: null },
]);

function fuzzState(random: Random): void {
  const json = JSON.parse(Buffer.from(STATE).toString()) as unknown;
  const bytes = Buffer.from(JSON.stringify(changed(random, json)));
  if (random.chance(4)) bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
  const read = tried(() => decodeState(bytes, 'state'));
  if (read) expect(decodeState(encodeState(read), 'state')).toEqual(read);
}

it('whatever the files say, it is refused or it is sound', { timeout: FUZZ_TIMEOUT_MS }, async () => {
  await fuzz('snapshots', (seed) => {
    const random = new Random(seed);
    const kind = random.below(4);
    if (kind === 0) fuzzManifest(random);
    else if (kind === 1) fuzzState(random);
    else fuzzIndex(random, seed % 64 === 0);
  });
  if (accepted + refused > 1000) expect(Math.min(accepted, refused)).toBeGreaterThan(10);
});
