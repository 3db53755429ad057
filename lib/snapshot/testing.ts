/** What the tests of this room share: guest memory with contents of each kind, and snapshots of it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gpa } from '../base/address.js';
import { Random } from '../base/fuzzing.js';
import { AddressSpace } from '../memory/index.js';
import { GROUP_BYTES } from './format.js';
import { SnapshotReader } from './reader.js';
import { SnapshotWriter, type SnapshotContents, type SnapshotWriterOptions } from './writer.js';

export function scratchFolder(): { folder: string; remove: () => void } {
  const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-snapshot-'));
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

export function makeMemory(sizeBytes: number): AddressSpace {
  return new AddressSpace({ ranges: [{ gpa: gpa(0), sizeBytes }], hugePages: false });
}

export type GroupKind = 'zero' | 'random' | 'text' | 'one';

/** A group's bytes by kind and seed: 'text' can be compressed, 'one' is the same for every seed. */
export function groupBytes(kind: GroupKind, seed: number): Uint8Array {
  const bytes = new Uint8Array(GROUP_BYTES);
  if (kind === 'one') return bytes.fill(1);
  if (kind === 'zero') return bytes;
  const random = new Random(seed);
  if (kind === 'random') {
    const words = new Uint32Array(bytes.buffer);
    for (let at = 0; at < words.length; at++) words[at] = random.word();
  } else {
    const words = Array.from({ length: 32 }, () => `word ${random.below(1000)}; `).join('');
    for (let at = 0; at < bytes.length; at++) bytes[at] = words.charCodeAt(at % words.length);
    bytes[seed % GROUP_BYTES]! ^= 0x80;
  }
  return bytes;
}

export function setGroup(memory: AddressSpace, group: number, bytes: Uint8Array): void {
  const at = group * GROUP_BYTES;
  memory.write(at, bytes.subarray(0, Math.min(GROUP_BYTES, memory.sizeBytes - at)));
}

/** Fills every group with a kind that its seed draws. */
export function fillMemory(memory: AddressSpace, seed: number): void {
  const random = new Random(seed);
  for (let group = 0; group * GROUP_BYTES < memory.sizeBytes; group++) {
    const kind = random.of<GroupKind>(['zero', 'random', 'text', 'one', 'random']);
    setGroup(memory, group, groupBytes(kind, random.chance(4) ? 1 : random.word()));
  }
}

export const CONTENTS: SnapshotContents = {
  state: [
    { type: 'test', version: 1, data: { tsc: 2n ** 63n, bytes: Uint8Array.of(1, 2, 3), list: [1, 'two', null] } },
  ],
  config: { memory: '1MiB', cpus: 1 },
};

/** A snapshot of all of the memory, or, with a parent, of the groups named. */
export async function save(
  dir: string,
  memory: AddressSpace,
  options: Partial<SnapshotWriterOptions> & { groups?: number[]; contents?: SnapshotContents } = {},
): Promise<string> {
  const { groups, contents = CONTENTS, ...rest } = options;
  const writer = await SnapshotWriter.create(dir, { memory, ...rest });
  await writer.writeGroups(groups ? Uint32Array.from(groups) : 'all');
  return (await writer.commit(contents)).id;
}

/** What a snapshot makes of memory that held other things before. */
export async function load(dir: string): Promise<Uint8Array> {
  const reader = await SnapshotReader.open(dir);
  const memory = makeMemory(reader.memoryBytes);
  try {
    memory.fill(0, 0xee, memory.sizeBytes);
    await reader.loadAll(memory);
    return memory.read(0, memory.sizeBytes);
  } finally {
    memory.close();
    await reader.close();
  }
}

export function contentOf(memory: AddressSpace): Uint8Array {
  return memory.read(0, memory.sizeBytes);
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
