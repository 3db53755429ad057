import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { cacheRoot, runtimeFolder } from './user-folders.js';

const place = mkdtempSync(join(tmpdir(), 'vivarium-folders-'));
afterAll(() => rmSync(place, { recursive: true }));
const missing = join(place, 'missing');

describe('cacheRoot', () => {
  it('goes by XDG_CACHE_HOME, unless it is empty or not absolute', () => {
    expect(cacheRoot({ XDG_CACHE_HOME: '/x', HOME: '/h' })).toBe('/x/vivarium');
    expect(cacheRoot({ XDG_CACHE_HOME: 'x', HOME: '/h' })).toBe('/h/.cache/vivarium');
    expect(cacheRoot({ XDG_CACHE_HOME: '', HOME: '/h' })).toBe('/h/.cache/vivarium');
  });
});

describe('runtimeFolder', () => {
  it('is made for this user alone, below XDG_RUNTIME_DIR', () => {
    const folder = runtimeFolder('locks', { XDG_RUNTIME_DIR: place });
    expect(folder).toBe(join(place, 'vivarium', 'locks'));
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(runtimeFolder('locks', { XDG_RUNTIME_DIR: place })).toBe(folder);
  });

  it.each([undefined, 'relative', missing])('lies in the cache where XDG_RUNTIME_DIR is %s', (xdg) => {
    const env = { XDG_CACHE_HOME: join(place, 'cache'), XDG_RUNTIME_DIR: xdg };
    expect(runtimeFolder('locks', env, missing)).toBe(join(cacheRoot(env), 'locks'));
  });

  it("lies in the session's folder whether the environment names that or not", () => {
    const session = join(place, 'session');
    mkdirSync(session, { mode: 0o700 });
    for (const xdg of [session, `${session}/`, undefined, '', 'relative', missing]) {
      const env = { XDG_CACHE_HOME: join(place, xdg ?? 'cache'), XDG_RUNTIME_DIR: xdg };
      expect(runtimeFolder('macs', env, session)).toBe(join(session, 'vivarium', 'macs'));
    }
    // Another place was set on purpose.
    expect(runtimeFolder('macs', { XDG_RUNTIME_DIR: place }, session)).toBe(join(place, 'vivarium', 'macs'));
  });

  it("does not take a session's folder that is open to others, whether it is named or not", () => {
    const session = join(place, 'open-session');
    mkdirSync(session);
    chmodSync(session, 0o755);
    for (const xdg of [session, undefined]) {
      const env = { XDG_CACHE_HOME: join(place, 'cache'), XDG_RUNTIME_DIR: xdg };
      expect(runtimeFolder('macs', env, session)).toBe(join(cacheRoot(env), 'macs'));
    }
  });

  it('is refused when something else is there', () => {
    symlinkSync(tmpdir(), join(place, 'vivarium', 'link'));
    expect(() => runtimeFolder('link', { XDG_RUNTIME_DIR: place })).toThrow(/is not a folder of this user/);
  });
});
