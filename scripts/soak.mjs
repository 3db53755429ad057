/**
 * `npm run test:soak`: every fuzzer (`*fuzz.test.ts` in lib/) with a million executions, ten times what `npm test` does, from
 * one seed that is printed first. VIVARIUM_FUZZ_RUNS and VIVARIUM_FUZZ_SEED set others. Exit status 1 when one failed.
 */
import process from 'node:process';
import { command } from './test/run.mjs';

const runs = process.env.VIVARIUM_FUZZ_RUNS ?? '1000000';
const seed = process.env.VIVARIUM_FUZZ_SEED ?? String(Math.floor(Math.random() * 2 ** 32));
console.log(`soak: ${runs} executions of each fuzzer from VIVARIUM_FUZZ_SEED=${seed}`);
const { status } = await command(
  process.execPath,
  ['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit', '--reporter', 'verbose', 'fuzz.test'],
  { env: { VIVARIUM_FUZZ_RUNS: runs, VIVARIUM_FUZZ_SEED: seed }, limitS: 6 * 3600 },
);
process.exit(status === 0 ? 0 : 1);
