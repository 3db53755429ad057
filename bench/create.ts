/**
 * How long a machine takes in a warm process: from create to its guest's first port write, and on to close done; for
 * 128 MiB and for 4 GiB of memory. The peer is the bare ioctl sequence in C in this process. Also how well several
 * creations at once overlap.
 */
import { Machine } from '#lib/index.js';
import type { Bench, Figures } from './lib/bench.js';
import { exitAtOnce, GUEST_ADDRESS } from './lib/guests.js';
import { bareCreate } from './lib/native-peers.js';
import { pairedRatio, summarise } from './lib/stats.js';

const DEFAULT_RUNS = 15;
const AT_ONCE = 4;
const SIZES = [
  { label: '128MiB', bytes: 128 * 2 ** 20 },
  { label: '4GiB', bytes: 4 * 2 ** 30 },
] as const;

interface Sample {
  /** Create to the first port write. */
  readonly readyMs: number;
  /** Create to close done. */
  readonly wholeMs: number;
}

export const bench: Bench = {
  name: 'create',
  stage: 'flat',
  about:
    'create to the first port write, and to close done; to reach: within 1.3 of bare ioctls, the same for both sizes',
  async run({ runs = DEFAULT_RUNS, progress }) {
    const metrics: Record<string, Figures[string]> = {};
    const peer: Record<string, Figures[string]> = {};
    for (const { label, bytes } of SIZES) {
      const ours: Sample[] = [];
      const bare: Sample[] = [];
      for (let round = -2; round < runs; round++) {
        const { readyNs, totalNs } = bareCreate(exitAtOnce, bytes);
        const ourSample = await createOnce(bytes);
        if (round < 0) continue;
        bare.push({ readyMs: readyNs / 1e6, wholeMs: totalNs / 1e6 });
        ours.push(ourSample);
      }
      const pick = (samples: Sample[], key: keyof Sample) => samples.map((sample) => sample[key]);
      for (const key of ['readyMs', 'wholeMs'] as const) {
        const name = `${label}${key === 'readyMs' ? 'Ready' : 'Whole'}`;
        metrics[`${name}Ms`] = summarise(pick(ours, key));
        metrics[`${name}Ratio`] = pairedRatio(pick(ours, key), pick(bare, key));
        peer[`${name}Ms`] = summarise(pick(bare, key));
      }
      progress(`${label}: done`);
    }
    const { aloneMs, togetherMs } = await overlap(Math.max(3, Math.ceil(runs / 3)));
    metrics['fourInTurnMs'] = summarise(aloneMs);
    metrics['fourAtOnceMs'] = summarise(togetherMs);
    metrics['fourAtOnceRatio'] = pairedRatio(togetherMs, aloneMs);
    return { metrics, peers: { bareIoctls: peer }, runs };
  },
};

async function createOnce(memory: number): Promise<Sample> {
  const startedNs = process.hrtime.bigint();
  const machine = await Machine.create({
    memory,
    debugExit: true,
    boot: { flat: exitAtOnce, address: GUEST_ADDRESS, mode: 'real16' },
  });
  await machine.start();
  const status = await machine.wait();
  const readyMs = Number(process.hrtime.bigint() - startedNs) / 1e6;
  await machine.close();
  const wholeMs = Number(process.hrtime.bigint() - startedNs) / 1e6;
  if (status.reason !== 'debug-exit') throw new Error(`the guest ended by ${status.reason}: ${status.detail ?? ''}`);
  return { readyMs, wholeMs };
}

/** Whole lives of several machines, one after the other and all at once. */
async function overlap(runs: number): Promise<{ aloneMs: number[]; togetherMs: number[] }> {
  const bytes = SIZES[0].bytes;
  const aloneMs: number[] = [];
  const togetherMs: number[] = [];
  for (let round = 0; round < runs; round++) {
    let startedNs = process.hrtime.bigint();
    for (let index = 0; index < AT_ONCE; index++) await createOnce(bytes);
    aloneMs.push(Number(process.hrtime.bigint() - startedNs) / 1e6);
    startedNs = process.hrtime.bigint();
    await Promise.all(Array.from({ length: AT_ONCE }, () => createOnce(bytes)));
    togetherMs.push(Number(process.hrtime.bigint() - startedNs) / 1e6);
  }
  return { aloneMs, togetherMs };
}
