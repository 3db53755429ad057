import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VmmError } from '../../../base/errors.js';
import type { IoDone, IoEngine } from '../../../memory/io-engine.js';
import type { IoVector } from '../../../memory/io-vector.js';
import { createQcow2Image } from './create.js';
import { pattern, random, temporaryFolder, TestDisk } from './testing.js';
import type { RecordingEngine } from './recording-engine.js';

/** Executions; `QCOW2_FUZZ=1000000` for a long run, `QCOW2_SEED` to repeat one. */
const EXECUTIONS = Number(process.env['QCOW2_FUZZ'] ?? 1000);
const SEED = Number(process.env['QCOW2_SEED'] ?? Date.now() % 1_000_000);
/** A file that grows beyond it has got out of hand; the engine answers ENOSPC. */
const MAX_FILE_BYTES = 2 * 1024 * 1024;
const CODES = ['corrupt', 'unsupported', 'no-space', 'io'];

/** The image in memory, the file only gives it a name and a size. */
class MemoryEngine implements IoEngine {
  readonly kind = 'fake';
  readonly inFlight = 0;
  readonly #store: Uint8Array;
  #end: number;
  constructor(store: Uint8Array, bytes: Uint8Array) {
    this.#store = store.fill(0);
    store.set(bytes);
    this.#end = bytes.length;
  }
  read(_fd: number, offset: number, data: IoVector, done: IoDone): void {
    const part = this.#store.subarray(offset, Math.min(this.#end, offset + data.lengthBytes));
    data.slice(0, part.length).copyFrom(part);
    queueMicrotask(() => done(part.length));
  }
  write(_fd: number, offset: number, data: IoVector, done: IoDone): void {
    const end = offset + data.lengthBytes;
    if (end > MAX_FILE_BYTES) return queueMicrotask(() => done(-28));
    this.#end = Math.max(this.#end, end);
    data.copyTo(this.#store.subarray(offset, end));
    queueMicrotask(() => done(data.lengthBytes));
  }
  sync(_fd: number, done: IoDone): void {
    queueMicrotask(() => done(0));
  }
  allocate(_fd: number, _mode: string, _offset: number, _lengthBytes: number, done: IoDone): void {
    queueMicrotask(() => done(-95));
  }
  flush(): void {}
  async drained(): Promise<void> {}
  async close(): Promise<void> {}
}

let folder: ReturnType<typeof temporaryFolder>;
let file: string;
const store = new Uint8Array(MAX_FILE_BYTES);
const bases: Uint8Array[] = [];

beforeAll(async () => {
  folder = temporaryFolder();
  file = path.join(folder.path, 'fuzzed.qcow2');
  for (const [clusterBytes, refcountBits] of [
    [512, 16],
    [512, 1],
    [1024, 64],
    [4096, 16],
  ] as const) {
    const image = path.join(folder.path, `base-${clusterBytes}-${refcountBits}.qcow2`);
    await createQcow2Image(image, { sizeBytes: 40 * 1024, clusterBytes, refcountBits });
    const disk = await TestDisk.open(image);
    await disk.write(512, pattern(1, 12 * 1024));
    await disk.writeZeroes(4096, 8192, false);
    await disk.close();
    bases.push(new Uint8Array(readFileSync(image)));
  }
});
afterAll(() => folder.remove());

const field = (bytes: Uint8Array, at: number): number =>
  Number(new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getBigUint64(at) & 0x00ffffffffffffffn);

/** Where the tables of an image are: each is a place to change something. */
function places(bytes: Uint8Array): Record<string, number> {
  const l1 = field(bytes, 40);
  const table = field(bytes, 48);
  return { l1, table, l2: field(bytes, l1), block: field(bytes, table), 'block+8': field(bytes, table) + 8 };
}

function edit(bytes: Uint8Array, at: number, width: number, value: bigint): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (at < 0 || at + width > bytes.length) return;
  if (width === 8) view.setBigUint64(at, BigInt.asUintN(64, value));
  else if (width === 4) view.setUint32(at, Number(BigInt.asUintN(32, value)));
  else view.setUint8(at, Number(BigInt.asUintN(8, value)));
}

/** Opens, reads, changes, closes. Returns what failed; throws when that is nothing that may come out. */
async function execute(bytes: Uint8Array): Promise<string[]> {
  truncateSync(file, bytes.length);
  const engine = new MemoryEngine(store, bytes);
  const codes: string[] = [];
  let disk: TestDisk;
  try {
    disk = await TestDisk.open(file, {}, engine as unknown as RecordingEngine);
  } catch (error) {
    if (!(error instanceof VmmError) || error.code !== 'ERR_DISK_IMAGE' || !error.message.includes(file)) throw error;
    return ['ERR_DISK_IMAGE'];
  }
  const end = Math.floor(Math.min(disk.backend.geometry.sizeBytes, 40 * 1024) / 512) * 512;
  const attempt = (task: Promise<unknown>): Promise<void> =>
    task.then(
      () => undefined,
      (error: unknown) => {
        const { code = '' } = error as { code?: string };
        if (!CODES.includes(code)) throw error;
        codes.push(code);
      },
    );
  await attempt(disk.read(0, end));
  await attempt(disk.write(0, pattern(2, Math.min(end, 3 * 1024))));
  await attempt(disk.discard(0, end >= 8192 ? 8192 : end));
  await attempt(disk.flush());
  await attempt(disk.write(0, pattern(3, end)));
  await attempt(disk.writeZeroes(0, end, true));
  await disk.close().catch((error: unknown) => {
    if (!(error instanceof VmmError) || error.code !== 'ERR_SYSTEM') throw error;
    codes.push(error.code);
  });
  return codes;
}

const INTERESTING = [
  0n,
  1n,
  2n,
  0x1ffn,
  0x200n,
  0x400n,
  0x600n,
  0x800n,
  0xa00n,
  0x1000n,
  0x7fffffffn,
  0xffffffffn,
  0x100000000n,
  0x00ffffffffffe000n,
  0x4000000000000000n,
  0x8000000000000200n,
  0x8000000000000801n,
  0xffffffffffffffffn,
];

function mutate(source: Uint8Array, next: (below: number) => number): Uint8Array {
  const bytes = source.slice();
  const where = Object.values(places(bytes));
  const fields = [0, 4, 8, 16, 20, 24, 32, 36, 40, 48, 56, 60, 64, 72, 79, 80, 88, 96, 100, 104, 108, 112];
  for (let count = 1 + next(4); count > 0; count--) {
    const inHeader = next(3) === 0;
    const at = inHeader ? fields[next(fields.length)]! : where[next(where.length)]! + 8 * next(24);
    const width = [8, 8, 4, 1][next(4)]!;
    if (at + 8 > bytes.length) continue;
    const old = new DataView(bytes.buffer).getBigUint64(at);
    const value = [
      () => INTERESTING[next(INTERESTING.length)]!,
      () => old ^ (1n << BigInt(next(64))),
      () => old + BigInt(512 * (next(9) - 4)),
      () => BigInt(next(2 ** 31)) * BigInt(next(2 ** 31)),
    ][next(4)]!();
    edit(bytes, at, width, value);
  }
  return next(12) === 0 ? bytes.slice(0, next(bytes.length + 1)) : bytes;
}

describe('hostile images', () => {
  it('of the saved corpus are refused or read, never more', async () => {
    const corpus = new URL('../../../../test/corpus/qcow2/cases.json', import.meta.url);
    const cases = JSON.parse(readFileSync(corpus, 'utf8')) as {
      name: string;
      edits: [number | string, number, string][];
    }[];
    writeFileSync(file, '');
    for (const { name, edits } of cases) {
      const bytes = bases[0]!.slice();
      const at = places(bytes);
      for (const [place, width, value] of edits) {
        edit(bytes, typeof place === 'number' ? place : at[place]!, width, BigInt(value));
      }
      const codes = await execute(bytes).catch((error: unknown) => {
        throw new Error(`${name}: ${String(error)}`, { cause: error });
      });
      if (edits.length === 0) expect(codes).toEqual([]);
      else expect(codes.length, name).toBeGreaterThan(0);
    }
  });

  it(
    `mutated ${EXECUTIONS} times never raise an exception or eat memory`,
    { timeout: 60_000 + EXECUTIONS * 60 },
    async () => {
      const next = random(SEED);
      writeFileSync(file, '');
      const seen = new Map<string, number>();
      for (let run = 0; run < EXECUTIONS; run++) {
        const bytes = mutate(bases[next(bases.length)]!, next);
        const copy = bytes.slice();
        const codes = await execute(bytes).catch((error: unknown) => {
          const saved = Buffer.from(copy).toString('base64');
          const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
          throw new Error(`QCOW2_SEED=${SEED}, run ${run}: ${text}\n${saved}`, { cause: error });
        });
        for (const code of new Set(codes.length === 0 ? ['none'] : codes)) seen.set(code, (seen.get(code) ?? 0) + 1);
      }
      // The mutations reach every layer.
      for (const code of ['none', 'ERR_DISK_IMAGE', 'corrupt', 'unsupported']) {
        expect(seen.get(code) ?? 0, `QCOW2_SEED=${SEED}: ${code}`).toBeGreaterThan(0);
      }
    },
  );
});
