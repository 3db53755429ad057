/**
 * File requests into guest memory that is protected or missing: the kernel's own copies wait for the pager as a vCPU
 * does, on io_uring and on threads, and JavaScript is not needed for it.
 */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { gpa } from '../../lib/base/address.js';
import {
  DirtyEpochs,
  GuestVector,
  NativeIoEngine,
  OwnDirtyLog,
  WriteIntercept,
  type AddressSpace,
} from '../../lib/memory/index.js';
import { GROUP, makeGroups, makePager, makeSpace, pagerLack } from '../lib/pager-rig.js';

const GROUPS = 32;
const SIZE = GROUPS * GROUP;

beforeEach((context) => {
  const lack = pagerLack('instant') ?? pagerLack('lazy');
  if (lack !== undefined) context.skip(lack);
});

function openFile(content: Uint8Array): { fd: number; path: string } {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-paged-'));
  const path = join(folder, 'data');
  writeFileSync(path, content);
  const fd = openSync(path, 'r+');
  onTestFinished(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });
  return { fd, path };
}

function all(memory: AddressSpace, group: number, count: number): GuestVector {
  return new GuestVector(memory, [gpa(group * GROUP)], [count * GROUP]);
}

describe.each(['io_uring', 'threads'] as const)('file requests by %s', (kind) => {
  function engineOn(memory: AddressSpace): NativeIoEngine {
    const engine = new NativeIoEngine(memory, { kind });
    onTestFinished(() => engine.close());
    return engine;
  }

  it('that write to protected groups come after the instant, and are marked', async () => {
    const memory = makeSpace(SIZE);
    memory.fill(0, 7, SIZE);
    const engine = engineOn(memory);
    const { fd } = openFile(new Uint8Array(SIZE).fill(9));
    const epochs = new DirtyEpochs(SIZE / 4096);
    epochs.addSource(new OwnDirtyLog(memory));
    const consumer = epochs.consumer('test');
    const out = makeGroups(SIZE);
    const intercept = new WriteIntercept(makePager(memory));
    intercept.prepare({ bufferGroups: 2 });
    intercept.begin(out.groups.sink());
    const read = new Promise<number>((resolve) => engine.read(fd, 0, all(memory, 4, 10), resolve));
    const other = new Promise<number>((resolve) => engine.read(fd, 0, all(memory, 20, 1), resolve));
    intercept.walk();
    expect(await Promise.all([read, other])).toEqual([10 * GROUP, GROUP]);
    await intercept.ended();
    expect(out.memory.read(0, SIZE).every((byte) => byte === 7)).toBe(true);
    expect(memory.read(4 * GROUP, 10 * GROUP).every((byte) => byte === 9)).toBe(true);
    expect([...consumer.take().groupRuns()]).toEqual([4, 10, 20, 1]);
  });

  it('move bytes between a file and groups that are missing', async () => {
    const from = makeGroups(SIZE, (group) => group + 1);
    const memory = makeSpace(SIZE);
    const pager = makePager(memory);
    pager.serve(from.groups.source());
    const engine = engineOn(memory);
    const { fd, path } = openFile(new Uint8Array(GROUP).fill(99));
    const written = new Promise<number>((resolve) => engine.write(fd, GROUP, all(memory, 25, 2), resolve));
    const read = new Promise<number>((resolve) => engine.read(fd, 0, all(memory, 30, 1), resolve));
    expect(await Promise.all([written, read])).toEqual([2 * GROUP, GROUP]);
    await pager.complete();
    const file = readFileSync(path);
    expect([file[GROUP], file[2 * GROUP], file.length]).toEqual([26, 27, 3 * GROUP]);
    expect([memory.read(30 * GROUP, 1)[0], memory.read(31 * GROUP, 1)[0]]).toEqual([99, 32]);
  });

  it('bring nothing to a disk of a group that can not be had', async () => {
    const from = makeGroups(SIZE, (group) => group + 1);
    const memory = makeSpace(SIZE);
    const pager = makePager(memory);
    from.groups.failAt(25, 'checksum', 0, 100);
    pager.serve(from.groups.source());
    const engine = engineOn(memory);
    const { fd, path } = openFile(new Uint8Array(GROUP).fill(99));
    const written = new Promise<number>((resolve) => engine.write(fd, 0, all(memory, 25, 1), resolve));
    expect(await written).toBe(-constants.errno.EFAULT);
    await expect(pager.complete()).rejects.toThrow(expect.objectContaining({ code: 'ERR_PAGER' }) as Error);
    expect(readFileSync(path).every((byte) => byte === 99)).toBe(true);
  });
});
