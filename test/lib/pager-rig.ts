/** Guest memory with a pager, and groups in a second memory as its sink or source; all closed when the test ends. */
import { onTestFinished } from 'vitest';
import { loadBinding } from '../../lib/kvm/binding.js';
import type { NativeMemoryGroups } from '../../lib/kvm/native-pager.js';
import { AddressSpace, type Backing, GuestPager, joinClones, userFaultSupport } from '../../lib/memory/index.js';
import { gpa } from '../../lib/base/address.js';

export const GROUP = 65_536;

/** Why this host can't run these tests; undefined where it can. */
export function pagerLack(way: 'instant' | 'lazy', backing: Backing = 'anonymous'): string | undefined {
  const lack = userFaultSupport(backing)[way];
  return lack && `this host lacks ${lack.name}`;
}

export function makeSpace(sizeBytes: number, backing: 'anonymous' | 'memfd' = 'anonymous'): AddressSpace {
  const memory = new AddressSpace({ ranges: [{ gpa: gpa(0), sizeBytes }], backing, hugePages: false });
  onTestFinished(() => memory.close());
  return memory;
}

/** A memory of groups, filled by `byteOf` (one value a group; 0 leaves it alone). */
export function makeGroups(
  sizeBytes: number,
  byteOf: (group: number) => number = () => 0,
): { groups: NativeMemoryGroups; memory: AddressSpace } {
  const memory = makeSpace(sizeBytes);
  for (let group = 0; group * GROUP < sizeBytes; group++) {
    const value = byteOf(group);
    if (value !== 0) memory.fill(group * GROUP, value, Math.min(GROUP, sizeBytes - group * GROUP));
  }
  return { groups: new (loadBinding().addon.MemoryGroups)(memory.native), memory };
}

/** Memory for these groups to come to; of a 'store' it is a clone's, of a snapshot of its own. */
export function makeServed(groups: NativeMemoryGroups, sizeBytes: number, backing: Backing): AddressSpace {
  if (backing !== 'store') return makeSpace(sizeBytes, backing);
  return makeClone(`snapshot ${snapshots++}`, groups, sizeBytes);
}

let snapshots = 0;

/** Memory of one of the clones of a snapshot. */
export function makeClone(key: string, groups: NativeMemoryGroups, sizeBytes: number): AddressSpace {
  const clone = joinClones(key, { share: true, source: groups.source(), sizeBytes });
  const memory = new AddressSpace({ ranges: [{ gpa: gpa(0), sizeBytes }], hugePages: false, clone });
  onTestFinished(() => memory.close());
  return memory;
}

export function makePager(memory: AddressSpace): GuestPager {
  const pager = new GuestPager(memory);
  onTestFinished(() => pager.close());
  return pager;
}
