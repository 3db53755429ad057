/**
 * What the fuzzers of all rooms share: random numbers from a seed, and how many executions there are, from which seed
 * on, and what a failure says. For tests alone; CONTRIBUTING.md says how a finding is repeated and saved.
 */
import { readFileSync } from 'node:fs';

/** Random numbers of 32 bits from a seed (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  word(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let value = this.#state;
    value = Math.imul(value ^ (value >>> 15), value | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return (value ^ (value >>> 14)) >>> 0;
  }

  below(end: number): number {
    return this.word() % end;
  }

  chance(oneIn: number): boolean {
    return this.below(oneIn) === 0;
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

/** Every fuzzer, by the name that its seeds have in the corpus. */
export const FUZZERS = [
  'the queue',
  'the block device',
  'the network device',
  'the console device',
  'the entropy device',
  'qcow2 images',
  'qcow2 chains',
  'virtio registers',
  'PCI configuration',
  'streams of frames',
  'links of switches',
  'carried networks',
  'snapshots',
] as const;

export type FuzzerName = (typeof FUZZERS)[number];

/** A run of no execution, of a number that is none, would be green. @throws RangeError */
function fromEnvironment(name: string, fallback: number, minimum: number, maximum: number): number {
  const text = process.env[name];
  if (text === undefined) return fallback;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= minimum && value <= maximum) return value;
  throw new RangeError(`${name}: a whole number from ${minimum} to ${maximum} is wanted, not '${text}'`);
}

/** Executions of each fuzzer: VIVARIUM_FUZZ_RUNS, 100,000 when not set. */
export const FUZZ_RUNS = fromEnvironment('VIVARIUM_FUZZ_RUNS', 100_000, 1, 1e12);

/** The first execution's seed, each next has one more: VIVARIUM_FUZZ_SEED, another for each process when not set. */
export const FUZZ_SEED = fromEnvironment('VIVARIUM_FUZZ_SEED', Math.floor(Math.random() * 2 ** 32), 0, 2 ** 32 - 1);

/** A time within which a fuzzer ends on any machine, for the test's own limit. */
export const FUZZ_TIMEOUT_MS = Math.max(120_000, FUZZ_RUNS * 5);

const CORPUS = new URL('../../test/corpus/seeds.json', import.meta.url);

/** The saved seeds, by a fuzzer's name. */
export function savedSeeds(): Partial<Record<string, number[]>> {
  return JSON.parse(readFileSync(CORPUS, 'utf8')) as Partial<Record<string, number[]>>;
}

/**
 * Executes the saved seeds of `name`, then `runs` from FUZZ_SEED on. An execution depends on nothing but its seed.
 *
 * @throws Error with the seed of the execution that threw, and how to repeat it.
 */
export async function fuzz(
  name: FuzzerName,
  execute: (seed: number) => Promise<void> | void,
  runs = FUZZ_RUNS,
): Promise<void> {
  const one = async (seed: number): Promise<void> => {
    try {
      await execute(seed);
    } catch (cause) {
      const reason = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
      throw new Error(`${name}: repeat with VIVARIUM_FUZZ_SEED=${seed} VIVARIUM_FUZZ_RUNS=1\n${reason}`, { cause });
    }
  };
  for (const seed of savedSeeds()[name] ?? []) await one(seed);
  for (let index = 0; index < runs; index++) await one((FUZZ_SEED + index) >>> 0);
}
