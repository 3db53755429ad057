/**
 * The part of the boot program that runs where Linux guests run: starts each contestant in turn, in an order that moves
 * on with every round, and takes the time until its console shows the marker. Prints one line of JSON.
 */
import { spawn } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { KERNEL_WORDS, MARKER, type Contestant, type InsideRequest, type InsideResult } from './boot-request.js';

const CONTESTANTS: readonly Contestant[] = ['vivarium', 'microvm', 'pc'];
const DEADLINE_MS = 180_000;
const MEMORY_MIB = 256;

const request = JSON.parse(process.argv[2] ?? '') as InsideRequest;

// Files of the machine outside are slow to read from here; every contestant reads from memory.
const place = '/run/vivarium-bench';
for (const folder of ['lib', 'firmware']) mkdirSync(path.join(place, folder), { recursive: true });
const copied = (file: string, folder = '') => {
  const target = path.join(place, folder, path.basename(file));
  copyFileSync(file, target);
  return target;
};
const kernel = copied(request.kernel);
const initrd = copied(request.initrd);
const qemu = copied(request.qemu);
for (const library of request.libraries) copied(library.replace(/^\/lib\//, '/usr/lib/'), 'lib');
for (const folder of ['/usr/share/qemu', '/usr/share/seabios']) {
  for (const file of readdirSync(folder)) {
    if (/^(bios|qboot|linuxboot|multiboot|pvh|kvmvapic|vgabios)[\w.-]*\.(bin|rom)$/.test(file)) {
      copied(path.join(folder, file), 'firmware');
    }
  }
}
// This build too: the one that the host keeps may be replaced by a newer one while this runs.
const build = path.dirname(path.dirname(fileURLToPath(import.meta.resolve('vivarium'))));
cpSync(build, path.join(place, 'vivarium'), { recursive: true });
const command = path.join(place, 'vivarium/dist/command/main.js');
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

function commandLine(contestant: Contestant, cmdline: string): { program: string; args: string[] } {
  if (contestant === 'vivarium') {
    const args = [command, 'run', '--quiet', '--kvm', 'native', '--memory', `${MEMORY_MIB}M`];
    return { program: process.execPath, args: [...args, '--kernel', kernel, '--initrd', initrd, '--cmdline', cmdline] };
  }
  const machine = contestant === 'pc' ? 'pc' : 'microvm,isa-serial=on,rtc=on';
  const args = ['-M', machine, '-accel', 'kvm', '-cpu', 'host', '-m', String(MEMORY_MIB), '-smp', '1'];
  args.push('-L', path.join(place, 'firmware'), '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot');
  args.push('-serial', 'stdio', '-kernel', kernel, '-initrd', initrd, '-append', cmdline);
  return { program: qemu, args };
}

/** Milliseconds until the marker; waits for the end of the contestant before it returns. */
async function boot(contestant: Contestant, cmdline: string): Promise<number> {
  const { program, args } = commandLine(contestant, cmdline);
  const startedNs = process.hrtime.bigint();
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env:
      contestant === 'vivarium'
        ? { ...process.env, XDG_CACHE_HOME: path.join(place, 'cache') }
        : { LD_LIBRARY_PATH: path.join(place, 'lib') },
  });
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
