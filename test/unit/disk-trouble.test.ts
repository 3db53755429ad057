/**
 * A disk whose file gets into trouble while a guest uses it, with the real I/O engine in both kinds: it shrinks, its
 * file system is full, another process has it. The guest sees an error of its request and nothing else; what it has
 * flushed is all there; the process lives on.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, type TestContext } from 'vitest';
import { faultyDisk, fileDisk, qcow2Disk } from '../../lib/index.js';
import type { BlockSource } from '../../lib/vsp/index.js';
import { createQcow2Image } from '../../lib/vsp/block/qcow2/create.js';
import { HAS_QEMU_IMG, qemuCheck, qemuImg } from '../../lib/vsp/block/qcow2/testing.js';
import { DATA_BYTES, DiskGuest, IOERR, OK, type IoKind } from '../lib/disk-guest.js';

const MiB = 1024 * 1024;
const SIZE = 4 * MiB;
const SECTORS = DATA_BYTES / 512;
const kinds = ['io_uring', 'threads'] as const;
let folder: string;
beforeEach((context) => {
  const made = mkdtempSync(path.join(tmpdir(), 'vivarium-trouble-'));
  // Not afterEach: guests and mounts go before it.
  context.onTestFinished(() => rmSync(made, { recursive: true }));
  folder = made;
});

const formats: [string, (file: string) => Promise<BlockSource>][] = [
  [
    'a raw file',
    async (file) => {
      writeFileSync(file, '');
      truncateSync(file, SIZE);
      return fileDisk(file);
    },
  ],
  [
    'a qcow2 image',
    async (file) => {
      await createQcow2Image(file, { sizeBytes: SIZE });
      return qcow2Disk(file);
    },
  ],
];
const cases = kinds.flatMap((kind) => formats.map(([name, make]) => [name, kind, make] as const));

const pattern = (seed: number): Uint8Array =>
  Uint8Array.from({ length: DATA_BYTES }, (_, at) => (seed * 31 + at) & 0xff);
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

async function boot(source: BlockSource, kind: IoKind): Promise<DiskGuest> {
  const guest = await DiskGuest.boot(source, kind);
  onTestFinished(() => guest.close().catch(() => undefined));
  return guest;
}

/** Writes pieces from `first` on until one fails, flushes what did not; the pieces that are flushed. */
async function fill(guest: DiskGuest, statuses: number[]): Promise<number[]> {
  const written: number[] = [];
  for (let piece = 0; piece < SIZE / DATA_BYTES; piece += 8) {
    const batch = Array.from({ length: 8 }, (_, index) => piece + index);
    const results = await Promise.all(batch.map((each) => guest.write(each * SECTORS, pattern(each))));
    statuses.push(...results);
    const fine = batch.filter((_, index) => results[index] === OK);
    if ((await guest.flush()) === OK) written.push(...fine);
  }
  return written;
}

async function expectPieces(guest: DiskGuest, pieces: readonly number[]): Promise<void> {
  for (const piece of pieces) {
    const { status, bytes } = await guest.read(piece * SECTORS);
    expect([piece, status, same(bytes, pattern(piece))]).toEqual([piece, OK, true]);
  }
}

describe.each(cases)('%s, by %s', (_name, kind, make) => {
  it('that shrinks underneath gives errors behind its end, and the rest as before', async () => {
    const file = path.join(folder, 'disk');
    const guest = await boot(await make(file), kind);
    const written = await fill(guest, []);
    expect(written.length).toBe(SIZE / DATA_BYTES);
    const reads = Promise.all(Array.from({ length: 16 }, (_, index) => guest.read(4 * index * SECTORS)));
    truncateSync(file, 2 * MiB);
    // Those on their way end one way or the other.
    for (const { status } of await reads) expect([OK, IOERR]).toContain(status);
    expect((await guest.read((SIZE - DATA_BYTES) / 512)).status).toBe(IOERR);
    await expectPieces(guest, [0, 1, 2]);
    expect(guest.activation.resetReasons).toEqual([]);
  });

  it('on a full file system fails writes with an error, and keeps what was flushed', async (context) => {
    const mounted = path.join(folder, 'full');
    mkdirSync(mounted);
    mountTmpfs(context, mounted, '2m');
    const file = path.join(mounted, 'disk');
    const source = await make(file);
    const guest = await boot(source, kind);
    const statuses: number[] = [];
    const written = await fill(guest, statuses);
    expect(new Set(statuses)).toEqual(new Set([OK, IOERR]));
    expect(written.length).toBeGreaterThan(8);
    await expectPieces(guest, written);
    await guest.close();
    await expectSound(file, source);
    const again = await boot(source, kind);
    await expectPieces(again, written);
    await again.close();
  });

  it('beyond the largest file that it may have fails writes, and goes on when it may again', async () => {
    const file = path.join(folder, 'disk');
    const source = await make(file);
    const guest = await boot(source, kind);
    const statuses: number[] = [];
    limitFiles(2 * MiB);
    let written: number[];
    try {
      written = await fill(guest, statuses);
    } finally {
      limitFiles('unlimited');
    }
    expect(new Set(statuses)).toEqual(new Set([OK, IOERR]));
    expect(written.length).toBeGreaterThan(8);
    await expectPieces(guest, written);
    const more: number[] = [];
    expect((await fill(guest, more)).length).toBe(SIZE / DATA_BYTES);
    expect(new Set(more)).toEqual(new Set([OK]));
    await guest.close();
    await expectSound(file, source);
  });

  it('with sectors that can not be read fails these alone', async () => {
    const lower = await make(path.join(folder, 'disk'));
    const range = { offset: 10 * DATA_BYTES + 512, lengthBytes: 512 };
    const source = faultyDisk(lower, { rules: [{ on: 'read', range, fault: { error: 'io' } }] });
    const guest = await boot(source, kind);
    const written = await fill(guest, []);
    const answers = await Promise.all([8, 9, 10, 11, 12].map((piece) => guest.read(piece * SECTORS)));
    expect(answers.map(({ status }) => status)).toEqual([OK, OK, IOERR, OK, OK]);
    await expectPieces(
      guest,
      written.filter((piece) => piece !== 10),
    );
  });

  it('is refused while another process has it, and has it when that process is gone', async () => {
    const file = path.join(folder, 'disk');
    const source = await make(file);
    const script = path.join(import.meta.dirname, '../lib/lock-child.mjs');
    const child = spawn(process.execPath, [script, file], { stdio: ['pipe', 'pipe', 'inherit'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    const [said] = (await once(child.stdout, 'data')) as [Buffer];
    expect(said.toString()).toBe('locked\n');
    await expect(DiskGuest.boot(source, kind)).rejects.toMatchObject({
      code: 'ERR_DISK_LOCKED',
      message: expect.stringContaining(file),
      cure: expect.any(String),
    });
    child.kill('SIGKILL');
    await once(child, 'exit');
    const guest = await boot(source, kind);
    // And the other way round.
    const refused = execFileSync(process.execPath, [script, file, 'try']).toString();
    expect(refused).toBe('refused\n');
    await guest.close();
  });
});

describe('QEMU', () => {
  it('is kept out of a disk that a guest writes to', async (context) => {
    context.skip(!HAS_QEMU_IMG, 'qemu-img is not installed');
    const file = path.join(folder, 'disk');
    const guest = await boot(await formats[0]![1](file), 'threads');
    await expect(qemuImg('resize', '-f', 'raw', file, '8M')).rejects.toThrow(/lock/);
    await guest.close();
    await qemuImg('resize', '-f', 'raw', file, '8M');
  });
});

async function expectSound(file: string, source: BlockSource): Promise<void> {
  if (source.describe().kind !== 'qcow2' || !HAS_QEMU_IMG) return;
  expect(await qemuCheck(file)).toMatchObject({ corruptions: 0, errors: 0 });
}

function mountTmpfs(context: TestContext, target: string, size: string): void {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'vivarium-test', target], { stdio: 'pipe' });
  } catch (error) {
    context.skip(`a tmpfs can't be mounted: ${(error as Error).message.trim()}`);
  }
  // Lazily: a failed test may have left the file open.
  onTestFinished(() => void execFileSync('umount', ['-l', target]));
}

/** RLIMIT_FSIZE of this process, soft. */
function limitFiles(bytes: number | 'unlimited'): void {
  execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`]);
}
