/**
 * Snapshots that were written by earlier states of this repository, in test/corpus/snapshots: they are read to the last byte, and a
 * version that is not known is refused by name. That whole machines come out of them is in test/kvm/snapshot-samples.test.ts.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { digestOf } from '../../lib/snapshot/manifest.js';
import { SnapshotReader, verifySnapshot } from '../../lib/snapshot/index.js';
import { changeManifest, NEWEST, partsOf, SAMPLES } from '../lib/snapshot-samples.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

describe.each(SAMPLES.map((dir) => [path.basename(dir), dir]))('the sample of version %s', (_version, dir) => {
  it('is sound', async () => {
    await verifySnapshot(path.join(dir, 'base'));
    await verifySnapshot(path.join(dir, 'child'));
    const reader = await SnapshotReader.open(path.join(dir, 'child'));
    expect(reader.chain).toEqual(['child', 'base'].map((name) => path.join(dir, name)));
    await reader.close();
  });
});

/** Each kind of state in lib/, with its version by the source. */
function formats(): Map<string, number> {
  const files = execFileSync('git', ['grep', '-l', 'stateFormat(', '--', 'lib/*.ts', ':!lib/*.test.ts'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  const found = files
    .trim()
    .split('\n')
    .flatMap((file) => [
      ...readFileSync(path.join(ROOT, file), 'utf8').matchAll(
        /stateFormat\(\{\s*type: '([a-z0-9-]+)',\s*version: (\d+)/g,
      ),
    ]);
  return new Map(found.map(([, type, version]) => [type!, Number(version)]));
}

it('the newest sample has every kind of state, in its present version', () => {
  const wanted = formats();
  // Of a PIT that does not answer port 0x61 itself, which no KVM here has.
  expect(wanted.delete('system-control-b')).toBe(true);
  expect(wanted.size).toBeGreaterThan(30);
  expect(new Map(partsOf(path.join(NEWEST, 'base')).map(({ type, version }) => [type, version]))).toEqual(wanted);
});

describe('what a newer vivarium may write is refused by name:', () => {
  let copy: string;
  beforeEach(() => {
    const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-samples-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    copy = path.join(folder, 'copy');
    cpSync(path.join(NEWEST, 'base'), copy, { recursive: true });
  });

  const refused = (code: string, message: RegExp) =>
    expect.objectContaining({ code, message: expect.stringMatching(message) });

  it('a manifest', async () => {
    changeManifest(copy, (manifest) => ({ ...manifest, version: 2 as never }));
    await expect(SnapshotReader.open(copy)).rejects.toEqual(
      refused('ERR_SNAPSHOT_VERSION', /copy\/manifest\.json: version 2 of the format; this vivarium reads 1$/),
    );
  });

  it('an index', async () => {
    const file = path.join(copy, 'index');
    const bytes = readFileSync(file);
    expect(bytes.readUInt32LE(8)).toBe(1);
    bytes.writeUInt32LE(2, 8);
    writeFileSync(file, bytes);
    changeManifest(copy, (manifest) => ({
      ...manifest,
      parts: { ...manifest.parts, index: { sizeBytes: bytes.length, sha256: digestOf(bytes) } },
    }));
    await expect(SnapshotReader.open(copy)).rejects.toEqual(
      refused('ERR_SNAPSHOT_VERSION', /copy\/index: .*version 2/),
    );
  });

  it('what only it knows of: a further part in the manifest', async () => {
    changeManifest(copy, (manifest) => ({ ...manifest, hint: 1 }) as never);
    await expect(SnapshotReader.open(copy)).rejects.toEqual(refused('ERR_SNAPSHOT', /copy\/manifest\.json: .*hint/));
  });
});
