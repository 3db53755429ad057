/** The conformance suite over file, memory, larger blocks, memory overlay, and backends with their functions off. */
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, it } from 'vitest';
import { blockConformance, type ConformanceSubject, type MakeSubject } from './conformance.js';
import { faultyDisk } from './faulty.js';
import { fileDisk } from './file.js';
import { memoryDisk } from './memory.js';
import { sharedDisk } from './shared-disk.js';
import { TestingEngine, type TestingEngineOptions } from './testing-engine.js';

const ALL_OFF = ['flush', 'discard', 'write-zeroes', 'identify', 'resize', 'topology'] as const;

async function file(sizeBytes: number, options?: TestingEngineOptions): Promise<ConformanceSubject & { path: string }> {
  const folder = await mkdtemp(path.join(tmpdir(), 'vsp-'));
  const image = path.join(folder, 'disk.img');
  await writeFile(image, '');
  await truncate(image, sizeBytes);
  return {
    path: image,
    source: fileDisk(image),
    engine: new TestingEngine(options),
    grow: (size) => truncate(image, size),
    close: () => rm(folder, { recursive: true }),
  };
}

const subjects: Record<string, MakeSubject> = {
  file: (size) => file(size),
  'file without fallocate, moved in small parts': (size) => file(size, { allocates: [], maxBytes: 1536 }),
  'file with every native function off': async (size) => {
    const { grow: _grow, ...subject } = await file(size);
    return { ...subject, source: faultyDisk(subject.source, { without: ALL_OFF }) };
  },
  'file with blocks of 4096 bytes': async (size) => {
    const subject = await file(size);
    return { ...subject, source: faultyDisk(subject.source, { blockBytes: 4096 }) };
  },
  'file with blocks of 64 KiB and every native function off': async (size) => {
    const { grow: _grow, ...subject } = await file(size);
    return { ...subject, source: faultyDisk(subject.source, { blockBytes: 65536, without: ALL_OFF }) };
  },
  'file that is only read, copied on write': async (size) => {
    const subject = await file(size);
    const options = { copyOnWrite: { maxBytes: 4 * 1024 * 1024 } };
    return { ...subject, source: fileDisk(subject.path, { readOnly: true }), options, persistent: false };
  },
  'blocks of 8 KiB that are only read, copied on write': async (size) => {
    const subject = await file(size);
    const source = faultyDisk(subject.source, { without: [...ALL_OFF, 'write'], blockBytes: 8192 });
    const { grow: _grow, ...rest } = subject;
    return { ...rest, source, options: { copyOnWrite: { maxBytes: 4 * 1024 * 1024 } }, persistent: false };
  },
  'a disk that is shared, copied on write': async (size) => {
    const { grow: _grow, ...subject } = await file(size);
    const options = { copyOnWrite: { maxBytes: 4 * 1024 * 1024 } };
    return { ...subject, source: sharedDisk(subject.source).guest(), options, persistent: false };
  },
  memory: (size) => {
    const disk = memoryDisk(size);
    return Promise.resolve({
      source: disk,
      engine: new TestingEngine(),
      grow: (next) => Promise.resolve(disk.resize(next)),
    });
  },
  'memory, late by turns': (size) =>
    Promise.resolve({
      source: faultyDisk(memoryDisk(size), {
        rules: [{ every: 3, fault: { delayNs: 1n } }],
        without: ['write-zeroes'],
      }),
      engine: new TestingEngine(),
    }),
};

describe.each(Object.keys(subjects))('a disk on %s', (name) => {
  for (const { name: check, run } of blockConformance) it(check, () => run(subjects[name]!));
});
