import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createQcow2Image } from './create.js';
import { checkImage } from './testing-check.js';
import type { Recorded } from '../testing-engine.js';
import { RecordingEngine } from './recording-engine.js';
import { HAS_QEMU_IMG, pattern, qemuCheck, random, randomHistory, temporaryFolder, TestDisk } from './testing.js';

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => (folder = temporaryFolder()));
afterEach(() => folder.remove());
const inFolder = (name: string): string => path.join(folder.path, name);

const KiB = 1024;
const SECTOR = 512;

/** The file as a cut after `cut` entries of the history leaves it; `lost` says which unsynced writes are dropped. */
function afterCrash(start: Uint8Array, history: readonly Recorded[], cut: number, lost: () => boolean): Uint8Array {
  let lastSync = -1;
  for (let index = 0; index < cut; index++) if (history[index]!.kind === 'sync') lastSync = index;
  let end = start.length;
  const kept = history.slice(0, cut).filter((entry, index) => entry.kind === 'write' && (index < lastSync || !lost()));
  for (const entry of kept) if (entry.kind === 'write') end = Math.max(end, entry.offset + entry.bytes.length);
  const bytes = new Uint8Array(end);
  bytes.set(start);
  for (const entry of kept) if (entry.kind === 'write') bytes.set(entry.bytes, entry.offset);
  return bytes;
}

/** What each sector may show after a crash: what it was at the last flush, and everything since. */
class SectorStates {
  readonly #states: Set<string>[];
  readonly #model: Uint8Array;
  constructor(model: Uint8Array) {
    this.#model = model;
    this.#states = Array.from({ length: model.length / SECTOR }, (_, sector) => new Set([this.#at(model, sector)]));
  }
  #at(bytes: Uint8Array, sector: number): string {
    return Buffer.from(bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR)).toString('latin1');
  }
  change(sector: number): void {
    this.#states[sector]!.add(this.#at(this.#model, sector));
  }
  flushed(): void {
    for (const [sector, states] of this.#states.entries()) {
      states.clear();
      states.add(this.#at(this.#model, sector));
    }
  }
  snapshot(): Set<string>[] {
    return this.#states.map((states) => new Set(states));
  }
  static wrong(states: readonly Set<string>[], bytes: Uint8Array): number {
    return states.findIndex(
      (allowed, sector) =>
        !allowed.has(Buffer.from(bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR)).toString('latin1')),
    );
  }
}

describe('a cut at any point of the history of writes', () => {
  const seed = Number(process.env['QCOW2_SEED'] ?? Date.now() % 1_000_000);

  it.each([
    [512, 16, 260 * KiB, 8],
    // The refcount table moves.
    [512, 64, 2600 * KiB, 1200],
    [4096, 1, 1024 * KiB, 100],
    [65536, 16, 2048 * KiB, 300],
  ])(
    'leaves no corruption: clusters of %i bytes, refcounts of %i bits',
    { timeout: 120_000 },
    async (clusterBytes, refcountBits, sizeBytes, maxSectors) => {
      const image = inFolder('disk.qcow2');
      writeFileSync(inFolder('base.img'), pattern(9, 100 * KiB));
      await createQcow2Image(image, {
        sizeBytes,
        clusterBytes,
        refcountBits,
        backing: { name: 'base.img', format: 'raw' },
      });
      const start = readFileSync(image);
      const model = new Uint8Array(sizeBytes);
      model.set(readFileSync(inFolder('base.img')));
      const engine = new RecordingEngine();
      engine.recording = true;
      const disk = await TestDisk.open(image, { cacheBytes: 8 * KiB }, engine);
      const next = random(seed);
      const { history } = engine;
      // A history that only reads and flushes would show nothing.
      while (history.length <= 30) await randomHistory(disk, model, next, 12, maxSectors);
      await disk.close();

      const crashed = inFolder('crashed.qcow2');
      // Every point of a short history; of a long one other points for every seed.
      const step = Math.ceil(history.length / 100);
      let checks = 0;
      for (let cut = 0; cut <= history.length; cut += 1 + next(2 * step - 1)) {
        checks++;
        for (const lost of [() => false, () => true, () => next(2) === 0]) {
          const bytes = afterCrash(start, history, cut, lost);
          expect(checkImage(bytes).corruptions, `seed ${seed}, cut ${cut} of ${history.length}`).toBe(0);
          if (checks % 25 !== 0) continue;
          writeFileSync(crashed, bytes);
          if (HAS_QEMU_IMG) {
            const result = await qemuCheck(crashed);
            expect(result, `seed ${seed}, cut ${cut}`).toMatchObject({ corruptions: 0, errors: 0 });
          }
          // What is there can be read, and written on.
          const after = await TestDisk.open(crashed);
          await after.read(0, sizeBytes);
          await after.write(0, pattern(1, sizeBytes));
          await after.close();
          expect(checkImage(readFileSync(crashed)).corruptions).toBe(0);
        }
      }
    },
  );

  it('keeps what was flushed, and shows in each sector only what was ever there', async () => {
    const sizeBytes = 128 * KiB;
    const image = inFolder('disk.qcow2');
    await createQcow2Image(image, { sizeBytes, clusterBytes: 1024 });
    const start = readFileSync(image);
    const model = new Uint8Array(sizeBytes);
    const states = new SectorStates(model);
    const engine = new RecordingEngine();
    engine.recording = true;
    const disk = await TestDisk.open(image, { cacheBytes: 8 * KiB }, engine);
    const next = random(seed);
    /** At each moment of the history: what may be seen. */
    const moments: { at: number; allowed: Set<string>[] }[] = [];
    for (let step = 0; step < 60; step++) {
      const sector = next(sizeBytes / SECTOR - 8);
      const count = 1 + next(8);
      const kind = next(4);
      const range = [sector * SECTOR, count * SECTOR] as const;
      const bytes = kind < 2 ? pattern(next(256), range[1]) : new Uint8Array(range[1]);
      model.set(bytes, range[0]);
      for (let index = 0; index < count; index++) states.change(sector + index);
      // From the moment it is begun, it may be seen.
      moments.push({ at: engine.history.length, allowed: states.snapshot() });
      if (kind < 2) await disk.write(range[0], bytes);
      else if (kind === 2) await disk.writeZeroes(...range, next(2) === 0);
      else {
        await disk.discard(...range);
        model.set(await disk.read(...range), range[0]);
        for (let index = 0; index < count; index++) states.change(sector + index);
      }
      if (next(6) !== 0) continue;
      await disk.flush();
      states.flushed();
      moments.push({ at: engine.history.length, allowed: states.snapshot() });
    }
    await disk.close();
    const crashed = inFolder('crashed.qcow2');
    for (let cut = 0; cut <= engine.history.length; cut++) {
      const { allowed } = [...moments].reverse().find(({ at }) => at <= cut) ?? moments[0]!;
      for (const lost of [() => false, () => true, () => next(2) === 0]) {
        writeFileSync(crashed, afterCrash(start, engine.history, cut, lost));
        const after = await TestDisk.open(crashed, { readOnly: true });
        const wrong = SectorStates.wrong(allowed, await after.read(0, sizeBytes));
        await after.close();
        expect(wrong, `seed ${seed}, cut ${cut} of ${engine.history.length}`).toBe(-1);
      }
    }
  });
});

describe('a file system that fills up', () => {
  it('answers no-space, and leaves an image that is consistent and goes on', async () => {
    const image = inFolder('disk.qcow2');
    const sizeBytes = 1024 * KiB;
    for (let allowed = 0; allowed < 60; allowed += 13) {
      await createQcow2Image(image, { sizeBytes, clusterBytes: 4096 });
      const engine = new RecordingEngine();
      let writes = 0;
      engine.intercept = (call) => (call === 'write' && writes++ >= allowed && writes < allowed + 20 ? -28 : undefined);
      const disk = await TestDisk.open(image, { cacheBytes: 8 * KiB }, engine);
      const codes = new Set<string>();
      const model = new Uint8Array(sizeBytes);
      for (let at = 0; at < 400 * KiB; at += 10 * KiB) {
        const bytes = pattern(at, 5 * KiB);
        await disk.write(at, bytes).then(
          () => model.set(bytes, at),
          (error: unknown) => codes.add((error as { code: string }).code),
        );
        if (at % 20 === 0) await disk.flush().catch((error: unknown) => codes.add((error as { code: string }).code));
      }
      expect([...codes]).toEqual(['no-space']);
      const all = await disk.read(0, sizeBytes);
      for (let at = 0; at < sizeBytes; at += 5 * KiB) {
        const written = model.subarray(at, at + 5 * KiB);
        if (written.some((byte) => byte !== 0)) expect(Buffer.compare(all.subarray(at, at + 5 * KiB), written)).toBe(0);
      }
      await disk.close();
      if (HAS_QEMU_IMG) expect(await qemuCheck(image)).toEqual({ corruptions: 0, leaks: 0, errors: 0 });
      rmSync(image);
    }
  });

  it('promises nothing any more once a sync has failed', async () => {
    const image = inFolder('disk.qcow2');
    await createQcow2Image(image, { sizeBytes: 1024 * KiB });
    const engine = new RecordingEngine();
    const disk = await TestDisk.open(image, {}, engine);
    await disk.write(0, pattern(1, 4096));
    engine.intercept = (call) => (call === 'sync' ? -5 : undefined);
    await expect(disk.flush()).rejects.toMatchObject({ code: 'io' });
    engine.intercept = undefined;
    await expect(disk.flush()).rejects.toMatchObject({ code: 'io' });
    await expect(disk.close()).rejects.toMatchObject({ code: 'ERR_SYSTEM' });
    if (HAS_QEMU_IMG) expect((await qemuCheck(image)).corruptions).toBe(0);
  });
});
