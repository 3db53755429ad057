import { mkdtempSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { cacheRoot, runtimeFolder } from './user-folders.js';

const place = mkdtempSync(join(tmpdir(), 'vivarium-folders-'));
afterAll(() => rmSync(place, { recursive: true }));

describe('runtimeFolder', () => {
  it('is made for this user alone, below XDG_RUNTIME_DIR', () => {
    const folder = runtimeFolder('locks', { XDG_RUNTIME_DIR: place });
    expect(folder).toBe(join(place, 'vivarium', 'locks'));
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(runtimeFolder('locks', { XDG_RUNTIME_DIR: place })).toBe(folder);
  });

  it.each([undefined, 'relative', join(place, 'missing')])('lies in the cache where XDG_RUNTIME_DIR is %s', (xdg) => {
    const env = { XDG_CACHE_HOME: join(place, 'cache'), XDG_RUNTIME_DIR: xdg };
    expect(runtimeFolder('locks', env)).toBe(join(cacheRoot(env), 'locks'));
  });

  it('is refused when something else is there', () => {
    symlinkSync(tmpdir(), join(place, 'vivarium', 'link'));
    expect(() => runtimeFolder('link', { XDG_RUNTIME_DIR: place })).toThrow(/is not a folder of this user/);
  });
});
