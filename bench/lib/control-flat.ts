/**
 * Calls of the control socket on idle machines, each in a process of its own: how long one takes, against node's own HTTP server in the
 * same process; a scrape of all of them; and what it costs to watch all of them at ten updates a second.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { controlClient } from '#lib/control/client.js';
import { connect, scrapeMachines } from '#lib/control/index.js';
import { lockFile } from '#lib/memory/index.js';
import type { Figures } from './bench.js';
import { pairedRatio, summarise } from './stats.js';

const MACHINES = 20;
/** Of each call, before which as many are not counted. */
const CALLS = 200;
const WATCH_EVERY_MS = 100;
const SCRAPES_A_RUN = 10;

export interface FlatOptions {
  readonly runs: number;
  /** How long streams are watched in each run. */
  readonly seconds: number;
  readonly progress: (line: string) => void;
}

export async function measureFlat(options: FlatOptions): Promise<{ metrics: Figures; peers: Record<string, Figures> }> {
  const folder = await mkdtemp(path.join(tmpdir(), 'vivarium-bench-'));
  const place = { folder, lock: lockFile };
  const names = Array.from({ length: MACHINES }, (_, at) => `bench${at}`);
  const holders: ChildProcess[] = [];
  try {
    // One after the other: their start is not what is measured.
    for (const name of names) holders.push(await hold(name, folder));
    options.progress(`${MACHINES} machines run`);
    const calls = await measureCalls(names[0]!, place, options);
    const scrapes = await measureScrapes(place, options);
    const watched = await measureWatching(names, place, options);
    const { machineMs, statsMs, plainMs } = calls;
    return {
      metrics: {
        machineMs: summarise(machineMs),
        machineRatio: pairedRatio(machineMs, plainMs),
        statsMs: summarise(statsMs),
        statsRatio: pairedRatio(statsMs, plainMs),
        scrapeOf20Ms: summarise(scrapes.map(({ tookMs }) => tookMs)),
        scrapeOf20CpuMs: summarise(scrapes.map(({ cpuMs }) => cpuMs)),
        watch20CpuPercent: summarise(watched.map(({ cpuPercent }) => cpuPercent)),
        watch20PerSecond: summarise(watched.map(({ perSecond }) => perSecond)),
      },
      peers: { nodeHttp: { requestMs: summarise(plainMs) } },
    };
  } finally {
    await Promise.all(holders.map(release));
    await rm(folder, { recursive: true, force: true });
  }
}

async function hold(name: string, folder: string): Promise<ChildProcess> {
  const holder = spawn(process.execPath, [path.resolve(import.meta.dirname, 'control-holder.js'), name, folder], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const [said] = (await Promise.race([once(holder.stdout, 'data'), once(holder, 'exit')])) as [unknown];
  if (!(said instanceof Buffer)) throw new Error(`the process of ${name} has ended`);
  return holder;
}

async function release(holder: ChildProcess): Promise<void> {
  if (holder.exitCode !== null || holder.signalCode !== null) return;
  const gone = once(holder, 'exit');
  holder.stdin?.end();
  await gone;
}

type Place = Parameters<typeof controlClient>[1];

/** Milliseconds of each call from its begin to its whole answer, one after the other in turn. */
async function measureCalls(name: string, place: Place, { runs, progress }: FlatOptions) {
  const client = controlClient(name, place);
  const plain = path.join(place!.folder, name, 'plain');
  const machineMs: number[] = [];
  const statsMs: number[] = [];
  const plainMs: number[] = [];
  for (let call = -CALLS; call < CALLS * runs; call++) {
    const times = [
      await timeOf(() => client.request('GET', '/v1/machine')),
      await timeOf(() => client.request('GET', '/v1/stats')),
      await timeOf(() => plainRequest(plain)),
    ] as const;
    if (call < 0) continue;
    [machineMs, statsMs, plainMs].forEach((into, at) => into.push(times[at]!));
  }
  progress('calls: done');
  return { machineMs, statsMs, plainMs };
}

/** The time of each, and the CPU time of this process, which asks; that of those that answer comes on top. */
async function measureScrapes(place: Place, { runs, progress }: FlatOptions) {
  const samples: { tookMs: number; cpuMs: number }[] = [];
  for (let at = -SCRAPES_A_RUN; at < runs * SCRAPES_A_RUN; at++) {
    let text = '';
    const before = process.cpuUsage();
    const tookMs = await timeOf(async () => (text = await scrapeMachines(place === undefined ? {} : { place })));
    const { user, system } = process.cpuUsage(before);
    const found = text.match(/^vivarium_machine_info/gm)?.length ?? 0;
    if (found !== MACHINES) throw new Error(`a scrape found ${found} machines of ${MACHINES}`);
    if (at >= 0) samples.push({ tookMs, cpuMs: (user + system) / 1000 });
  }
  progress('scrapes: done');
  return samples;
}

/** CPU time of this process, in per cent of one CPU. */
async function measureWatching(names: readonly string[], place: Place, { runs, seconds, progress }: FlatOptions) {
  const stops: AbortController[] = [];
  let updates = 0;
  const watching = names.map(async (name) => {
    const machine = await connect(name, place === undefined ? {} : { place });
    const stop = new AbortController();
    stops.push(stop);
    for await (const stats of machine.watchStats({ everyMs: WATCH_EVERY_MS, signal: stop.signal })) {
      if (stats.state !== 'running') throw new Error(`${name} is ${stats.state}`);
      updates++;
    }
  });
  const ended = Promise.allSettled(watching);
  const samples: { cpuPercent: number; perSecond: number }[] = [];
  for (let round = -1; round < runs; round++) {
    updates = 0;
    const before = process.cpuUsage();
    const startMs = performance.now();
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    const elapsedMs = performance.now() - startMs;
    const { user, system } = process.cpuUsage(before);
    const perSecond = (updates / elapsedMs) * 1000;
    // Those that were left out would cost nothing.
    if (updates === 0) throw new Error('no updates came');
    if (round >= 0) samples.push({ cpuPercent: (user + system) / 10 / elapsedMs, perSecond });
    progress(`watching, ${round < 0 ? 'warm-up' : `round ${round + 1}`}: ${perSecond.toFixed(0)} updates a second`);
  }
  for (const stop of stops) stop.abort();
  await ended;
  return samples;
}

async function timeOf(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}

function plainRequest(socketPath: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path: '/', agent: false }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (chunk: string) => (text += chunk));
      answer.on('end', () => resolve(JSON.parse(text)));
      answer.on('error', reject);
    });
    asked.on('error', reject);
    asked.end();
  });
}
