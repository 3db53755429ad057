import { readdirSync, readFileSync } from 'node:fs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { FUZZERS, savedSeeds } from './fuzzing.js';

const environment = process.env;

afterEach(() => {
  process.env = environment;
  vi.resetModules();
});

/** The module as a process with that variable has it. */
function withVariable(name: string, value: string): Promise<typeof import('./fuzzing.js')> {
  vi.resetModules();
  process.env = { ...environment, [name]: value };
  return import('./fuzzing.js');
}

describe('the numbers of a fuzzing run', () => {
  it.each([
    ['VIVARIUM_FUZZ_RUNS', ''],
    ['VIVARIUM_FUZZ_RUNS', '0'],
    ['VIVARIUM_FUZZ_RUNS', 'many'],
    ['VIVARIUM_FUZZ_RUNS', '1.5'],
    ['VIVARIUM_FUZZ_RUNS', '-1'],
    ['VIVARIUM_FUZZ_SEED', ''],
    ['VIVARIUM_FUZZ_SEED', 'x'],
    ['VIVARIUM_FUZZ_SEED', '4294967296'],
  ])("are refused when there would be no such execution: %s='%s'", async (name, value) => {
    await expect(withVariable(name, value)).rejects.toThrow(
      expect.objectContaining({ name: 'RangeError', message: expect.stringContaining(name) as string }),
    );
  });

  it('are taken from the environment', async () => {
    expect((await withVariable('VIVARIUM_FUZZ_RUNS', '7')).FUZZ_RUNS).toBe(7);
    const { fuzz } = await withVariable('VIVARIUM_FUZZ_SEED', '4294967295');
    const seeds: number[] = [];
    await fuzz('the network device', (seed) => void seeds.push(seed), 2);
    expect(seeds.slice(-2)).toEqual([4294967295, 0]);
  });
});

describe('the corpus', () => {
  it('has seeds of fuzzers that there are alone', () => {
    expect(FUZZERS).toEqual(expect.arrayContaining(Object.keys(savedSeeds())));
  });

  it('is for names that a fuzzer uses', () => {
    const lib = new URL('../', import.meta.url);
    const sources = readdirSync(lib, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('fuzz.test.ts'))
      .map((path) => readFileSync(new URL(path, lib), 'utf8'))
      .join('');
    expect(FUZZERS.filter((name) => !sources.includes(`'${name}'`))).toEqual([]);
  });
});
