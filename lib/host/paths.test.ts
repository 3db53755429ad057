/** Paths on both sides of the embedded host: equal where they can be, translated where not, refused where 9p can't. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { OWN_FOLDERS, sharedFolders, toInnerPath, toOuterPath } from './paths.js';

const folder = realpathSync(mkdtempSync(join(tmpdir(), 'vivarium-paths-')));
afterAll(() => rmSync(folder, { recursive: true }));

describe('toInnerPath', () => {
  it("leaves users' paths as they are, there or not", () => {
    writeFileSync(join(folder, 'a b'), '');
    expect(toInnerPath(join(folder, 'a b'))).toBe(join(folder, 'a b'));
    expect(toInnerPath(join(folder, 'new', 'file'))).toBe(join(folder, 'new', 'file'));
    expect(toInnerPath('/no-such-folder/x')).toBe('/no-such-folder/x');
  });

  it('counts relative paths from the folder that is named', () => {
    expect(toInnerPath('x/../y', folder)).toBe(join(folder, 'y'));
    expect(toInnerPath('.', folder)).toBe(folder);
  });

  it("finds what lies in a folder that the host has of its own under the machine's root", () => {
    expect(toInnerPath('/etc/hostname')).toBe(`/host${realpathSync('/etc/hostname')}`);
    expect(toInnerPath('/run/no/such')).toBe('/host/run/no/such');
    expect(toInnerPath('/etc')).toBe('/host/etc');
  });

  it('keeps a link as it is when all of its way is shared, and resolves one through an own folder', () => {
    mkdirSync(join(folder, 'real'));
    symlinkSync(join(folder, 'real'), join(folder, 'link'));
    expect(toInnerPath(join(folder, 'link', 'x'))).toBe(join(folder, 'link', 'x'));
    symlinkSync('/etc', join(folder, 'etc'));
    expect(toInnerPath(join(folder, 'etc', 'x'))).toBe('/host/etc/x');
  });

  it('resolves a link that leaves the shared folders and comes back', () => {
    // It leads through procfs, which inside is that of another kernel.
    symlinkSync(`/proc/self/root${folder}/real`, join(folder, 'through-proc'));
    const inner = toInnerPath(join(folder, 'through-proc', 'x'));
    expect(inner.startsWith('/proc')).toBe(false);
    expect(inner).toBe(join(folder, 'real', 'x'));
  });

  it('ends on links in a circle', () => {
    symlinkSync(join(folder, 'circle-b'), join(folder, 'circle-a'));
    symlinkSync(join(folder, 'circle-a'), join(folder, 'circle-b'));
    expect(toInnerPath(join(folder, 'circle-a'))).toBe(join(folder, 'circle-a'));
  });

  it('refuses devices, pipes, sockets, /proc and /sys by the name that the user gave', async () => {
    const refused = expect.objectContaining({ code: 'ERR_EMBEDDED_HOST' }) as Error;
    expect(() => toInnerPath('/dev/null')).toThrow(refused);
    expect(() => toInnerPath('/dev/null')).toThrow(/\/dev\/null is a device/);
    expect(() => toInnerPath('/proc/cpuinfo')).toThrow(refused);
    expect(() => toInnerPath('/sys/kernel')).toThrow(/in \/sys/);
    const fifo = join(folder, 'fifo');
    execFileSync('mkfifo', [fifo]);
    expect(() => toInnerPath(fifo)).toThrow(/is a pipe/);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(join(folder, 'sock'), resolve));
    expect(() => toInnerPath(join(folder, 'sock'))).toThrow(/is a socket/);
    await new Promise((resolve) => server.close(resolve));
  });
});

describe('toOuterPath', () => {
  it('is the way back', () => {
    expect(toOuterPath('/host/etc/x')).toBe('/etc/x');
    expect(toOuterPath('/host')).toBe('/');
    expect(toOuterPath('/hostile/x')).toBe('/hostile/x');
    expect(toOuterPath(toInnerPath('/etc/hostname'))).toBe(realpathSync('/etc/hostname'));
  });
});

describe('sharedFolders', () => {
  it('lists folders and links of the root, but none that the host has of its own', () => {
    for (const name of ['home', 'etc', 'proc', 'data']) mkdirSync(join(folder, 'root', name), { recursive: true });
    symlinkSync('data/x', join(folder, 'root', 'link'));
    symlinkSync('usr/lib', join(folder, 'root', 'lib'));
    writeFileSync(join(folder, 'root', 'file'), '');
    const shared = sharedFolders(join(folder, 'root')).sort((a, b) => (a.name < b.name ? -1 : 1));
    expect(shared).toEqual([{ name: 'data' }, { name: 'home' }, { name: 'link', linkTarget: 'data/x' }]);
    for (const { name } of sharedFolders()) expect(OWN_FOLDERS.has(name)).toBe(false);
  });
});
