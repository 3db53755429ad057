/**
 * CMakeLists.txt and binding.gyp build the same addon: both name the same sources, and these are the files on disk.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '../..');

function listedIn(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  return [...text.matchAll(/\bnative\/[\w/]+\.cc\b/g)].map((match) => match[0]);
}

function onDisk(): string[] {
  return readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.cc'))
    .map((name) => `native/${name}`);
}

describe('the sources of the addon', () => {
  it('are listed by CMakeLists.txt, each once, in order', () => {
    expect(listedIn('CMakeLists.txt')).toEqual(onDisk().sort());
  });

  it('stand beside those of a program, which both build', () => {
    const programs = readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.c'))
      .map((name) => `native/${name}`);
    expect(programs.sort()).toEqual(['native/fence/keeper.c', 'native/fence/launcher.c']);
    for (const file of ['CMakeLists.txt', 'binding.gyp']) {
      const text = readFileSync(join(root, file), 'utf8');
      for (const program of programs) expect(text).toContain(program);
    }
  });

  it('are listed by binding.gyp as by CMakeLists.txt', () => {
    expect(listedIn('binding.gyp')).toEqual(listedIn('CMakeLists.txt'));
  });
});
