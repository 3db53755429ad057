import { rmSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, it } from 'vitest';
import { blockConformance, type MakeSubject } from '../conformance.js';
import { TestingEngine } from '../testing-engine.js';
import { createQcow2Image } from './create.js';
import { createQcow2Overlay, qcow2Disk } from './index.js';

async function folder(): Promise<{ path: string; close: () => Promise<void> }> {
  const made = await mkdtemp(path.join(tmpdir(), 'qcow2-'));
  return { path: made, close: async () => rmSync(made, { recursive: true }) };
}

const subjects: Record<string, MakeSubject> = {
  'a qcow2 image': async (sizeBytes) => {
    const made = await folder();
    const image = path.join(made.path, 'disk.qcow2');
    await createQcow2Image(image, { sizeBytes });
    return { source: qcow2Disk(image), engine: new TestingEngine(), close: made.close };
  },
  'a qcow2 overlay with small clusters and caches': async (sizeBytes) => {
    const made = await folder();
    const image = path.join(made.path, 'disk.qcow2');
    writeFileSync(path.join(made.path, 'base.img'), new Uint8Array(sizeBytes));
    await createQcow2Overlay(image, { backing: path.join(made.path, 'base.img'), clusterBytes: 2048 });
    return { source: qcow2Disk(image, { cacheBytes: 8192 }), engine: new TestingEngine(), close: made.close };
  },
};

describe.each(Object.entries(subjects))('%s', (_name, make) => {
  it.each(blockConformance.map(({ name, run }) => [name, run] as const))(
    '%s',
    { timeout: 60_000 },
    async (_check, run) => {
      await run(make);
    },
  );
});
