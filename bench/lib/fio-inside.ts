/**
 * The part of the fio program that runs where Linux guests run: boots each contestant in turn with the same kernel,
 * initramfs and disk, in an order that moves on with every round; each guest goes through all jobs. Takes requests a
 * second from the guest's console, and CPU time from the process's own account. Prints one line of JSON.
 */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { KERNEL_WORDS } from './boot-request.js';
import {
  FIO_BEGINS,
  FIO_CONTESTANTS,
  FIO_ENDS,
  FIO_JOBS,
  type FioContestant,
  type FioRequest,
  type FioResult,
  type FioSample,
} from './fio-request.js';
import { InsidePlace } from './inside-place.js';

const DISK_BYTES = 64 * 2 ** 20;
const MEMORY_MIB = 512;
const DEADLINE_MS = 900_000;
/** utime and stime of /proc/PID/stat: USER_HZ is 100 on every Linux. */
const US_PER_TICK = 10_000;

const request = JSON.parse(process.argv[2] ?? '') as FioRequest;
const place = new InsidePlace(request);
const kernel = place.copied(request.kernel);
const initrd = place.copied(request.initrd);
const command = place.command();
const disk = path.join(place.folder, 'disk.img');
process.stderr.write(`everything is in memory after ${process.uptime().toFixed(1)} s\n`);

const result: FioResult = { vivarium: {}, qemuThreads: {}, qemuIoUring: {} };
for (let round = 0; round < request.runs; round++) {
  for (let turn = 0; turn < FIO_CONTESTANTS.length; turn++) {
    const contestant = FIO_CONTESTANTS[(turn + round) % FIO_CONTESTANTS.length]!;
    writeFileSync(disk, Buffer.alloc(DISK_BYTES, 1));
    const samples = await runJobs(contestant);
    for (const [index, sample] of samples.entries()) {
      const { name } = FIO_JOBS[index]!;
      (result[contestant][name] ??= []).push(sample);
      const { perSecond, cpuUs } = sample;
      process.stderr.write(`round ${round + 1}: ${contestant} ${name} ${perSecond}/s, ${cpuUs.toFixed(0)} us\n`);
    }
  }
}
process.stdout.write(`${JSON.stringify(result)}\n`);

function commandLine(contestant: FioContestant) {
  const cmdline = [...KERNEL_WORDS, 'quiet'].join(' ');
  if (contestant === 'vivarium') {
    const files = ['--kernel', kernel, '--initrd', initrd, '--cmdline', cmdline, '--disk', disk];
    return place.vivarium(command, ['--memory', `${MEMORY_MIB}M`, ...files]);
  }
  const aio = contestant === 'qemuThreads' ? 'threads' : 'io_uring';
  return place.qemu('pc', [
    ...['-m', String(MEMORY_MIB), '-kernel', kernel, '-initrd', initrd, '-append', cmdline],
    ...['-drive', `file=${disk},if=none,id=disk,format=raw,cache=writeback,aio=${aio}`],
    ...['-device', 'virtio-blk-pci,drive=disk'],
  ]);
}

/** One guest's life. @throws Error with the end of its console when not all jobs came through. */
async function runJobs(contestant: FioContestant): Promise<FioSample[]> {
  const { program, args, env } = commandLine(contestant);
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env });
  const watchdog = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS);
  const samples: FioSample[] = [];
  let text = '';
  let line = '';
  let beganUs = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
    const lines = (line + chunk.toString('latin1')).split('\n');
    line = lines.pop()!;
    for (const each of lines) {
      if (FIO_BEGINS.test(each.trim())) beganUs = cpuUsOf(child.pid!);
      const ended = FIO_ENDS.exec(each.trim());
      if (!ended) continue;
      // fio's own start and end are in the CPU time, the same for every contestant.
      const perSecond = Number(ended[2]);
      const requests = Math.max(1, perSecond * request.seconds);
      samples.push({ perSecond, cpuUs: (cpuUsOf(child.pid!) - beganUs) / requests });
    }
  });
  child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  await new Promise((resolve) => child.once('close', resolve));
  clearTimeout(watchdog);
  if (samples.length !== FIO_JOBS.length) throw new Error(`${contestant}: ${samples.length} jobs: ${text.slice(-800)}`);
  return samples;
}

/** CPU time that a process has used, its threads' and its guest's included. */
function cpuUsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) * US_PER_TICK;
}
