/** The counters of a machine out of its inspect() tree, in few and flat members, for who looks often. */
import type { Stats } from './schemas.js';
import type { ControlTarget } from './target.js';

interface CpuTree {
  readonly id: number;
  /** 64-bit numbers as texts. */
  readonly counters?: Readonly<Record<string, string | number>> & {
    readonly byReason?: Readonly<Record<string, string>>;
  };
}

interface DeviceTree {
  readonly contract: {
    readonly class: string;
    readonly functions: Readonly<
      Record<string, { by: string; calls: number; errors: number; ns: number; bytes?: number }>
    >;
  };
}

interface MachineTree {
  readonly cpus?: readonly CpuTree[];
  readonly lent?: { readonly devices?: Readonly<Record<string, DeviceTree>> };
}

export function statsOf({ machine, clock, console, logs, saves }: ControlTarget): Stats {
  const tree = machine.inspect() as MachineTree;
  const { user, system } = process.cpuUsage();
  return {
    state: machine.state,
    atMs: Number(clock.nowNs() / 1000n) / 1000,
    cpus: (tree.cpus ?? []).map(({ id, counters: { byReason = {}, ...counters } = {} }) => {
      const numbers = numbersOf(counters);
      return { id, exits: numbers['exits'] ?? 0, byReason: numbersOf(byReason), counters: numbers };
    }),
    memoryBytes: machine.memory.sizeBytes,
    devices: Object.entries(tree.lent?.devices ?? {}).map(([id, { contract }]) => ({
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

function numbersOf(texts: Readonly<Record<string, unknown>>): Record<string, number> {
  return Object.fromEntries(Object.entries(texts).map(([name, value]) => [name, Number(value)]));
}
