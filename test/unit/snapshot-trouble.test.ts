/**
 * A snapshot whose disk gets into trouble while it is written: the error names the file, nothing is left behind, and the
 * next attempt succeeds when the trouble is over.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, type TestContext } from 'vitest';
import { Random } from '../../lib/base/fuzzing.js';
import { gpa } from '../../lib/base/address.js';
import { AddressSpace } from '../../lib/memory/index.js';
import { SnapshotWriter, verifySnapshot } from '../../lib/snapshot/index.js';

const MiB = 1024 * 1024;
let folder: string;
let memory: AddressSpace;

beforeEach((context) => {
  const made = mkdtempSync(path.join(tmpdir(), 'vivarium-trouble-'));
  const space = new AddressSpace({ ranges: [{ gpa: gpa(0), sizeBytes: 8 * MiB }], hugePages: false });
  // Not afterEach: mounts go before it.
  context.onTestFinished(() => {
    space.close();
    rmSync(made, { recursive: true });
  });
  folder = made;
  memory = space;
  const random = new Random(1);
  const words = new Uint32Array(MiB / 4);
  for (let at = 0; at < 8 * MiB; at += MiB) {
    for (let index = 0; index < words.length; index++) words[index] = random.word();
    memory.write(at, new Uint8Array(words.buffer));
  }
});

async function save(dir: string, stateBytes = 100): Promise<void> {
  const writer = await SnapshotWriter.create(dir, { memory, compress: 'none' });
  await writer.writeGroups('all');
  await writer.commit({ state: [{ type: 'test', version: 1, data: 'x'.repeat(stateBytes) }], config: {} });
}

const system = (errno: string, file: string): unknown =>
  expect.objectContaining({ code: 'ERR_SYSTEM', errno, message: expect.stringContaining(file) });

describe('a save', () => {
  it.each([
    ['in the memory', '4m', 100],
    ['in the state', '10m', 8 * MiB],
  ])('that fills its file system %s ends with ENOSPC', async (_name, size, stateBytes) => {
    const mounted = mountTmpfs(size);
    const dir = path.join(mounted, 'snap');
    await expect(save(dir, stateBytes)).rejects.toEqual(system('ENOSPC', mounted));
    expect(readdirSync(mounted)).toEqual([]);
    execFileSync('mount', ['-o', 'remount,size=32m', mounted]);
    await save(dir, stateBytes);
    await verifySnapshot(dir);
  });

  it('with an offered copy that finds no space says so when it is waited for', async () => {
    const mounted = mountTmpfs('1m');
    const writer = await SnapshotWriter.create(path.join(mounted, 'snap'), { memory, compress: 'none' });
    const sink = writer.sinkForPager();
    for (let group = 0; group < 128; group++) {
      // Taken and dropped after the failure: nobody waits for a disk that is full.
      expect(sink.offer(group, memory.read(group * 65_536, 65_536))).toBe(true);
    }
    await expect(writer.drained()).rejects.toEqual(system('ENOSPC', 'memory'));
    expect(readdirSync(mounted)).toEqual([]);
  });

  it('beyond the largest file that it may have ends with EFBIG', async () => {
    const dir = path.join(folder, 'snap');
    limitFiles(2 * MiB);
    try {
      await expect(save(dir)).rejects.toEqual(system('EFBIG', folder));
    } finally {
      limitFiles('unlimited');
    }
    expect(readdirSync(folder)).toEqual([]);
    await save(dir);
    await verifySnapshot(dir);
  });

  it('on a file system that is read-only ends with EROFS', async () => {
    const mounted = mountTmpfs('32m');
    const dir = path.join(mounted, 'snap');
    execFileSync('mount', ['-o', 'remount,ro', mounted]);
    await expect(save(dir)).rejects.toEqual(system('EROFS', mounted));
    execFileSync('mount', ['-o', 'remount,rw', mounted]);
    await save(dir);
    await verifySnapshot(dir);
  });

  it('into what is no folder ends with ENOTDIR', async () => {
    writeFileSync(path.join(folder, 'file'), '');
    await expect(save(path.join(folder, 'file', 'snap'))).rejects.toEqual(system('ENOTDIR', folder));
  });

  let skip: TestContext['skip'];
  beforeEach((context) => {
    skip = context.skip;
  });

  function mountTmpfs(size: string): string {
    const target = path.join(folder, 'mounted');
    mkdirSync(target);
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'vivarium-test', target], { stdio: 'pipe' });
    } catch (error) {
      skip(`a tmpfs can't be mounted: ${(error as Error).message.trim()}`);
    }
    // Lazily: a failed test may have left a file open.
    onTestFinished(() => void execFileSync('umount', ['-l', target]));
    return target;
  }
});

/** RLIMIT_FSIZE of this process, soft. */
function limitFiles(bytes: number | 'unlimited'): void {
  execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`]);
}
