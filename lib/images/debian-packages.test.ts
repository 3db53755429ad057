/** What of apt's answers is understood, and the errors on systems that are no Debian. The network stays out of it. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Cache } from './cache.js';
import { DebianPackages, parsePackageStanza } from './debian-packages.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vivarium-packages-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const open = (): Promise<DebianPackages> => DebianPackages.open(new Cache(join(folder, 'cache')), { etc: folder });

describe('parsePackageStanza', () => {
  it('reads name, version and dependencies of the first stanza', () => {
    const text =
      'Package: linux-image-cloud-amd64\nSource: x (1)\nVersion: 6.1.1-1\nDepends: linux-image-6.1.0-1-cloud-amd64 (= 6.1.1-1), a | b, libc6:any (>= 2)\nPre-Depends: z\n\nPackage: other\nVersion: 2\n';
    expect(parsePackageStanza(text)).toEqual({
      name: 'linux-image-cloud-amd64',
      version: '6.1.1-1',
      depends: ['linux-image-6.1.0-1-cloud-amd64', 'a', 'libc6'],
    });
  });

  it('finds nothing in nothing', () => {
    expect(parsePackageStanza('')).toBeUndefined();
    expect(parsePackageStanza('N: No packages found\n')).toBeUndefined();
  });
});

describe('DebianPackages.open', () => {
  it('says that another system is no Debian', async () => {
    writeFileSync(join(folder, 'os-release'), 'ID=fedora\nVERSION_CODENAME=""\n');
    await expect(open()).rejects.toMatchObject({ code: 'ERR_SETUP', message: expect.stringContaining('fedora') });
  });

  it('says so too when os-release is missing', async () => {
    await expect(open()).rejects.toMatchObject({ code: 'ERR_SETUP', message: expect.stringContaining('no Debian') });
  });

  it('asks for a mirror of the release when none is configured', async () => {
    writeFileSync(join(folder, 'os-release'), 'ID=debian\nVERSION_CODENAME=bookworm\n');
    mkdirSync(join(folder, 'apt/sources.list.d'), { recursive: true });
    writeFileSync(join(folder, 'apt/sources.list.d/other.list'), 'deb http://mirror.example x main\n');
    await expect(open()).rejects.toMatchObject({
      code: 'ERR_SETUP',
      cure: expect.stringMatching(/mirror of Debian bookworm|install|Debian/),
    });
  });
});
