/** Missing pages without KVM: this thread is the one that waits for them, and native threads alone serve it. */
import { openSync, closeSync, writeFileSync, readSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { loadBinding } from '../../lib/kvm/binding.js';
import { GroupState, type NativeGroupSource } from '../../lib/kvm/native-pager.js';
import { GroupCodec, GroupRow } from '../../lib/kvm/native-snapshot.js';
import { crc32c, GroupReader, type GuestPager } from '../../lib/memory/index.js';
import { until } from '../lib/machine.js';
import { GROUP, makeClone, makeGroups, makePager, makeServed, makeSpace, pagerLack } from '../lib/pager-rig.js';

const SIZE = 64 * GROUP;
const byteOf = (group: number): number => (group % 3 === 0 ? 0 : (group % 250) + 1);
const refused = (fields: object = {}): Error =>
  expect.objectContaining({ code: 'ERR_PAGER', cause: expect.objectContaining(fields) as object }) as Error;

beforeEach((context) => {
  const lack = pagerLack('lazy');
  if (lack !== undefined) context.skip(lack);
});

/** Until the first group that can't be had, or all of it. */
async function ended(pager: GuestPager): Promise<unknown> {
  return pager.complete().catch((error: unknown) => error);
}

describe.each(['anonymous', 'memfd', 'store'] as const)('a lazy restore of %s memory', (backing) => {
  it('gives the bytes to whoever touches them first, and fills in the rest', async () => {
    const { groups } = makeGroups(SIZE, byteOf);
    const memory = makeServed(groups, SIZE, backing);
    const pager = makePager(memory);
    pager.serve(groups.source());
    // Without asking before: the thread waits in the fault.
    const raw = new Uint8Array(memory.native.view(0, SIZE));
    expect(raw[50 * GROUP + 77]).toBe(byteOf(50));
    expect(memory.read(10 * GROUP - 1, 2)).toEqual(Uint8Array.of(byteOf(9), byteOf(10)));
    memory.write(20 * GROUP + 5, Uint8Array.of(255));
    const cost = await pager.complete();
    expect(cost.missingGroups).toBe(0);
    for (let group = 0; group < 64; group++) {
      const bytes = memory.read(group * GROUP, GROUP);
      const wanted = new Uint8Array(GROUP).fill(byteOf(group));
      if (group === 20) wanted[5] = 255;
      expect(Buffer.compare(bytes, wanted)).toBe(0);
    }
    const states = pager.groupStates();
    expect(states.every((state) => state >= GroupState.FAULTED && state < GroupState.FAILED)).toBe(true);
  });

  it('takes the hot groups first, each group once', async () => {
    const { groups } = makeGroups(SIZE, byteOf);
    const pager = makePager(makeServed(groups, SIZE, backing));
    pager.serve(groups.source(), { hot: Uint32Array.of(63, 5, 5, 40) });
    await pager.hotLoaded();
    const states = pager.groupStates();
    expect([63, 5, 40].map((group) => states[group])).toEqual(Array(3).fill(GroupState.FILLED));
    await pager.complete();
  });
});

describe.each(['anonymous', 'store'] as const)('%s memory whose last group is short', (backing) => {
  it('is restored to its end', async () => {
    const size = 3 * GROUP + 4096;
    const { groups } = makeGroups(size, (group) => group + 1);
    const memory = makeServed(groups, size, backing);
    const pager = makePager(memory);
    pager.serve(groups.source());
    expect(memory.read(size - 1, 1)).toEqual(Uint8Array.of(4));
    await pager.complete();
  });
});

describe('clones of one snapshot', () => {
  it('read each group once, and none sees what another writes', async () => {
    const { groups } = makeGroups(SIZE, byteOf);
    const first = makeClone('written', groups, SIZE);
    const pager = makePager(first);
    pager.serve(groups.source());
    await pager.complete();
    first.fill(0, 0xee, SIZE);
    // Whoever comes later reads nothing any more.
    for (let group = 0; group < 64; group++) groups.failAt(group, 'checksum', 0, 100);
    const second = makeClone('written', groups, SIZE);
    const later = makePager(second);
    later.serve(groups.source());
    for (let group = 0; group < 64; group++) {
      expect(second.read(group * GROUP + 3, 1)).toEqual(Uint8Array.of(byteOf(group)));
    }
    await later.complete();
    expect(first.read(5 * GROUP, 1)).toEqual(Uint8Array.of(0xee));
    expect(first.clone?.store?.status()).toEqual({ groups: 64, held: 42, taken: 64, isSealed: true });
  });

  it('at once, each touching what others bring, have the same bytes', async () => {
    const { groups } = makeGroups(SIZE, byteOf);
    const clones = Array.from({ length: 6 }, () => {
      const memory = makeClone('at once', groups, SIZE);
      const pager = makePager(memory);
      pager.serve(groups.source());
      return { memory, pager };
    });
    for (let group = 63; group >= 0; group -= 7) {
      for (const { memory } of clones) expect(memory.read(group * GROUP, 1)).toEqual(Uint8Array.of(byteOf(group)));
    }
    await Promise.all(clones.map(({ pager }) => pager.complete()));
    for (const { memory } of clones) {
      for (let group = 0; group < 64; group++) expect(memory.read(group * GROUP, 1)[0]).toBe(byteOf(group));
    }
    const { held, taken } = clones[0]!.memory.clone!.store!.status();
    expect([held, taken]).toEqual([42, 5 * 64]);
  });

  it('each fail by a group that can not be had, and not by one that the others got', async () => {
    const { groups } = makeGroups(SIZE, byteOf);
    groups.failAt(7, 'checksum', 0, 8);
    const pagers = [1, 2].map(() => {
      const pager = makePager(makeClone('corrupted', groups, SIZE));
      pager.serve(groups.source());
      return pager;
    });
    for (const pager of pagers) expect(await ended(pager)).toEqual(refused({ why: 'checksum', group: 7 }));
    const third = makePager(makeClone('corrupted', groups, SIZE));
    third.serve(groups.source());
    expect((await third.complete()).missingGroups).toBe(0);
  });

  it('leave nothing behind, in whatever order they go', async () => {
    const { runtime } = loadBinding().dispatcher;
    const before = runtime.counts();
    const { groups } = makeGroups(SIZE, byteOf);
    const [first, second, third] = [1, 2, 3].map(() => makeClone('closed', groups, SIZE));
    const pagers = [first!, second!, third!].map((memory) => {
      const pager = makePager(memory);
      pager.serve(groups.source());
      return pager;
    });
    pagers[1]!.close();
    second!.close();
    await pagers[0]!.complete();
    pagers[0]!.close();
    first!.close();
    expect(third!.read(GROUP, 1)).toEqual(Uint8Array.of(byteOf(1)));
    expect(runtime.counts().groupStores).toBe(before.groupStores + 1);
    pagers[2]!.close();
    third!.close();
    expect(runtime.counts().groupStores).toBe(before.groupStores);
  });
});

describe('blocks that are zero in a snapshot', () => {
  it('are left to the kernel, and known as touched when they were', async () => {
    const groups = 96;
    const memory = makeSpace(groups * GROUP);
    const pager = makePager(memory);
    pager.serve(oneGroup(33, groups), { hot: Uint32Array.of(33, 70) });
    await pager.hotLoaded();
    expect(pager.groupStates()[33]).toBe(GroupState.FILLED);
    await pager.complete();
    // Of the block in the middle alone was anything missing.
    const { FILLED } = GroupState;
    expect(pager.groupStates()).toEqual(new Uint8Array(groups).fill(FILLED));
    expect(pager.touchedGroups()).toEqual(new Uint8Array(groups));
    expect(memory.read(33 * GROUP, 1)).toEqual(Uint8Array.of(1));
    expect(memory.read(70 * GROUP, 1)).toEqual(Uint8Array.of(0));
    memory.fill(80 * GROUP + 4096, 9, 4096);
    const touched = pager.touchedGroups();
    expect([...touched.keys()].filter((group) => touched[group] === 1)).toEqual([70, 80]);
  });
});

/** A source of so many groups that are zero but for one of ones. */
function oneGroup(one: number, groups: number): NativeGroupSource {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-groups-'));
  const path = join(folder, 'memory');
  const bytes = new Uint8Array(GROUP).fill(1);
  writeFileSync(path, bytes);
  const fd = openSync(path, 'r');
  const rows = new DataView(new ArrayBuffer(groups * GroupRow.STRIDE));
  const at = one * GroupRow.STRIDE;
  rows.setUint32(at + GroupRow.STORED_BYTES, GROUP, true);
  rows.setUint32(at + GroupRow.STORED_CRC, crc32c(bytes), true);
  rows.setUint32(at + GroupRow.CONTENT_CRC, crc32c(bytes), true);
  rows.setUint8(at + GroupRow.CODEC, GroupCodec.RAW);
  const reader = new GroupReader([{ fd, path }], new Uint8Array(rows.buffer), groups);
  onTestFinished(async () => {
    await reader.close();
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });
  return reader.native.source();
}

describe('a read that fails', () => {
  it.each(['EIO', 'EAGAIN', 'EINTR'])('is tried again where that can help: %s', async (name) => {
    const errno = { EIO: 5, EAGAIN: 11, EINTR: 4 }[name]!;
    const { groups } = makeGroups(SIZE, byteOf);
    groups.failAt(7, 'system', errno, 3);
    const memory = makeSpace(SIZE);
    const pager = makePager(memory);
    pager.serve(groups.source());
    expect(memory.read(7 * GROUP, 1)).toEqual(Uint8Array.of(byteOf(7)));
    expect((await pager.complete()).retries).toBe(3);
  });

  it.each([
    ['short-read', 0, 'short-read'],
    ['checksum', 0, 'checksum'],
    ['decompress', 0, 'decompress'],
    ['system', 5, 'system'],
    ['system', 2, 'system'],
  ] as const)('fails the whole memory: %s, errno %i', async (kind, errno, why) => {
    const { groups } = makeGroups(SIZE, byteOf);
    groups.failAt(7, kind, errno, 100);
    const memory = makeSpace(SIZE);
    const pager = makePager(memory);
    pager.serve(groups.source());
    const fields = { why, group: 7, fileOffset: 7 * GROUP, errnoNumber: errno };
    expect(await ended(pager)).toEqual(refused(fields));
    for (const touch of [
      () => memory.read(7 * GROUP, 1),
      () => memory.write(7 * GROUP, new Uint8Array(1)),
      () => memory.fill(7 * GROUP, 1, 10),
      () => memory.view(7 * GROUP, 8),
      () => memory.window(7 * GROUP, 8),
      () => memory.mappingOffset(7 * GROUP, 8),
      () => memory.readInto(7 * GROUP, new Uint8Array(8)),
    ]) {
      expect(touch).toThrow(refused(fields));
    }
  });

  it('lets the kernel go that waits for the page, with EFAULT where it can be poisoned', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'vivarium-pager-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const file = join(folder, 'data');
    writeFileSync(file, new Uint8Array(4096));
    const fd = openSync(file, 'r');
    onTestFinished(() => closeSync(fd));
    const { groups } = makeGroups(SIZE, byteOf);
    groups.failAt(7, 'checksum', 0, 100);
    const memory = makeSpace(SIZE);
    const pager = makePager(memory);
    pager.serve(groups.source());
    const target = new Uint8Array(memory.native.view(7 * GROUP, 4096));
    let caught: unknown;
    try {
      readSync(fd, target, 0, 4096, 0);
    } catch (error) {
      caught = error;
    }
    if (loadBinding().addon.userFaultSupport().features & (1 << 14)) {
      expect(caught).toEqual(expect.objectContaining({ code: 'EFAULT' }));
    }
    expect(await ended(pager)).toEqual(refused({ group: 7 }));
  });

  it('that never ends is given up, and host code waits no longer than it said', async () => {
    const { groups } = makeGroups(SIZE, byteOf);
    groups.failAt(7, 'hang', 0, 1);
    onTestFinished(() => groups.letGo());
    const memory = makeSpace(SIZE);
    const pager = makePager(memory);
    pager.serve(groups.source(), { readTimeoutMs: 1000, ensureTimeoutMs: 20 });
    const late = expect.objectContaining({ code: 'ERR_PAGER', message: expect.stringContaining('20 ms') as string });
    expect(() => memory.read(7 * GROUP, 1)).toThrow(late);
    expect(await ended(pager)).toEqual(refused({ why: 'timeout', group: 7, errnoNumber: 110 }));
    groups.letGo();
  });
});

describe('a read that is slow', () => {
  it('holds up nobody who wants another group, and all comes in the end', async () => {
    const { groups } = makeGroups(SIZE, byteOf);
    groups.failAt(5, 'hang', 0, 1);
    const memory = makeSpace(SIZE);
    const pager = makePager(memory);
    pager.serve(groups.source(), { hot: Uint32Array.of(20) });
    await until(() => pager.groupStates()[5] === GroupState.LOADING);
    for (const group of [31, 9, 63, 40]) expect(memory.read(group * GROUP, 1)).toEqual(Uint8Array.of(byteOf(group)));
    expect(pager.groupStates()[5]).toBe(GroupState.LOADING);
    groups.letGo();
    await pager.complete();
    for (let group = 0; group < 64; group++) expect(memory.read(group * GROUP, 1)[0]).toBe(byteOf(group));
  });
});

describe('the end of a pager', () => {
  it('in the middle leaves what is missing guarded', () => {
    const { groups } = makeGroups(SIZE, byteOf);
    groups.failAt(63, 'hang', 0, 1);
    onTestFinished(() => groups.letGo());
    const memory = makeSpace(SIZE);
    const pager = makePager(memory);
    pager.serve(groups.source());
    expect(memory.read(GROUP, 1)).toEqual(Uint8Array.of(byteOf(1)));
    // Still hanging, so that it can't have come.
    pager.close();
    pager.close();
    expect(() => memory.read(63 * GROUP, 1)).toThrow(expect.objectContaining({ code: 'ERR_PAGER' }) as Error);
  });

  it('takes its threads along', async () => {
    const { runtime } = loadBinding().dispatcher;
    const before = runtime.counts().threads;
    const { groups } = makeGroups(SIZE, byteOf);
    const pager = makePager(makeSpace(SIZE));
    pager.serve(groups.source());
    await pager.complete();
    pager.close();
    // The event thread may have come with the first pager.
    expect(runtime.counts().threads).toBeLessThanOrEqual(before + 1);
  });

  it('refuses what comes after it, and a source of another size', () => {
    const memory = makeSpace(SIZE);
    const pager = makePager(memory);
    const { groups } = makeGroups(2 * SIZE);
    expect(() => pager.serve(groups.source())).toThrow(RangeError);
    expect(() => pager.serve({})).toThrow(TypeError);
    expect(() => pager.serve(groups.sink() as never)).toThrow(TypeError);
    pager.close();
    expect(() => pager.serve(groups.source())).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }) as Error);
  });
});
