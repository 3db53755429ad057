/**
 * The part of the net program that runs where Linux guests run: both contestants with the same kernel and initramfs, each on a tap
 * of its own, whose other end is this host. They go through the jobs in turn, first one, then the other, in an order that
 * changes with every round; whose turn it is not sleeps. Rates are what the programs in the guests say, CPU time is the
 * process's account. Prints one line of JSON.
 */
import { execFileSync, spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { KERNEL_WORDS } from './boot-request.js';
import { InsidePlace } from './inside-place.js';
import { NetContestant, type Answer } from './net-contestant.js';
import { NET_CONTESTANTS, NET_JOBS, NET_WARM_UP_SECONDS } from './net-request.js';
import type { NetJob, NetRequest, NetResult, NetSampleInside } from './net-request.js';

const MEMORY_MIB = 512;
const BOOT_DEADLINE_MS = 300_000;
const JOB_DEADLINE_MS = 600_000;
const BYTES_PER_KILOBIT = 125;
/** The host sends until the guest has counted. */
const SENDS_SECONDS = 600;
/** What the job before has left behind. */
const SETTLES_MS = 500;

const request = JSON.parse(process.argv[2] ?? '') as NetRequest;
const place = new InsidePlace(request);
const kernel = place.copied(request.kernel);
const initrd = place.copied(request.initrd);
const netload = place.copied(request.netload);
const command = place.command();
const iperf3 = place.program(request.iperf3.path, request.iperf3.libraries);
process.stderr.write(`everything is in memory after ${process.uptime().toFixed(1)} s\n`);

const machines = NET_CONTESTANTS.map((name, index) => ({
  name,
  tap: `bench${index}`,
  mac: `02:00:00:00:77:0${index}`,
  address: `10.211.${index}.2`,
  hostAddress: `10.211.${index}.1`,
}));
type Machine = (typeof machines)[number];

for (const { tap, hostAddress } of machines) {
  // Of a run before, which left it behind.
  execFileSync(netload, ['tap', tap, '0']);
  execFileSync(netload, ['tap', tap, '1']);
  execFileSync('ip', ['addr', 'add', `${hostAddress}/24`, 'dev', tap]);
  execFileSync('ip', ['link', 'set', tap, 'up']);
}
const server = spawn(iperf3.program, ['-s'], { stdio: 'ignore', env: { ...iperf3.env, TMPDIR: place.folder } });
const running: NetContestant[] = [];
try {
  for (const machine of machines) {
    const contestant = new NetContestant(commandLine(machine), machine.tap);
    running.push(contestant);
    await contestant.ready(BOOT_DEADLINE_MS);
    await contestant.ask(`net ${machine.address}`, JOB_DEADLINE_MS);
    process.stderr.write(`${machine.name} is ready\n`);
  }
  process.stdout.write(`${JSON.stringify(await rounds())}\n`);
} finally {
  server.kill('SIGKILL');
  for (const contestant of running) contestant.end();
}
// The taps, which the machines may still have, go with the host or with the next run.
process.exit(0);

async function rounds(): Promise<NetResult> {
  const none = () => Object.fromEntries(NET_JOBS.map((job) => [job, []])) as unknown as NetResult['vivarium'];
  const result: NetResult = { vivarium: none(), qemu: none() };
  for (let round = -1; round < request.runs; round++) {
    for (const job of NET_JOBS) {
      for (let turn = 0; turn < machines.length; turn++) {
        const index = (turn + round + 1) % machines.length;
        const machine = machines[index]!;
        await delay(SETTLES_MS);
        const seconds = round < 0 ? NET_WARM_UP_SECONDS : request.seconds;
        const sample = sampleOf(job, seconds, await run(machine, running[index]!, job, seconds));
        if (round >= 0) result[machine.name][job].push(sample);
        const { perSecond, cpuUs, roundTripUs } = sample;
        const trip = roundTripUs === undefined ? '' : `, ${roundTripUs} us`;
        const when = round < 0 ? 'warm-up' : `round ${round + 1}`;
        process.stderr.write(
          `${when}: ${machine.name} ${job} ${perSecond.toFixed(0)}/s, CPU ${cpuUs.toFixed(1)} us${trip}\n`,
        );
      }
    }
  }
  return result;
}

function commandLine({ name, tap, mac }: Machine) {
  const cmdline = [...KERNEL_WORDS, 'quiet'].join(' ');
  if (name === 'vivarium') {
    const files = ['--kernel', kernel, '--initrd', initrd, '--cmdline', cmdline];
    return place.vivarium(command, ['--memory', `${MEMORY_MIB}M`, ...files, '--nic', `tap:${tap},mac=${mac}`]);
  }
  return place.qemu('pc', [
    ...['-m', String(MEMORY_MIB), '-kernel', kernel, '-initrd', initrd, '-append', cmdline],
    ...['-netdev', `tap,id=net,ifname=${tap},script=no,downscript=no,vhost=off`],
    ...['-device', `virtio-net-pci,netdev=net,mac=${mac},romfile=`],
  ]);
}

/** A job in the guest, with its other end here. */
async function run(machine: Machine, contestant: NetContestant, job: NetJob, seconds: number): Promise<Answer> {
  const sender =
    job === 'packetsIn' ? spawn(netload, ['send', machine.tap, String(SENDS_SECONDS)], { stdio: 'ignore' }) : undefined;
  try {
    return await contestant.ask(`${job} ${seconds} ${machine.hostAddress}`, JOB_DEADLINE_MS);
  } finally {
    sender?.kill('SIGKILL');
  }
}

/** Of frames out the guest's kernel takes more than go out: those are counted at the tap. */
function sampleOf(job: NetJob, seconds: number, { numbers, spent }: Answer): NetSampleInside {
  const [first, second] = numbers as [number, number];
  // The programs' own start and end are in the CPU time, the same for both.
  switch (job) {
    case 'streamOut':
      return { perSecond: first, cpuUs: (spent.cpuUs / spent.bytesOut) * BYTES_PER_KILOBIT };
    case 'streamIn':
      return { perSecond: first, cpuUs: (spent.cpuUs / spent.bytesIn) * BYTES_PER_KILOBIT };
    case 'packetsOut':
      return { perSecond: spent.framesOut / seconds, cpuUs: spent.cpuUs / spent.framesOut };
    case 'packetsIn':
      return { perSecond: first, cpuUs: spent.cpuUs / spent.framesIn };
    case 'ping':
      return { perSecond: second, roundTripUs: first, cpuUs: spent.cpuUs / spent.framesOut };
  }
}
