/**
 * Guest memory in groups: 64 KiB, aligned, by offset into its mapping; the last one may be shorter. Native code takes
 * them as runs: pairs of the first group and how many follow one another.
 */
import { PAGE_SIZE } from '../base/units.js';
import { GROUP_BYTES } from '../kvm/native-snapshot.js';

export { GROUP_BYTES };
export const PAGES_PER_GROUP = GROUP_BYTES / PAGE_SIZE;

/** How many groups a memory of that size has. */
export function groupCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / GROUP_BYTES);
}

/** The run that is the whole of a memory. */
export function allGroups(sizeBytes: number): Uint32Array {
  return new Uint32Array([0, groupCount(sizeBytes)]);
}

/** Runs of the groups that `has` holds for. */
export function groupRuns(count: number, has: (group: number) => boolean): Uint32Array {
  const runs: number[] = [];
  for (let group = 0; group < count; group++) {
    if (!has(group)) continue;
    const first = group;
    while (group + 1 < count && has(group + 1)) group++;
    runs.push(first, group + 1 - first);
  }
  return Uint32Array.from(runs);
}
