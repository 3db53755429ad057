/**
 * The part of the boot program that runs where Linux guests run: starts each contestant in turn, in an order that moves
 * on with every round, and takes the time until its console shows the marker. Prints one line of JSON.
 */
import { spawn } from 'node:child_process';
import { KERNEL_WORDS, MARKER, type Contestant, type InsideRequest, type InsideResult } from './boot-request.js';
import { InsidePlace } from './inside-place.js';

const CONTESTANTS: readonly Contestant[] = ['vivarium', 'microvm', 'pc'];
const DEADLINE_MS = 180_000;
const MEMORY_MIB = 256;

const request = JSON.parse(process.argv[2] ?? '') as InsideRequest;

const place = new InsidePlace(request);
const kernel = place.copied(request.kernel);
const initrd = place.copied(request.initrd);
const command = place.command();
process.stderr.write(`everything is in memory after ${process.uptime().toFixed(1)} s\n`);

const result: InsideResult = {
  quiet: { vivarium: [], microvm: [], pc: [] },
  full: { vivarium: [], microvm: [], pc: [] },
};
for (const log of ['quiet', 'full'] as const) {
  // The first round is not counted: files come into caches, the kernel is unpacked once.
  for (let round = -1; round < request.runs; round++) {
    for (let turn = 0; turn < CONTESTANTS.length; turn++) {
      const contestant = CONTESTANTS[(turn + round + 1) % CONTESTANTS.length]!;
      const tookMs = await boot(contestant, [...KERNEL_WORDS, ...(log === 'quiet' ? ['quiet'] : [])].join(' '));
      process.stderr.write(
        `${log} ${round < 0 ? 'warm-up' : `round ${round + 1}`}: ${contestant} ${Math.round(tookMs)} ms\n`,
      );
      if (round >= 0) result[log][contestant].push(tookMs);
    }
  }
}
process.stdout.write(`${JSON.stringify(result)}\n`);

function commandLine(contestant: Contestant, cmdline: string) {
  if (contestant === 'vivarium') {
    const files = ['--kernel', kernel, '--initrd', initrd, '--cmdline', cmdline];
    return place.vivarium(command, ['--memory', `${MEMORY_MIB}M`, ...files]);
  }
  const machine = contestant === 'pc' ? 'pc' : 'microvm,isa-serial=on,rtc=on';
  const files = ['-kernel', kernel, '-initrd', initrd, '-append', cmdline];
  return place.qemu(machine, ['-m', String(MEMORY_MIB), ...files]);
}

/** Milliseconds until the marker; waits for the end of the contestant before it returns. */
async function boot(contestant: Contestant, cmdline: string): Promise<number> {
  const { program, args, env } = commandLine(contestant, cmdline);
  const startedNs = process.hrtime.bigint();
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env });
  const watchdog = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS);
  let text = '';
  let tookMs: number | undefined;
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
    if (tookMs === undefined && text.includes(MARKER)) tookMs = Number(process.hrtime.bigint() - startedNs) / 1e6;
  });
  child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  await new Promise((resolve) => child.once('close', resolve));
  clearTimeout(watchdog);
  if (tookMs === undefined) throw new Error(`${contestant} did not reach userspace: ${text.slice(-600)}`);
  return tookMs;
}
