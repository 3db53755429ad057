/**
 * What is done to a guest that keeps time by ticks, and what it makes of it: a stop of its CPUs, and other work on the
 * host. Its lag is the host's clock against the guest's own count, taken from the moment before.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { PIT_HZ } from '#lib/time/counts.js';
import { startLoad } from './load.js';
import type { Contestant } from './pit-contestant.js';
import { reloadFor } from './pit-guest.js';
import { greatestIn100Ms, workSpeed, type TickSample } from './tick-samples.js';

export interface StopResult {
  /** From the end of the stop until the guest is within a tick; undefined when it had not come back in time. */
  readonly returnMs: number | undefined;
  /** Ticks that the guest is behind at the end. */
  readonly lostTicks: number;
  readonly greatestIn100Ms: number;
  /** Speed of the guest's own work until it was back, or for a second when it never was, against that before the stop. */
  readonly workShare: number;
}

export interface LoadResult {
  readonly greatestLagMs: number;
  /** From the end of the load until the guest is within a tick; undefined when it had not come back in time. */
  readonly returnMs: number | undefined;
  /** Ticks that the guest is behind then. */
  readonly lostTicks: number;
}

const TICKING_BY_MS = 60_000;
const CALM_MS = 1000;
const LOOK_MS = 25;
const UNPAID_MS = 1000;
/** Between ticks a guest that is owed nothing is up to one behind, and that one may be under way. */
const WITHIN_TICKS = 2;
/** Busy processes for each CPU: one alone is hardly noticed by a guest that seldom ticks. */
const LOAD_PER_CPU = 4;
/** How long a guest may take to come back from a stop, and from a load; and what is looked at afterwards. */
const STOP_PATIENCE_MS = 10_000;
const LOAD_PATIENCE_MS = 60_000;
const SETTLE_MS = 500;

/** Waits until the guest ticks, and for a calm second. @throws Error when it does not tick. */
export async function warmUp(contestant: Contestant): Promise<void> {
  const untilMs = performance.now() + TICKING_BY_MS;
  while (contestant.ticks() < 10) {
    if (performance.now() > untilMs) throw new Error(`the guest took ${contestant.ticks()} ticks`);
    await delay(LOOK_MS);
  }
  await delay(CALM_MS);
}

export async function stopAndGo(contestant: Contestant, rateHz: number, stopMs: number): Promise<StopResult> {
  const calm = look(contestant);
  await delay(CALM_MS);
  const before = look(contestant);
  const lag = lagFrom(before, rateHz);
  await contestant.pause();
  await delay(stopMs);
  await contestant.resume();
  const looks = [look(contestant)];
  const back = await comeBack(contestant, lag, STOP_PATIENCE_MS, looks);
  const first = looks[0]!;
  const paid = back ?? looks.filter(({ atMs }) => atMs <= first.atMs + UNPAID_MS).at(-1)!;
  const lostTicks = await lostInTheEnd(contestant, lag, looks);
  return {
    returnMs: back && back.atMs - first.atMs,
    lostTicks,
    greatestIn100Ms: greatestIn100Ms(looks),
    workShare: workSpeed(first, paid) / workSpeed(calm, before),
  };
}

/** Every CPU kept busy by others for a while; then what is left when that is over and the guest had time to come back. */
export async function loadAndLetGo(contestant: Contestant, rateHz: number, loadMs: number): Promise<LoadResult> {
  const before = look(contestant);
  const lag = lagFrom(before, rateHz);
  const looks = [before];
  const load = startLoad(LOAD_PER_CPU);
  try {
    await watch(contestant, loadMs, looks);
  } finally {
    await load.stop();
  }
  const first = look(contestant);
  looks.push(first);
  const back = await comeBack(contestant, lag, LOAD_PATIENCE_MS, looks);
  return {
    greatestLagMs: (Math.max(...looks.map(lag)) * 1000) / rateHz,
    returnMs: back && back.atMs - first.atMs,
    lostTicks: await lostInTheEnd(contestant, lag, looks),
  };
}

function look(contestant: Contestant): TickSample {
  return { atMs: performance.now(), ticks: contestant.ticks(), work: contestant.work() };
}

async function watch(contestant: Contestant, forMs: number, looks: TickSample[]): Promise<void> {
  const untilMs = performance.now() + forMs;
  while (performance.now() < untilMs) {
    await delay(LOOK_MS);
    looks.push(look(contestant));
  }
}

async function comeBack(
  contestant: Contestant,
  lag: (at: TickSample) => number,
  patienceMs: number,
  looks: TickSample[],
) {
  const untilMs = performance.now() + patienceMs;
  for (;;) {
    const last = looks.at(-1)!;
    if (lag(last) <= WITHIN_TICKS) return last;
    if (performance.now() > untilMs) return undefined;
    await delay(LOOK_MS);
    looks.push(look(contestant));
  }
}

/** What stays lost: a tick that a busy host delays while this is looked at is not. */
async function lostInTheEnd(
  contestant: Contestant,
  lag: (at: TickSample) => number,
  looks: TickSample[],
): Promise<number> {
  const settling = [looks.at(-1)!];
  await watch(contestant, SETTLE_MS, settling);
  looks.push(...settling.slice(1));
  return wholeTicks(Math.min(...settling.map(lag)));
}

/** In ticks, as they are programmed: a reload value rarely gives the wanted rate exactly. */
function lagFrom(start: TickSample, rateHz: number): (at: TickSample) => number {
  const ticksPerMs = PIT_HZ / reloadFor(rateHz) / 1000;
  return ({ atMs, ticks }) => (atMs - start.atMs) * ticksPerMs - (ticks - start.ticks);
}

/** What is within a tick is not lost. */
function wholeTicks(lag: number): number {
  return lag <= WITHIN_TICKS ? 0 : Math.floor(lag);
}
