/**
 * `npm run test:soak`: every fuzzer (`*fuzz.test.ts` in lib/) with a million executions, ten times what `npm test` does, from
 * one seed that is printed first; VIVARIUM_FUZZ_RUNS and VIVARIUM_FUZZ_SEED set others. Then the tests that try random moments,
 * with 100 of them (VIVARIUM_SOAK): saves of snapshots that are killed, and, where KVM can be opened, saves of two CPUs. Exit
 * status 1 when one failed.
 */
import process from 'node:process';
import { kvmAccess } from './test/kvm.mjs';
import { command } from './test/run.mjs';

const runs = process.env.VIVARIUM_FUZZ_RUNS ?? '1000000';
const seed = process.env.VIVARIUM_FUZZ_SEED ?? String(Math.floor(Math.random() * 2 ** 32));
console.log(`soak: ${runs} executions of each fuzzer from VIVARIUM_FUZZ_SEED=${seed}`);
const VITEST = ['node_modules/vitest/vitest.mjs', 'run', '--reporter', 'verbose'];
const fuzzers = await command(process.execPath, [...VITEST, '--project', 'unit', 'fuzz.test'], {
  env: { VIVARIUM_FUZZ_RUNS: runs, VIVARIUM_FUZZ_SEED: seed },
  limitS: 6 * 3600,
});

const moments = ['test/unit/snapshot-killed.test.ts'];
const access = kvmAccess();
if (access.usable) moments.push('test/kvm/machine-snapshot-smp.test.ts');
else console.log(`soak: no saves of two CPUs: ${access.reason}`);
const tried = await command(process.execPath, [...VITEST, ...moments], { env: { VIVARIUM_SOAK: '1' }, limitS: 3600 });
process.exit(fuzzers.status === 0 && tried.status === 0 ? 0 : 1);
