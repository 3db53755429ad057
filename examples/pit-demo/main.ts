/**
 * `npm run demo:pit [-- --out FILE --rate HZ --stop SECONDS --overload SECONDS]`: one guest that keeps time by ticks, three
 * times through the same stop and the same overload, under each policy. Writes a picture, prints a table. Where there is
 * no /dev/kvm it runs itself inside the embedded KVM host, as the other examples do.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { host, VmmError, type PolicyName } from '#lib/index.js';
import { drawPicture } from './picture.js';
import { runPolicy, type Plan } from './run.js';
import { summarise, type PolicyRun } from './summary.js';
import { drawTable } from './table.js';

const POLICIES: readonly PolicyName[] = ['catch-up', 'reinject', 'discard'];
/**
 * The embedded host's one emulated CPU runs the guest and this program in turn, and each look at a guest's time costs it
 * several ms there: at 1000 Hz looking loses more than there is to see.
 */
const RATE_HZ = { native: 1000, embedded: 100 };

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: 'build/pit-demo.svg' },
    rate: { type: 'string' },
    stop: { type: 'string', default: '3' },
    overload: { type: 'string', default: '3' },
  },
});

try {
  await demonstrate();
} catch (error) {
  if (!(error instanceof VmmError) || error.code !== 'ERR_KVM_UNAVAILABLE') throw error;
  console.error(error.message);
  const inside = await host.run(import.meta.filename, {
    args: process.argv.slice(2),
    onStdout: (bytes) => void process.stdout.write(bytes),
    onStderr: (bytes) => void process.stderr.write(bytes),
  });
  process.exitCode = inside.status;
}

async function demonstrate(): Promise<void> {
  const isEmbedded = process.env['VIVARIUM_HOST'] === 'embedded';
  const plan: Plan = {
    rateHz: number('rate', values.rate ?? String(isEmbedded ? RATE_HZ.embedded : RATE_HZ.native)),
    sampleMs: 50,
    calmMs: 1500,
    stopMs: number('stop', values.stop) * 1000,
    afterStopMs: 4500,
    overloadMs: number('overload', values.overload) * 1000,
    afterOverloadMs: 3000,
    loadPerCpu: 8,
  };
  const runs: PolicyRun[] = [];
  for (const policy of POLICIES) {
    const run = await runPolicy(policy, plan);
    console.error(`${policy}: ${run.samples.length} samples`);
    runs.push(run);
  }
  const where = isEmbedded ? 'in the embedded KVM host' : "on this machine's KVM";
  const title = `A ${plan.rateHz} Hz guest, stopped for ${plan.stopMs / 1000} s and then overloaded, ${where}`;
  mkdirSync(path.dirname(values.out), { recursive: true });
  writeFileSync(values.out, drawPicture(runs, { title }));
  console.log(`${title}\n\n${drawTable(runs.map(summarise))}\n\npicture: ${values.out}`);
}

function number(name: string, value: string): number {
  const result = Number(value);
  if (!(result > 0 && result <= 5000)) throw new RangeError(`--${name}: ${value} is not a number above 0, up to 5000`);
  return result;
}
