/**
 * Structure-aware fuzzing of the qcow2 reader and writer, and of the chains that images name. Each execution opens an
 * image, reads and changes it, and closes it. Whatever stands in the files: an error or bytes, never an exception, an
 * endless loop, a write to a backing file, a file outside of the folder. An image that was consistent keeps every byte
 * and stays consistent.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VmmError } from '../../../base/errors.js';
import { FUZZ_RUNS, FUZZ_TIMEOUT_MS, fuzz, type FuzzerName, Random } from '../../../base/fuzzing.js';
import { silentLogger } from '../../../base/logger.js';
import { HostVector } from '../../../memory/io-vector.js';
import type { BlockDone, BlockError } from '../contract.js';
import type { Qcow2Backend } from './backend.js';
import { createQcow2Image } from './create.js';
import { edit, MemoryFiles, mutate, places } from './fuzzing.js';
import { openQcow2 } from './open.js';
import { checkImage } from './testing-check.js';
import { firstDifference, pattern, temporaryFolder, TestDisk } from './testing.js';

const CODES = ['corrupt', 'unsupported', 'no-space', 'io'];
const DISK_BYTES = 40 * 1024;
const IMAGE = '/images/disk.qcow2';
const FOLDER = path.dirname(IMAGE);

const files = new MemoryFiles();
const images: Uint8Array[] = [];
const overlays: Uint8Array[] = [];
/** Base images of overlays, by the name that stands in them. */
const NAMES = [
  'base.raw',
  'base.qcow2',
  'disk.qcow2',
  'loop.qcow2',
  'link',
  '../other/secret',
  '/other/secret',
  'none',
];
const PROTOCOLS = ['json:{"driver":"null"}', 'nbd:unix:/x', 'a'.repeat(300), '.', '..', '/'];
const seen = new Map<string, number>();
const base = pattern(9, 24 * 1024);
let loop: Uint8Array;

beforeAll(async () => {
  const folder = temporaryFolder();
  let made = 0;
  const make = async (options: Omit<Parameters<typeof createQcow2Image>[1], 'sizeBytes'>): Promise<Uint8Array> => {
    const image = path.join(folder.path, `${made++}.qcow2`);
    await createQcow2Image(image, { sizeBytes: DISK_BYTES, ...options });
    return new Uint8Array(readFileSync(image));
  };
  try {
    for (const [clusterBytes, refcountBits] of [
      [512, 16],
      [512, 1],
      [1024, 64],
      [4096, 16],
    ] as const) {
      const empty = await make({ clusterBytes, refcountBits });
      files.put(IMAGE, empty);
      const disk = new TestDisk(await open(false), undefined as never);
      await disk.write(512, pattern(1, 12 * 1024));
      await disk.writeZeroes(4096, 8192, false);
      await disk.discard(8192, 1024);
      await disk.close();
      images.push(files.bytes(IMAGE).slice(0, 64 * 1024));
      files.clear();
    }
    for (const name of [...NAMES, ...PROTOCOLS]) {
      for (const format of ['raw', 'qcow2', 'vmdk'] as const) {
        overlays.push(await make({ clusterBytes: 512, backing: { name, format: format as 'raw' } }));
      }
    }
    loop = await make({ clusterBytes: 512, backing: { name: path.basename(IMAGE), format: 'qcow2' } });
  } finally {
    folder.remove();
  }
});
afterAll(() => files.clear());

/** With write access the reader that it returns is a whole backend. */
function open(readOnly: boolean): Promise<Qcow2Backend> {
  const options = { files, logger: silentLogger, readOnly, backingFolders: [], backingFormat: undefined };
  const opened: Promise<unknown> = openQcow2(IMAGE, { ...options, cacheBytes: 4096 });
  return opened as Promise<Qcow2Backend>;
}

/** The error of one request, undefined without one; its callback may come once only. */
function request(start: (done: BlockDone) => void): Promise<BlockError | undefined> {
  let calls = 0;
  return new Promise((resolve, reject) => {
    start((error) => {
      if (++calls > 1) files.violations.push('a request ended twice');
      if (error && !CODES.includes(error.code)) reject(new Error(`${error.code}: ${error.message}`, { cause: error }));
      resolve(error);
    });
  });
}

/** What reads give beside a model of it, where the image is one that has a right answer. */
class Session {
  readonly codes = new Set<string>();
  readonly #disk: Qcow2Backend;
  readonly #model: Uint8Array | undefined;

  constructor(disk: Qcow2Backend, model: Uint8Array | undefined) {
    this.#disk = disk;
    this.#model = model;
  }

  async read(offset: number, lengthBytes: number): Promise<void> {
    const data = new HostVector(new Uint8Array(lengthBytes).fill(0xee));
    if ((await this.#end((done) => this.#disk.read(offset, data, done))) || !this.#model) return;
    const wrong = firstDifference(data.bytes, this.#model.subarray(offset, offset + lengthBytes));
    if (wrong >= 0) throw new Error(`read at ${offset}: byte ${wrong} of ${lengthBytes} is wrong`);
  }

  async change(random: Random, offset: number, lengthBytes: number): Promise<void> {
    const disk = this.#disk;
    const model = this.#model?.subarray(offset, offset + lengthBytes);
    switch (random.below(6)) {
      case 0: {
        if (await this.#end((done) => disk.discard(offset, lengthBytes, done))) return;
        const data = new HostVector(new Uint8Array(lengthBytes));
        if (!(await this.#end((done) => disk.read(offset, data, done)))) model?.set(data.bytes);
        return;
      }
      case 1:
        if (!(await this.#end((done) => disk.writeZeroes(offset, lengthBytes, random.chance(2), done)))) model?.fill(0);
        return;
      case 2:
        await this.#end((done) => disk.flush(done));
        return;
      default: {
        const bytes = pattern(random.below(256), lengthBytes);
        if (!(await this.#end((done) => disk.write(offset, new HostVector(bytes), done)))) model?.set(bytes);
      }
    }
  }

  /** One of everything, so that each entry is used. */
  async sweep(end: number): Promise<void> {
    const disk = this.#disk;
    const write = async (seed: number, lengthBytes: number): Promise<void> => {
      const bytes = pattern(seed, lengthBytes);
      if (!(await this.#end((done) => disk.write(0, new HostVector(bytes), done)))) this.#model?.set(bytes);
    };
    await this.read(0, end);
    await write(2, Math.min(end, 3 * 1024));
    await this.#end((done) => disk.flush(done));
    await write(3, end);
    if (!(await this.#end((done) => disk.writeZeroes(0, end, true, done)))) this.#model?.fill(0);
  }

  async #end(start: (done: BlockDone) => void): Promise<boolean> {
    const error = await request(start);
    if (error) this.codes.add(error.code);
    // What had a right answer is not refused, unless the file is full.
    if (error && this.#model && error.code !== 'no-space') throw new Error(`${error.code}: ${error.message}`);
    return error !== undefined;
  }
}

/** Whether everything that the image's tables say is right, so that its content is known. */
function isConsistent(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return bytes.length % (1 << view.getUint32(20)) === 0 && checkImage(bytes).corruptions === 0;
}

/** Opens, reads, changes, closes. Returns what failed; throws when that is nothing that may come out. */
async function execute(bytes: Uint8Array, random: Random, readOnly: boolean, sweep = false): Promise<Set<string>> {
  let disk: Qcow2Backend;
  try {
    disk = await open(readOnly);
  } catch (error) {
    if (!(error instanceof VmmError) || error.code !== 'ERR_DISK_IMAGE' || !error.message.includes(FOLDER)) throw error;
    finish();
    return new Set(['ERR_DISK_IMAGE']);
  }
  const end = Math.floor(disk.sizeBytes / 512) * 512;
  // What is known is what an image that is whole shows before anything changes.
  let model: Uint8Array | undefined;
  if (!readOnly && end <= 2 * DISK_BYTES && isConsistent(bytes)) {
    const data = new HostVector(new Uint8Array(end));
    const error = await request((done) => disk.read(0, data, done));
    if (!error) model = data.bytes;
  }
  const session = new Session(disk, model);
  if (sweep && end > 0) await session.sweep(end);
  for (let step = 1 + random.below(4); step > 0 && end > 0; step--) {
    const from = random.chance(8) ? Math.max(0, end - 4096) : 0;
    const offset = from + 512 * random.below(Math.min(end - from, DISK_BYTES) / 512);
    const length = Math.min(512 * (1 + random.below(8)), end - offset);
    if (!readOnly && !random.chance(4)) await session.change(random, offset, length);
    await session.read(offset, length);
  }
  if (model) await session.read(0, end);
  await disk.close().catch((error: unknown) => {
    if (!(error instanceof VmmError) || error.code !== 'ERR_SYSTEM' || model) throw error;
    session.codes.add(error.code);
  });
  finish();
  if (model) {
    expect(checkImage(files.bytes(IMAGE)).corruptions, 'corruptions').toBe(0);
    seen.set('consistent', (seen.get('consistent') ?? 0) + 1);
  }
  return session.codes;
}

/** Nothing is left open, nobody did what he may not. */
function finish(): void {
  if (files.violations.length > 0) throw new Error(files.violations.join('; '));
  if (files.openCount > 0) throw new Error(`${files.openCount} files are left open`);
  const outside = files.openedPaths.find((opened) => path.dirname(opened) !== FOLDER);
  if (outside !== undefined) throw new Error(`${outside} was opened`);
}

function count(codes: Set<string>): void {
  for (const code of codes.size === 0 ? ['none'] : codes) seen.set(code, (seen.get(code) ?? 0) + 1);
}

async function fuzzImage(seed: number): Promise<void> {
  const random = new Random(seed);
  files.clear();
  const bytes = mutate(random.of(images), random);
  files.put(IMAGE, bytes);
  count(await execute(bytes, random, random.chance(8)));
}

async function fuzzChain(seed: number): Promise<void> {
  const random = new Random(seed ^ 0xc4a1);
  files.clear();
  // Mostly one whose base is there, in both formats.
  const top = overlays[random.chance(3) ? random.below(overlays.length) : random.of([0, 1, 3, 4, 4, 4])]!;
  const bytes = random.chance(2) ? mutate(top, random) : top.slice();
  files.put(IMAGE, bytes);
  files.put('/other/secret', base);
  files.put(path.join(FOLDER, 'base.raw'), base.subarray(0, random.below(base.length)));
  files.put(path.join(FOLDER, 'base.qcow2'), random.chance(2) ? mutate(random.of(images), random) : images[0]!);
  files.put(path.join(FOLDER, 'loop.qcow2'), loop);
  files.link(path.join(FOLDER, 'link'), random.of(['/other/secret', path.join(FOLDER, 'base.raw'), IMAGE]));
  count(await execute(bytes, random, random.chance(8)));
}

describe('hostile images', () => {
  it('of the saved corpus are refused or read, never more', async () => {
    const corpus = new URL('../../../../test/corpus/qcow2/cases.json', import.meta.url);
    const cases = JSON.parse(readFileSync(corpus, 'utf8')) as {
      name: string;
      edits: [number | string, number, string][];
    }[];
    for (const { name, edits } of cases) {
      const bytes = images[0]!.slice();
      const at = places(bytes);
      for (const [place, width, value] of edits) {
        edit(bytes, typeof place === 'number' ? place : at[place]!, width, BigInt(value));
      }
      files.clear();
      files.put(IMAGE, bytes);
      const codes = await execute(bytes, new Random(1), false, true).catch((cause: unknown) => {
        throw new Error(`${name}: ${String(cause)}`, { cause });
      });
      if (edits.length === 0) expect([...codes]).toEqual([]);
      else expect(codes.size, name).toBeGreaterThan(0);
    }
  });

  it.each<[FuzzerName, number, (seed: number) => Promise<void>]>([
    ['qcow2 images', 0.7, fuzzImage],
    ['qcow2 chains', 0.3, fuzzChain],
  ])(
    '%s, changed at random, never raise an exception or eat memory',
    async (name, share, target) => {
      seen.clear();
      const runs = Math.ceil(FUZZ_RUNS * share);
      await fuzz(name, target, runs);
      // They reach every layer.
      if (runs < 10_000) return;
      for (const code of ['none', 'consistent', 'ERR_DISK_IMAGE']) {
        expect(seen.get(code) ?? 0, code).toBeGreaterThan(runs / 100);
      }
      for (const code of ['corrupt', 'unsupported']) expect(seen.get(code) ?? 0, code).toBeGreaterThan(0);
    },
    FUZZ_TIMEOUT_MS,
  );
});
