/**
 * A guest's time by its PIT: what a stop and a busy host cost a guest that keeps time by ticks, and what paying back costs
 * it and the host. Against the kernel's own reinjection, and against QEMU on the same KVM with both of its policies for lost
 * ticks (lib/pit-contestant.ts).
 */
import type { Bench, Figures } from './lib/bench.js';
import { CONTESTANTS, type ContestantName } from './lib/pit-contestant.js';
import { cpuFigures } from './lib/pit-cpu.js';
import { loadAndLetGo, stopAndGo, warmUp, type LoadResult, type StopResult } from './lib/pit-trouble.js';
import { pairedRatio, summarise } from './lib/stats.js';

const DEFAULT_RUNS = 3;
const DEFAULT_SECONDS = 60;
const STOP_MS = 2000;
/** In the embedded host, whose one CPU runs guests and JavaScript in turn, 1000 Hz is more than any looking leaves. */
const RATE_HZ = process.env['VIVARIUM_HOST'] === 'embedded' ? 100 : 1000;

interface Round {
  readonly stop: StopResult;
  readonly load: LoadResult;
  /** The greatest rate in 100 ms after a stop, against the cap. */
  readonly ofCap: number;
}

export const bench: Bench = {
  name: 'pit',
  stage: 'flat',
  about:
    'a stopped and an overloaded guest; to reach: within a tick in 2 s, no tick lost, 70 % of its work kept, the cap',
  async run({ runs = DEFAULT_RUNS, seconds = DEFAULT_SECONDS, rateHz = RATE_HZ, progress }) {
    const names = Object.keys(CONTESTANTS) as ContestantName[];
    const rounds = Object.fromEntries(names.map((name) => [name, [] as Round[]])) as Record<ContestantName, Round[]>;
    for (let index = 0; index < runs; index++) {
      for (const name of names) {
        const round = await oneRound(name, rateHz, seconds * 1000);
        const { stop, load } = round;
        progress(
          `round ${index + 1}, ${name}: stop ${back(stop)}, ${stop.greatestIn100Ms.toFixed(0)} in 100 ms, ` +
            `${(stop.workShare * 100).toFixed(0)} % of its work; load ${back(load)}`,
        );
        rounds[name].push(round);
      }
    }
    const { catchUp, reinject, qemuDelay, qemuDiscard } = rounds;
    const share = (of: readonly Round[]) => of.map(({ stop }) => stop.workShare);
    return {
      metrics: {
        rateHz,
        loadSeconds: seconds,
        ...figures(catchUp),
        greatestRateOfCapRatio: summarise(catchUp.map(({ ofCap }) => ofCap)),
        workGivenUpPercent: summarise(share(catchUp).map((kept) => 100 * (1 - kept))),
        workKeptRatioToReinject: pairedRatio(share(catchUp), share(reinject)),
        ...(await cpuFigures(rateHz, runs)),
      },
      peers: { reinject: figures(reinject), qemuDelay: figures(qemuDelay), qemuDiscard: figures(qemuDiscard) },
      runs,
    };
  },
};

async function oneRound(name: ContestantName, rateHz: number, loadMs: number): Promise<Round> {
  const contestant = await CONTESTANTS[name](rateHz);
  try {
    await warmUp(contestant);
    const stop = await stopAndGo(contestant, rateHz, STOP_MS);
    const ofCap = (stop.greatestIn100Ms * 10) / contestant.capHz();
    return { stop, ofCap, load: await loadAndLetGo(contestant, rateHz, loadMs) };
  } finally {
    await contestant.close();
  }
}

/** How long those that came back took is only said when there are any. */
function figures(rounds: readonly Round[]): Record<string, Figures[string]> {
  const returned = (results: readonly { readonly returnMs: number | undefined }[]) =>
    results.flatMap(({ returnMs }) => (returnMs === undefined ? [] : [returnMs]));
  const stops = returned(rounds.map(({ stop }) => stop));
  const loads = returned(rounds.map(({ load }) => load));
  return {
    cameBackShare: stops.length / rounds.length,
    ...(stops.length === 0 ? {} : { returnMs: summarise(stops) }),
    stopLostTicks: summarise(rounds.map(({ stop }) => stop.lostTicks)),
    greatestIn100Ms: summarise(rounds.map(({ stop }) => stop.greatestIn100Ms)),
    workKeptShare: summarise(rounds.map(({ stop }) => stop.workShare)),
    ...(loads.length === 0 ? {} : { loadReturnMs: summarise(loads) }),
    loadLostTicks: summarise(rounds.map(({ load }) => load.lostTicks)),
    loadGreatestLagMs: summarise(rounds.map(({ load }) => load.greatestLagMs)),
  };
}

function back({ returnMs, lostTicks }: { readonly returnMs: number | undefined; readonly lostTicks: number }): string {
  return `${returnMs === undefined ? 'not back' : `back in ${returnMs.toFixed(0)} ms`}, ${lostTicks} lost`;
}
