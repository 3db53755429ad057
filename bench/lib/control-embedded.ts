/**
 * A command in a stock Linux guest by the control socket: how long `true` takes, against a round trip of the guest's console (a character
 * that is typed until its echo), both over the same socket of one machine in the embedded host, in turn.
 */
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { connect } from '#lib/index.js';
import type { Figures } from './bench.js';
import { pairedRatio, summarise } from './stats.js';

const NAME = 'bench-control';
/** A line of the shell holds so many characters without a wrap. */
const ROUNDS = 30;
const CLEARS_LINE = '\x15';
const BOOT_MS = 300_000;

export async function measureEmbedded(runs: number, progress: (line: string) => void) {
  const root = path.dirname(path.dirname(fileURLToPath(import.meta.resolve('vivarium'))));
  const command = path.join(root, 'dist/command/main.js');
  progress('starting a machine in the embedded host');
  execFileSync(process.execPath, [command, 'run', '-d', '--name', NAME, '--kvm', 'embedded'], { stdio: 'inherit' });
  const machine = await connect(NAME);
  try {
    // The agent has answered once before anything is measured.
    await machine.run({ argv: ['true'], waitMs: BOOT_MS });
    await machine.console.waitFor(/[#$] /, { timeoutMs: BOOT_MS });
    const execMs: number[] = [];
    const echoMs: number[] = [];
    const { input, output, close } = await machine.attach({ scrollbackBytes: 0 });
    try {
      for (let run = -1; run < runs; run++) {
        for (let round = 0; round < ROUNDS; round++) {
          const echo = await timeOf(() => echoOf('a', input, output));
          const exec = await timeOf(() => machine.run({ argv: ['true'] }));
          if (run < 0) continue;
          echoMs.push(echo);
          execMs.push(exec);
        }
        input.write(CLEARS_LINE);
        progress(run < 0 ? 'warm-up: done' : `round ${run + 1}: done`);
      }
    } finally {
      close();
    }
    const metrics: Figures = { execMs: summarise(execMs), execToEchoRatio: pairedRatio(execMs, echoMs) };
    return { metrics, peers: { console: { echoMs: summarise(echoMs) } } };
  } finally {
    await machine.kill();
  }
}

function echoOf(typed: string, input: NodeJS.WritableStream, output: Readable): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (): void => {
      output.off('data', onData);
      output.off('close', onClose);
    };
    const onData = (bytes: Buffer): void => {
      if (!bytes.includes(typed)) return;
      done();
      resolve();
    };
    const onClose = (): void => {
      done();
      reject(new Error('the console has ended'));
    };
    output.on('data', onData);
    output.on('close', onClose);
    input.write(typed);
  });
}

async function timeOf(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}
