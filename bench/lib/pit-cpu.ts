/**
 * What looking after guests' time costs: CPU time of the JavaScript thread and of the event thread together, in per cent of one CPU,
 * with guests that halt between ticks. What a timer of JavaScript's alone costs, ten times a second, stands beside it, since on some
 * hosts waking is most of it.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Machine } from '#lib/index.js';
import type { Figures } from './bench.js';
import { tickingBoot, TICKING_MEMORY } from './pit-guest.js';
import { summarise } from './stats.js';

const MEASURE_MS = 5000;
const MANY = 20;
/** What looking costs does not depend on the rate; at this one a small host keeps twenty guests in time. */
const NOMINAL_RATE_HZ = 100;
/** How often a machine is looked at that is owed nothing. */
const NOMINAL_PERIOD_MS = 100;
/** Long enough a stop for a second or so of catching up. */
const STOP_MS = 4000;
const LONGEST_CATCH_UP_MS = 20_000;

export async function cpuFigures(rateHz: number, runs: number): Promise<Figures> {
  const timer: number[] = [];
  for (let run = 0; run < runs; run++) timer.push(await timerAlone());
  const [one, many] = [await nominal(1, runs), await nominal(MANY, runs)];
  return {
    timerAloneCpuPercent: summarise(timer),
    oneMachineCpuPercent: summarise(one),
    twentyMachinesCpuPercent: summarise(many),
    eachOfTwentyCpuPercent: summarise(many.map((percent) => percent / MANY)),
    catchUpCpuPercent: summarise(await catchingUp(rateHz, runs)),
  };
}

async function timerAlone(): Promise<number> {
  const timer = setInterval(() => undefined, NOMINAL_PERIOD_MS);
  try {
    return await cpuPercentDuring(() => delay(MEASURE_MS));
  } finally {
    clearInterval(timer);
  }
}

async function nominal(machineCount: number, runs: number): Promise<number[]> {
  const machines: Machine[] = [];
  try {
    for (let index = 0; index < machineCount; index++) machines.push(await startIdleGuest(NOMINAL_RATE_HZ));
    await delay(MEASURE_MS);
    const samples: number[] = [];
    for (let run = 0; run < runs; run++) samples.push(await cpuPercentDuring(() => delay(MEASURE_MS)));
    return samples;
  } finally {
    for (const vm of machines) await vm.close();
  }
}

async function catchingUp(rateHz: number, runs: number): Promise<number[]> {
  const vm = await startIdleGuest(rateHz);
  try {
    const samples: number[] = [];
    for (let run = 0; run < runs; run++) {
      await vm.pause();
      await delay(STOP_MS);
      await vm.resume();
      samples.push(
        await cpuPercentDuring(async () => {
          const untilMs = performance.now() + LONGEST_CATCH_UP_MS;
          do await delay(NOMINAL_PERIOD_MS);
          while (vm.pit.status().phase === 'catch-up' && performance.now() < untilMs);
        }),
      );
    }
    return samples;
  } finally {
    await vm.close();
  }
}

async function startIdleGuest(rateHz: number): Promise<Machine> {
  const vm = await Machine.create({ memory: TICKING_MEMORY, boot: tickingBoot(rateHz, { busy: false }) });
  await vm.start();
  return vm;
}

async function cpuPercentDuring(action: () => Promise<unknown>): Promise<number> {
  const before = controllerCpuNs();
  const startedMs = performance.now();
  await action();
  return (controllerCpuNs() - before) / (performance.now() - startedMs) / 1e4;
}

/** CPU time of this process's JavaScript and event threads in ns (proc(5), schedstat): no vCPU thread is in it. */
function controllerCpuNs(): number {
  const events = readdirSync('/proc/self/task').filter(
    (id) => readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim() === 'vivarium-events',
  );
  return [process.pid, ...events]
    .map((id) => Number(readFileSync(`/proc/self/task/${id}/schedstat`, 'utf8').split(' ')[0]))
    .reduce((sum, ns) => sum + ns, 0);
}
