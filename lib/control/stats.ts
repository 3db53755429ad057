/** The counters of a machine in few and flat members, for who looks often. */
import type { Stats } from './schemas.js';
import type { ControlTarget } from './target.js';

export function statsOf({ machine, clock, console, logs, saves }: ControlTarget): Stats {
  const { cpus, devices } = machine.counters();
  const { user, system } = process.cpuUsage();
  return {
    state: machine.state,
    atMs: Number(clock.nowNs() / 1000n) / 1000,
    cpus: cpus.map(({ id, counters: { byReason, ...counters } }) => {
      return { id, exits: Number(counters.exits), byReason: numbersOf(byReason), counters: numbersOf(counters) };
    }),
    memoryBytes: machine.memory.sizeBytes,
    devices: [...devices].map(([id, contract]) => ({
      id,
      class: contract.class,
      functions: Object.fromEntries(
        Object.entries(contract.functions).map(([name, { bytes = 0, ...more }]) => [name, { ...more, bytes }]),
      ),
    })),
    pit: machine.pit.status(),
    process: { cpuMs: (user + system) / 1000, rssBytes: process.memoryUsage.rss() },
    saves: [...saves].map((save) => ({ ...save })),
    viewers: console.viewers + (logs === console ? 0 : logs.viewers),
  };
}

/** Exact up to 2^53. */
function numbersOf(counts: Readonly<Record<string, bigint>>): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).map(([name, value]) => [name, Number(value)]));
}
