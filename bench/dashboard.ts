/**
 * What the dashboard's process costs while a page looks closely at 20 machines: the CPU time of `vivarium dashboard` with all their counters, writes to
 * memory among them, ten times a second over one WebSocket; and while nobody looks. The machines are in this process, whose cost is not counted.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { Machine, serveMachine } from '#lib/index.js';
import type { Bench } from './lib/bench.js';
import { GUEST_ADDRESS, MARK_PORT, sleeper } from './lib/guests.js';
import { Marks } from './lib/marks.js';
import { summarise } from './lib/stats.js';

const MACHINES = 20;
const LOOKS_PER_SECOND = 10;
const DEFAULT_SECONDS = 5;
const DEFAULT_RUNS = 5;
/** What /proc counts CPU time in: 100 a second on all of Linux's x86 (USER_HZ). */
const TICKS_PER_SECOND = 100;

export const bench: Bench = {
  name: 'dashboard',
  stage: 'flat',
  about: `CPU of the dashboard's process with ${MACHINES} machines at ${LOOKS_PER_SECOND} looks a second; to reach: 10 % of a CPU`,
  async run({ runs = DEFAULT_RUNS, seconds = DEFAULT_SECONDS, progress }) {
    const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-bench-'));
    process.env['XDG_RUNTIME_DIR'] = folder;
    const names = Array.from({ length: MACHINES }, (_, index) => `m${index}`);
    const machines = await Promise.all(names.map(servedMachine));
    const command = spawn(process.execPath, ['dist/command/main.js', 'dashboard', '--json'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      const url = await urlOf(command.stdout);
      const page = await openPage(url);
      const pid = command.pid ?? 0;
      const watched: number[] = [];
      const idle: number[] = [];
      const looks: number[] = [];
      for (let round = 0; round < runs; round++) {
        page.say('unwatch', names);
        await delay(500);
        idle.push(await cpuPercent(pid, seconds));
        page.say('watch', names);
        await delay(500);
        const before = page.looks();
        const startedMs = performance.now();
        watched.push(await cpuPercent(pid, seconds));
        looks.push((page.looks() - before) / ((performance.now() - startedMs) / 1000));
        progress(`${watched.at(-1)?.toFixed(1) ?? ''} % of a CPU at ${looks.at(-1)?.toFixed(0) ?? ''} looks a second`);
      }
      page.close();
      return {
        metrics: {
          watchedCpuPercent: summarise(watched),
          listedCpuPercent: summarise(idle),
          looksPerSecond: summarise(looks),
        },
        peers: {},
        runs,
      };
    } finally {
      command.kill('SIGINT');
      await Promise.all(machines.map((machine) => machine.close()));
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

async function servedMachine(name: string): Promise<Machine> {
  const marks = new Marks();
  const machine = await Machine.create({
    name,
    memory: '128MiB',
    portDevices: [{ firstPort: MARK_PORT, portCount: 1, device: marks }],
    boot: { flat: sleeper, address: GUEST_ADDRESS, mode: 'real16' },
  });
  await serveMachine(machine);
  await machine.start();
  await marks.reached(1);
  return machine;
}

async function urlOf(stdout: NodeJS.ReadableStream): Promise<URL> {
  for await (const chunk of stdout) return new URL((JSON.parse(String(chunk)) as { url: string }).url);
  throw new Error('the dashboard ended before it said where it is');
}

interface BenchPage {
  say(type: 'watch' | 'unwatch', names: readonly string[]): void;
  looks(): number;
  close(): void;
}

async function openPage(url: URL): Promise<BenchPage> {
  const token = url.searchParams.get('token') ?? '';
  const socket = new WebSocket(`ws://${url.host}/socket?token=${token}`);
  let looks = 0;
  const marker = Buffer.from('{"type":"stats"');
  socket.on('message', (data) => {
    if ((data as Buffer).subarray(0, marker.length).equals(marker)) looks++;
  });
  await new Promise((resolve, reject) => {
    socket.once('open', resolve);
    socket.once('error', reject);
  });
  return {
    say: (type, names) => {
      for (const name of names) socket.send(JSON.stringify({ type, name, beat: 'fast' }));
    },
    looks: () => looks,
    close: () => socket.close(),
  };
}

/** User and system time of a process (proc(5), stat 14 and 15) over a while, in percent of one CPU. */
async function cpuPercent(pid: number, seconds: number): Promise<number> {
  const [before, startedMs] = [ticksOf(pid), performance.now()];
  await delay(seconds * 1000);
  const passedS = (performance.now() - startedMs) / 1000;
  return (100 * (ticksOf(pid) - before)) / TICKS_PER_SECOND / passedS;
}

function ticksOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  // The first field behind the name is the third one.
  return Number(fields[14 - 3]) + Number(fields[15 - 3]);
}
