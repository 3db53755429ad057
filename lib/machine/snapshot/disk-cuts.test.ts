import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hostClock } from '../../base/clock.js';
import { beginCut, fileDisk, memoryDisk, type BlockSource } from '../../vsp/index.js';
import { DiskCuts } from './disk-cuts.js';

type CutHost = Parameters<typeof beginCut>[0];

const SIZE = 64 * 1024;
const GENERATION = '00000001-0000-4000-8000-000000000000';

let folder: string;
beforeEach(() => (folder = mkdtempSync(path.join(tmpdir(), 'vivarium-cuts-'))));
afterEach(() => rmSync(folder, { recursive: true }));

/** A disk over a source that it never opens. It notes what becomes of it. */
class FakeDisk implements CutHost {
  readonly id: string;
  readonly readOnly = false;
  readonly geometry = { sizeBytes: SIZE };
  readonly copiesOnWrite = false;
  readonly keepsContents: boolean;
  readonly changes = 0;
  source: BlockSource;
  released = 0;
  /** How many changes of its backend it takes. */
  takes = 99;

  constructor(id: string, source: BlockSource) {
    this.id = id;
    this.source = source;
    this.keepsContents = source.describe().kind === 'memory';
  }

  freeze() {
    const release = (): void => {
      this.released++;
    };
    return { unitBytes: 65536, units: new Map([[0, new Uint8Array(65536)]]), release };
  }

  rebind(source: BlockSource) {
    if (this.takes-- <= 0) return Promise.reject(new Error(`${this.id} refuses`));
    this.source = source;
    return Promise.resolve({ holdNs: 0, drainNs: 0, held: 0 });
  }

  flushNow(done: (error: undefined) => void): void {
    done(undefined);
  }
}

function imageDisk(id: string): FakeDisk {
  const file = path.join(folder, id);
  writeFileSync(file, new Uint8Array(SIZE));
  return new FakeDisk(id, fileDisk(file));
}

const begin = (disks: CutHost[], at = folder): Promise<DiskCuts> =>
  DiskCuts.begin(disks, { generation: GENERATION, folder: at });

describe('the cuts of several disks', () => {
  it('are all undone when one refuses, and an image on which a disk stays is not deleted from under it', async () => {
    const [good, stuck, last] = ['good', 'stuck', 'last'].map(imageDisk) as [FakeDisk, FakeDisk, FakeDisk];
    const before = [good.source, last.source];
    stuck.takes = 1;
    last.takes = 0;
    const cuts = await begin([good, stuck, last]);
    await expect(cuts.take()).rejects.toThrow('last refuses');
    await cuts.cancel();
    expect([good.source, last.source]).toEqual(before);
    const image = `stuck.${GENERATION}.qcow2`;
    expect(readdirSync(folder)).toEqual(['good', 'last', 'stuck', image]);
    expect(stuck.source.describe()).toMatchObject({ path: path.join(folder, image) });
    // Who ends the instant hears of it, and tries again.
    await expect(cuts.undo()).rejects.toThrow('stuck refuses');
    stuck.takes = 1;
    await cuts.undo();
    expect(readdirSync(folder)).toEqual(['good', 'last', 'stuck']);
  });

  it('are let go of when the snapshot fails after its instant, whatever had become durable', async () => {
    const image = imageDisk('image');
    const memories = ['first', 'second'].map((id) => new FakeDisk(id, memoryDisk(SIZE)));
    const cuts = await begin([image, ...memories]);
    await cuts.take();
    await cuts.cancel();
    expect(readdirSync(folder)).toHaveLength(2);
    await cuts.release(hostClock);
    expect(memories.map(({ released }) => released)).toEqual([1, 1]);
    expect(readdirSync(folder)).toEqual(['image']);
    expect(image.source.describe()).toEqual({ kind: 'file', path: path.join(folder, 'image') });
  });

  it('have all ended when one fails to become durable', async () => {
    const memories = ['taken', 'free'].map((id) => new FakeDisk(id, memoryDisk(SIZE)));
    writeFileSync(path.join(folder, 'disk-taken.contents'), '');
    const cuts = await begin(memories);
    await cuts.take();
    await expect(cuts.durable()).rejects.toMatchObject({ code: 'ERR_SYSTEM', errno: 'EEXIST' });
    expect(memories.map(({ released }) => released)).toEqual([1, 1]);
  });
});
