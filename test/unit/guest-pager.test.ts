/** Missing pages without KVM: this thread is the one that waits for them, and native threads alone serve it. */
import { openSync, closeSync, writeFileSync, readSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { loadBinding } from '../../lib/kvm/binding.js';
import { GroupState } from '../../lib/kvm/native-pager.js';
import type { GuestPager } from '../../lib/memory/index.js';
import { GROUP, makeGroups, makePager, makeSpace, pagerLack } from '../lib/pager-rig.js';

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

describe.each(['anonymous', 'memfd'] as const)('a lazy restore of %s memory', (backing) => {
  it('gives the bytes to whoever touches them first, and fills in the rest', async () => {
    const { groups } = makeGroups(SIZE, byteOf);
    const memory = makeSpace(SIZE, backing);
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
    const pager = makePager(makeSpace(SIZE, backing));
    pager.serve(groups.source(), { hot: Uint32Array.of(63, 5, 5, 40) });
    await pager.hotLoaded();
    const states = pager.groupStates();
    expect([63, 5, 40].map((group) => states[group])).toEqual(Array(3).fill(GroupState.FILLED));
    await pager.complete();
  });
});

describe('a memory whose last group is short', () => {
  it('is restored to its end', async () => {
    const size = 3 * GROUP + 4096;
    const { groups } = makeGroups(size, (group) => group + 1);
    const memory = makeSpace(size);
    const pager = makePager(memory);
    pager.serve(groups.source());
    expect(memory.read(size - 1, 1)).toEqual(Uint8Array.of(4));
    await pager.complete();
  });
});

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
