/**
 * Runs one bench program and reports: a table for people, or with --json one object as the last line of the output.
 * With --save the object is also written to bench/results/NAME.json. Started by scripts/bench.mjs.
 */
import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { embeddedHost } from '#lib/host/index.js';
import { hostFacts, type Bench, type BenchResult, type Figures, type Stage, type Stages } from './bench.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    save: { type: 'boolean', default: false },
    runs: { type: 'string' },
    seconds: { type: 'string' },
    rate: { type: 'string' },
    stage: { type: 'string' },
  },
});

const name = positionals[0] ?? '';
const runs = wholeNumber('runs', values.runs);
const seconds = wholeNumber('seconds', values.seconds);
const rateHz = wholeNumber('rate', values.rate);

const { bench } = (await import(`../${name}.js`)) as { bench: Bench };
const stages = stagesOf(bench, values.stage);
// A result with half of its figures would replace a whole one.
if (values.save && stages.join('+') !== bench.stage) throw new RangeError('--save: all stages are wanted');
if (bench.stage === 'flat' && !kvmIsThere()) {
  // The same program on the embedded host's KVM. Only the ratios say something there.
  const inside = await embeddedHost.run(import.meta.filename, {
    args: process.argv.slice(2),
    onStdout: (bytes) => void process.stdout.write(bytes),
    onStderr: (bytes) => void process.stderr.write(bytes),
  });
  process.exit(inside.status);
}
const host = hostFacts();
const progress = (line: string) => void process.stderr.write(`${line}\n`);
progress(`${bench.name} [${stages.join('+')}]: ${bench.about}`);
const result: BenchResult = {
  name: bench.name,
  host,
  stage: stages.join('+') as Stages,
  ...(await bench.run({ runs, seconds, rateHz, stages, progress })),
};

if (values.save) {
  const file = path.resolve('bench/results', `${bench.name}.json`);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(result, null, 2)}\n`);
  progress(`saved to ${path.relative(process.cwd(), file)}`);
}
if (values.json) {
  process.stdout.write(`${JSON.stringify(result)}\n`);
} else {
  printFigures('vivarium', result.metrics);
  for (const [peer, figures] of Object.entries(result.peers)) printFigures(peer, figures);
}

function stagesOf({ stage }: Bench, only: string | undefined): readonly Stage[] {
  const all = stage.split('+') as Stage[];
  if (only === undefined) return all;
  const chosen = all.filter((each) => each === only);
  if (chosen.length === 0) throw new RangeError(`--stage: ${only} is none of ${all.join(', ')}`);
  return chosen;
}

function wholeNumber(option: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (!/^[1-9]\d*$/.test(value)) throw new RangeError(`--${option}: ${value}`);
  return Number(value);
}

function kvmIsThere(): boolean {
  try {
    accessSync(process.env['VIVARIUM_KVM'] ?? '/dev/kvm', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function printFigures(who: string, figures: Figures): void {
  process.stdout.write(`${who}\n`);
  for (const [figure, value] of Object.entries(figures)) {
    const text =
      typeof value === 'number'
        ? String(value)
        : `${value.median} (${value.low} to ${value.high}, ${value.samples} samples)`;
    process.stdout.write(`  ${figure.padEnd(36)} ${text}\n`);
  }
}
