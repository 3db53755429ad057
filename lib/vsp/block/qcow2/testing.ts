/**
 * For the tests of qcow2: a disk with promises beside a plain byte model of it, random histories, and qemu-img.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { silentLogger } from '../../../base/logger.js';
import { HostVector } from '../../../memory/io-vector.js';
import type { BlockBackend, BlockError } from '../contract.js';
import { qcow2Disk, type Qcow2DiskOptions } from './index.js';
import { RecordingEngine } from './recording-engine.js';

const execute = promisify(execFile);

export const HAS_QEMU_IMG = (process.env['PATH'] ?? '')
  .split(':')
  .some((dir) => existsSync(path.join(dir, 'qemu-img')));

/** @throws Error with its output when it exits with another status than 0 */
export async function qemuImg(...args: string[]): Promise<string> {
  return (await execute('qemu-img', args)).stdout;
}

export async function qemuIo(image: string, format: string, ...commands: string[]): Promise<string> {
  const { stdout } = await execute('qemu-io', ['-f', format, ...commands.flatMap((command) => ['-c', command]), image]);
  if (/failed|error|Invalid/i.test(stdout)) throw new Error(stdout);
  return stdout;
}

export interface CheckResult {
  readonly corruptions: number;
  readonly leaks: number;
  readonly errors: number;
}

/** What `qemu-img check` finds: exit status 2 is corruption, 3 leaks. */
export async function qemuCheck(image: string): Promise<CheckResult> {
  const text = await execute('qemu-img', ['check', '-f', 'qcow2', '--output=json', image]).then(
    ({ stdout }) => stdout,
    (error: unknown) => {
      const { stdout, stderr } = error as { stdout?: string; stderr?: string };
      if (!stdout?.startsWith('{')) throw new Error(`qemu-img check ${image}: ${stderr ?? String(error)}`);
      return stdout;
    },
  );
  const result = JSON.parse(text) as { corruptions?: number; leaks?: number; 'check-errors': number };
  return { corruptions: result.corruptions ?? 0, leaks: result.leaks ?? 0, errors: result['check-errors'] };
}

export function temporaryFolder(): { readonly path: string; readonly remove: () => void } {
  const folder = mkdtempSync(path.join(tmpdir(), 'qcow2-'));
  return { path: folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** Rejects with the BlockError. */
function call(start: (done: (error: BlockError | undefined) => void) => void): Promise<void> {
  return new Promise((resolve, reject) =>
    start((error) => (error ? reject(Object.assign(new Error(error.message), { code: error.code })) : resolve())),
  );
}

export class TestDisk {
  readonly backend: BlockBackend;
  readonly engine: RecordingEngine;

  constructor(backend: BlockBackend, engine: RecordingEngine) {
    this.backend = backend;
    this.engine = engine;
  }

  static async open(
    image: string,
    options: Qcow2DiskOptions = {},
    engine: RecordingEngine = new RecordingEngine(),
  ): Promise<TestDisk> {
    const context = { engine, logger: silentLogger, readOnly: options.readOnly ?? false };
    return new TestDisk(await qcow2Disk(image, options).open(context), engine);
  }

  async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(lengthBytes).fill(0xee);
    await call((done) => this.backend.read(offset, new HostVector(bytes), done));
    return bytes;
  }

  write(offset: number, bytes: Uint8Array): Promise<void> {
    return call((done) => this.backend.write!(offset, new HostVector(bytes), done));
  }

  flush(): Promise<void> {
    return call((done) => this.backend.flush!(done));
  }

  discard(offset: number, lengthBytes: number): Promise<void> {
    return call((done) => this.backend.discard!(offset, lengthBytes, done));
  }

  writeZeroes(offset: number, lengthBytes: number, mayUnmap: boolean): Promise<void> {
    return call((done) => this.backend.writeZeroes!(offset, lengthBytes, mayUnmap, done));
  }

  close(): Promise<void> {
    return this.backend.close();
  }
}

/** Numbers from a seed (mulberry32). */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

export function pattern(seed: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  for (let index = 0; index < lengthBytes; index++) bytes[index] = (seed * 31 + index * 7 + (index >> 8)) & 0xff;
  return bytes;
}

/**
 * Random requests against a disk and its model, several at a time that do not overlap (as the provider guarantees).
 * Discarded sectors are read back, since they may keep their data or become zero.
 */
export async function randomHistory(
  disk: TestDisk,
  model: Uint8Array,
  next: (below: number) => number,
  rounds: number,
  maxSectors: number,
): Promise<void> {
  const sectors = model.length / 512;
  for (let round = 0; round < rounds; round++) {
    const taken: [number, number][] = [];
    const jobs: Promise<void>[] = [];
    for (let index = 0; index < 1 + next(6); index++) {
      const first = next(sectors);
      const count = Math.min(1 + next(maxSectors), sectors - first);
      if (taken.some(([from, to]) => first < to && from < first + count)) continue;
      taken.push([first, first + count]);
      jobs.push(oneRequest(disk, model, next(100), next(256), first * 512, count * 512));
    }
    await Promise.all(jobs);
    if (next(4) === 0) await disk.flush();
  }
}

async function oneRequest(
  disk: TestDisk,
  model: Uint8Array,
  choice: number,
  seed: number,
  offset: number,
  length: number,
): Promise<void> {
  if (choice < 45) {
    const bytes = pattern(seed, length);
    await disk.write(offset, bytes);
    model.set(bytes, offset);
  } else if (choice < 60) {
    await disk.writeZeroes(offset, length, choice < 53);
    model.fill(0, offset, offset + length);
  } else if (choice < 75) {
    await disk.discard(offset, length);
    const now = await disk.read(offset, length);
    for (let at = 0; at < length; at += 512) {
      const sector = now.subarray(at, at + 512);
      const old = Buffer.compare(sector, model.subarray(offset + at, offset + at + 512)) === 0;
      if (!old && sector.some((byte) => byte !== 0))
        throw new Error(`discarded sector at ${offset + at} shows other data`);
    }
    model.set(now, offset);
  } else {
    const now = await disk.read(offset, length);
    const wrong = firstDifference(now, model.subarray(offset, offset + length));
    if (wrong >= 0) throw new Error(`read at ${offset}: byte ${wrong} of ${length} is wrong`);
  }
}

/** The first index where they differ, -1 when nowhere. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  if (Buffer.compare(a, b) === 0) return -1;
  return a.findIndex((byte, index) => byte !== b[index]);
}
