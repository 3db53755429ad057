import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { lockImages } from './lock-images.js';

describe('lockImages', () => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const image = (name: string): string => {
    const path = join(folder, name);
    writeFileSync(path, new Uint8Array(512));
    return path;
  };

  it('keeps writers out until it is called, and takes all or none', async () => {
    const [a, b] = [image('a'), image('b')];
    const release = await lockImages([{ path: a, readOnly: false }]);
    const both = [
      { path: b, readOnly: false },
      { path: a, readOnly: false },
    ];
    await expect(lockImages(both)).rejects.toMatchObject({ code: 'ERR_DISK_LOCKED' });
    await release();
    await (
      await lockImages(both)
    )();
  });

  it('lets readers share', async () => {
    const path = image('c');
    const first = await lockImages([{ path, readOnly: true }]);
    const second = await lockImages([{ path, readOnly: true }]);
    await expect(lockImages([{ path, readOnly: false }])).rejects.toMatchObject({ code: 'ERR_DISK_LOCKED' });
    await Promise.all([first(), second()]);
  });
});
