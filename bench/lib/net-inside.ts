/**
 * The part of the net program that runs where Linux guests run: a tap with the host's end of the network on it, and each
 * contestant in turn behind it with the same kernel and initramfs, in an order that moves on with every round; each guest goes
 * through all jobs. Takes rates from the guest's console and the tap's own counts, and CPU time from the process's account.
 * Prints one line of JSON.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { KERNEL_WORDS } from './boot-request.js';
import { InsidePlace } from './inside-place.js';
import {
  NET_BEGINS,
  NET_CONTESTANTS,
  NET_ENDS,
  NET_HOST_ADDRESS,
  NET_JOBS,
  NET_WARMS,
  type NetContestant,
  type NetJob,
  type NetRequest,
  type NetResult,
  type NetSampleInside,
} from './net-request.js';

const MEMORY_MIB = 512;
const DEADLINE_MS = 600_000;
/** utime and stime of /proc/PID/stat: USER_HZ is 100 on every Linux. */
const US_PER_TICK = 10_000;
const BYTES_PER_KILOBIT = 125;
const TAP = 'bench0';
const MAC = '02:00:00:00:00:77';
/** The host sends until the guest has counted. */
const SENDS_SECONDS = 600;

const request = JSON.parse(process.argv[2] ?? '') as NetRequest;
const place = new InsidePlace(request);
const kernel = place.copied(request.kernel);
const initrd = place.copied(request.initrd);
const netload = place.copied(request.netload);
const command = place.command();
const iperf3 = place.program(request.iperf3.path, request.iperf3.libraries);
process.stderr.write(`everything is in memory after ${process.uptime().toFixed(1)} s\n`);

const ip = (...args: string[]) => execFileSync('ip', args);
execFileSync(netload, ['tap', TAP, '1']);
const server = startServer();
try {
  process.stdout.write(`${JSON.stringify(await rounds())}\n`);
} finally {
  server.kill('SIGKILL');
  execFileSync(netload, ['tap', TAP, '0']);
}

function startServer(): ChildProcess {
  ip('addr', 'add', `${NET_HOST_ADDRESS}/24`, 'dev', TAP);
  ip('link', 'set', TAP, 'up');
  return spawn(iperf3.program, ['-s'], { stdio: 'ignore', env: { ...iperf3.env, TMPDIR: place.folder } });
}

async function rounds(): Promise<NetResult> {
  const none = () => Object.fromEntries(NET_JOBS.map((job) => [job, []])) as unknown as NetResult['vivarium'];
  const result: NetResult = { vivarium: none(), qemu: none() };
  for (let round = 0; round < request.runs; round++) {
    for (let turn = 0; turn < NET_CONTESTANTS.length; turn++) {
      const contestant = NET_CONTESTANTS[(turn + round) % NET_CONTESTANTS.length]!;
      for (const [job, sample] of await runJobs(contestant)) {
        result[contestant][job].push(sample);
        const { perSecond, cpuUs, roundTripUs } = sample;
        const said = [
          `${perSecond.toFixed(0)}/s`,
          `${cpuUs.toFixed(1)} us`,
          ...(roundTripUs ? [`${roundTripUs} us`] : []),
        ];
        process.stderr.write(`round ${round + 1}: ${contestant} ${job} ${said.join(', ')}\n`);
      }
    }
  }
  return result;
}

function commandLine(contestant: NetContestant) {
  const cmdline = [...KERNEL_WORDS, 'quiet'].join(' ');
  if (contestant === 'vivarium') {
    const files = ['--kernel', kernel, '--initrd', initrd, '--cmdline', cmdline];
    return place.vivarium(command, ['--memory', `${MEMORY_MIB}M`, ...files, '--nic', `tap:${TAP},mac=${MAC}`]);
  }
  return place.qemu('pc', [
    ...['-m', String(MEMORY_MIB), '-kernel', kernel, '-initrd', initrd, '-append', cmdline],
    ...['-netdev', `tap,id=net,ifname=${TAP},script=no,downscript=no,vhost=off`],
    ...['-device', `virtio-net-pci,netdev=net,mac=${MAC},romfile=`],
  ]);
}

/** One guest's life. @throws Error with the end of its console when not all jobs came through. */
async function runJobs(contestant: NetContestant): Promise<Map<NetJob, NetSampleInside>> {
  const { program, args, env } = commandLine(contestant);
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env });
  const watchdog = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS);
  const samples = new Map<NetJob, NetSampleInside>();
  let text = '';
  let line = '';
  let sender: ChildProcess | undefined;
  let before = accountOf(child.pid!);
  const onLine = (each: string) => {
    const begins = NET_BEGINS.exec(each) ?? NET_WARMS.exec(each);
    const ends = NET_ENDS.exec(each);
    if (begins ?? ends) {
      sender?.kill('SIGKILL');
      sender = undefined;
    }
    if (ends) {
      const job = ends[1] as NetJob;
      samples.set(job, sampleOf(ends, job, between(before, accountOf(child.pid!))));
    }
    if (begins?.[1] === 'packetsIn') {
      sender = spawn(netload, ['send', TAP, String(SENDS_SECONDS)], { stdio: 'ignore' });
    }
    if (begins) before = accountOf(child.pid!);
  };
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
    const lines = (line + chunk.toString('latin1')).split('\n');
    line = lines.pop()!;
    for (const each of lines) onLine(each.trim());
  });
  child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  await new Promise((resolve) => child.once('close', resolve));
  clearTimeout(watchdog);
  sender?.kill('SIGKILL');
  if (samples.size !== NET_JOBS.length) throw new Error(`${contestant}: ${samples.size} jobs: ${text.slice(-1500)}`);
  return samples;
}

/** The rates that the programs in the guest said, but for frames out: of those its kernel takes more than go out. */
function sampleOf(ends: RegExpExecArray, job: NetJob, spent: Account): NetSampleInside {
  const [first, second] = [Number(ends[2]), Number(ends[3])];
  // The programs' own start and end are in the CPU time, the same for every contestant.
  switch (job) {
    case 'streamOut':
      return { perSecond: first, cpuUs: (spent.cpuUs / spent.bytesOut) * BYTES_PER_KILOBIT };
    case 'streamIn':
      return { perSecond: first, cpuUs: (spent.cpuUs / spent.bytesIn) * BYTES_PER_KILOBIT };
    case 'packetsOut':
      return { perSecond: spent.framesOut / request.seconds, cpuUs: spent.cpuUs / spent.framesOut };
    case 'packetsIn':
      return { perSecond: first, cpuUs: spent.cpuUs / spent.framesIn };
    case 'ping':
      return { perSecond: second, roundTripUs: first, cpuUs: spent.cpuUs / spent.framesOut };
  }
}

/** Out of the guest, and into it: what the machine's process has taken from the tap. */
interface Account {
  readonly cpuUs: number;
  readonly framesOut: number;
  readonly bytesOut: number;
  readonly framesIn: number;
  readonly bytesIn: number;
}

/** CPU time that a process has used, its threads' and its guest's included, and what has gone through the tap. */
function accountOf(pid: number): Account {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  const count = (name: string) => Number(readFileSync(path.join('/sys/class/net', TAP, 'statistics', name), 'utf8'));
  return {
    cpuUs: (Number(fields[11]) + Number(fields[12])) * US_PER_TICK,
    framesOut: count('rx_packets'),
    bytesOut: count('rx_bytes'),
    framesIn: count('tx_packets'),
    bytesIn: count('tx_bytes'),
  };
}

function between(before: Account, after: Account): Account {
  const names = Object.keys(before) as (keyof Account)[];
  return Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as unknown as Account;
}
