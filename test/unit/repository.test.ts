/**
 * Rules on what is committed: files say what they are, nothing names the machine or the registry that it was made with,
 * and the package installs no system software by itself.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';

const ROOT = path.resolve(import.meta.dirname, '../..');

const tracked = execFileSync('git', ['ls-files', '-z'], { cwd: ROOT, encoding: 'utf8' })
  .split('\0')
  .filter((file) => file !== '' && existsSync(path.join(ROOT, file)));

const read = (file: string) => readFileSync(path.join(ROOT, file), 'utf8');

describe('every source file', () => {
  const sources = tracked.filter((file) => /\.(ts|mjs|js|cc|cpp|c|h|S)$/.test(file));

  it('opens with a comment that says what it is', () => {
    // A test that stands beside its file is explained by its name.
    const explained = (file: string) => /^lib\/.*\.test\.ts$/.test(file);
    const silent = sources.filter((file) => !explained(file) && !/^(#!.*\n)?\s*(\/\*|\/\/|#\s)/.test(read(file)));
    expect(silent).toEqual([]);
  });

  it('is of a size that can be read', () => {
    // The agent is one file, so that one call of a compiler makes it wherever a guest's initramfs is built.
    const limit = (file: string) => (file === 'guest/agent.c' ? 1000 : 600);
    const long = sources.filter((file) => read(file).split('\n').length > limit(file));
    expect(long).toEqual([]);
  });

  it('leaves no note of work undone', () => {
    expect(sources.filter((file) => /\b(TO[D]O|FIX[M]E)\b/.test(read(file)))).toEqual([]);
  });
});

describe('no tracked file', () => {
  const texts = tracked.filter((file) => !/\.(png|gz|bin|img|svg)$/.test(file));
  const holding = (pattern: RegExp) => texts.filter((file) => pattern.test(read(file)));

  it('names a package registry', () => {
    expect(holding(/registry\.[a-z0-9-]+\.[a-z]|\/artifactory\/|_auth[T]oken/)).toEqual([]);
  });

  it('names a folder of the machine it was written on', () => {
    // /home/me is nobody's: examples may use it.
    expect(holding(/(^|[\s'"`(=:])\/(work|root|home\/(?!me\b)[a-z]+)\//m)).toEqual([]);
  });

  it('is a build product or larger than 1 MB', () => {
    expect(tracked.filter((file) => /^(dist|build|node_modules|coverage)\/|\.node$|\.o$/.test(file))).toEqual([]);
    expect(tracked.filter((file) => statSync(path.join(ROOT, file)).size > 1_000_000)).toEqual([]);
  });
});

describe.each(['package-lock.json', 'test/nodes/package-lock.json'])('%s', (file) => {
  const lock = JSON.parse(read(file)) as {
    packages: Record<string, { resolved?: string; integrity?: string; link?: boolean }>;
  };

  it('holds no addresses, so that any registry serves', () => {
    const resolved = Object.entries(lock.packages).filter(([, entry]) => entry.resolved !== undefined);
    expect(resolved.map(([name]) => name)).toEqual([]);
  });

  it('holds a checksum for every package', () => {
    const without = Object.entries(lock.packages).filter(
      ([name, entry]) => name !== '' && entry.integrity === undefined,
    );
    expect(without.map(([name]) => name)).toEqual([]);
  });
});

describe('package.json', () => {
  const manifest = JSON.parse(read('package.json')) as {
    scripts: Record<string, string>;
    bin: Record<string, string>;
    dependencies: Record<string, string>;
    optionalDependencies: Record<string, string>;
    devDependencies: Record<string, string>;
  };

  it('pins every dependency to one version', () => {
    const ranges = Object.entries({
      ...manifest.dependencies,
      ...manifest.optionalDependencies,
      ...manifest.devDependencies,
    }).filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version));
    expect(ranges).toEqual([]);
  });

  it('names scripts that exist', () => {
    for (const command of Object.values(manifest.scripts)) {
      for (const [file] of command.matchAll(/scripts\/[\w/-]+\.mjs/g)) expect(tracked, command).toContain(file);
    }
  });

  it('gives the command and the library that users rely on', () => {
    expect(manifest.bin).toHaveProperty('vivarium');
    expect(tracked).toContain('lib/index.ts');
    // It is packed from this one (scripts/lib/pack-command.mjs).
    expect(manifest.bin['vivarium']).toBe('./dist/command/main.js');
    expect(tracked).toContain('lib/cli/main.ts');
  });

  it('has an install script that never asks for system packages or privileges', () => {
    for (const hook of ['preinstall', 'install', 'postinstall', 'prepare']) {
      const command = manifest.scripts[hook] ?? '';
      const file = /scripts\/[\w/-]+\.mjs/.exec(command)?.[0];
      const text = `${command}\n${file === undefined ? '' : read(file)}`;
      expect(text).not.toMatch(/\b(apt|apt-get|sudo|dpkg|pkexec)\b['"\s]/);
    }
  });
});
