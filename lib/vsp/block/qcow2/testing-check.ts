/**
 * For the tests of qcow2: counts the references of an image by itself, from its bytes and independently of what opens it,
 * as `qemu-img check` does (which costs a process for each of thousands of images). A sample is checked by both.
 */
import { getRefcount } from './refcount-block.js';

export interface CheckResult {
  /** References to what is not counted, not aligned or not in the file; data where a table is. */
  readonly corruptions: number;
  /** Counted more often than named. */
  readonly leaks: number;
}

export function checkImage(bytes: Uint8Array): CheckResult {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const clusterBytes = 1 << view.getUint32(20);
  const bits = 1 << view.getUint32(96);
  const perBlock = (clusterBytes * 8) / bits;
  let corruptions = 0;
  const named = new Map<number, number>();
  const tables = new Set<number>();
  const data = new Set<number>();
  const number = (at: number): bigint => (at + 8 <= bytes.length ? view.getBigUint64(at) : 0n);
  const name = (offset: number, length = clusterBytes, kind = tables): boolean => {
    if (offset % clusterBytes !== 0 || offset >= bytes.length) {
      corruptions++;
      return false;
    }
    for (let at = offset; at < offset + length; at += clusterBytes) {
      named.set(at / clusterBytes, (named.get(at / clusterBytes) ?? 0) + 1);
      kind.add(at / clusterBytes);
    }
    return true;
  };
  const OFFSET = 0x00fffffffffffe00n;
  const COPIED = 1n << 63n;
  name(0);
  const l1 = Number(number(40));
  const l1Entries = view.getUint32(36);
  name(l1, l1Entries * 8);
  const table = Number(number(48));
  const tableBytes = view.getUint32(56) * clusterBytes;
  name(table, tableBytes);
  const blocks: number[] = [];
  for (let at = table; at < table + tableBytes; at += 8) blocks.push(Number(number(at)));
  for (const block of blocks) if (block !== 0) name(block);
  const refcount = (cluster: number): number => {
    const block = blocks[Math.floor(cluster / perBlock)] ?? 0;
    if (block === 0 || block + clusterBytes > bytes.length) return 0;
    return getRefcount(new DataView(bytes.buffer, bytes.byteOffset + block, clusterBytes), bits, cluster % perBlock);
  };
  const follow = (entry: bigint, kind: Set<number>): number | undefined => {
    const offset = Number(entry & OFFSET);
    if (offset === 0) return undefined;
    if (!name(offset, clusterBytes, kind)) return undefined;
    if (((entry & COPIED) !== 0n) !== (refcount(offset / clusterBytes) === 1)) corruptions++;
    return offset;
  };
  for (let index = 0; index < l1Entries; index++) {
    const l2 = follow(number(l1 + index * 8), tables);
    if (l2 === undefined) continue;
    for (let at = l2; at < l2 + clusterBytes; at += 8) {
      if ((number(at) & 0x7f000000000001fen) !== 0n) corruptions++;
      else follow(number(at), data);
    }
  }
  for (const cluster of data) if (tables.has(cluster)) corruptions++;
  let leaks = 0;
  for (const [cluster, count] of named) if (refcount(cluster) < count) corruptions++;
  for (const [index, block] of blocks.entries()) {
    if (block === 0) continue;
    for (let entry = 0; entry < perBlock; entry++) {
      const cluster = index * perBlock + entry;
      if (refcount(cluster) > (named.get(cluster) ?? 0)) leaks++;
    }
  }
  return { corruptions, leaks };
}
