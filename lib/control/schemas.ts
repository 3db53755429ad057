/**
 * What goes over the control socket, as schemas: requests are checked by them, openapi.ts describes them, and the types here
 * are theirs. Times are in milliseconds, sizes in bytes; a member that is not named is refused.
 */
import { type Static, type TUnsafe, Type } from '@sinclair/typebox';
import { PATH_PATTERN } from './check.js';

const strict = { additionalProperties: false } as const;

export const choice = <const T extends readonly string[]>(values: T, description: string): TUnsafe<T[number]> =>
  Type.Union(
    values.map((value) => Type.Literal(value)),
    { description },
  );

/** What a timer holds (24 days). */
const MAX_MS = 2 ** 31 - 1;
const MAX_PATH_CHARS = 4096;

export const Path = Type.String({ minLength: 1, maxLength: MAX_PATH_CHARS, pattern: PATH_PATTERN });
const Name = Type.String({ minLength: 1, maxLength: 63, pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]*$' });
export const Milliseconds = Type.Integer({ minimum: 0, maximum: MAX_MS });

export const MachineState = choice(['created', 'running', 'paused', 'stopped', 'failed'], 'of the life of a machine');

export const EndReason = choice(
  ['poweroff', 'reset', 'halted', 'crash', 'panic', 'debug-exit', 'killed', 'failed'],
  'how the guest ended',
);

export const End = Type.Object({
  reason: EndReason,
  code: Type.Optional(Type.Integer({ description: 'of reason debug-exit: the byte' })),
  detail: Type.Optional(Type.String()),
  status: Type.Optional(Type.Integer({ description: 'what the command that holds the machine exits with' })),
  outcome: Type.Optional(
    Type.String({ description: 'why that command ended: command, poweroff, timeout, signal, ...' }),
  ),
});
export type End = Static<typeof End>;

export const Summary = Type.Object({
  name: Name,
  id: Type.String(),
  state: MachineState,
  pid: Type.Integer({ description: 'of the process on the machine of the user' }),
  host: choice(['native', 'embedded'], 'whose KVM runs it'),
  since: Type.String({ description: 'ISO 8601' }),
  agent: Type.Boolean({ description: 'an agent in the guest has answered' }),
  agentKind: Type.Optional(choice(['vivarium', 'qemu'], "which: vivarium's own, or QEMU's, which can do less")),
  end: Type.Optional(End),
});
export type Summary = Static<typeof Summary>;

export const Failed = Type.Object({
  error: Type.Object({
    code: Type.String(),
    message: Type.String(),
    cure: Type.Optional(Type.String()),
    kind: Type.Optional(Type.Literal('RangeError', { description: 'of ERR_ARGUMENT: out of bounds' })),
    errno: Type.Optional(Type.String({ description: 'of ERR_GUEST_FILE: such as ENOENT' })),
  }),
});

/** A tree of the machine's own. */
export const Tree = Type.Unknown();

export const Pause = Type.Object(
  { clock: Type.Optional(choice(['count', 'freeze'], 'whether the guest is to see the pause; default count')) },
  strict,
);

export const Stop = Type.Object(
  {
    timeoutMs: Type.Optional(
      Type.Integer({ minimum: 0, maximum: MAX_MS, description: 'until it is killed; default 30000' }),
    ),
  },
  strict,
);
export const Nothing = Type.Object({}, strict);

export const WaitQuery = Type.Object({ timeoutMs: Type.Optional(Milliseconds) }, strict);
export const LogsQuery = Type.Object(
  {
    follow: Type.Optional(Type.Boolean({ description: 'go on until the guest ends; default false' })),
    tailBytes: Type.Optional(Type.Integer({ minimum: 0, description: 'at most so much of what was kept' })),
    tailLines: Type.Optional(Type.Integer({ minimum: 0, description: 'at most so many lines of what was kept' })),
  },
  strict,
);
export const ConsoleQuery = Type.Object(
  {
    scrollbackBytes: Type.Optional(Type.Integer({ minimum: 0, description: 'what was kept comes first; default all' })),
  },
  strict,
);

export const Stats = Type.Object({
  state: MachineState,
  atMs: Type.Number({ description: 'of the process, monotonic; rates are differences by it' }),
  cpus: Type.Array(
    Type.Object({
      id: Type.Integer(),
      exits: Type.Number({ description: 'out of the guest, all reasons together' }),
      byReason: Type.Record(Type.String(), Type.Number(), { description: 'exits by what KVM calls them, such as io' }),
      counters: Type.Record(Type.String(), Type.Number()),
    }),
  ),
  memoryBytes: Type.Number(),
  devices: Type.Array(
    Type.Object({
      id: Type.String(),
      class: Type.String(),
      functions: Type.Record(
        Type.String(),
        Type.Object({
          by: Type.String(),
          calls: Type.Number(),
          errors: Type.Number(),
          ns: Type.Number({ description: 'nanoseconds' }),
          bytes: Type.Number({ description: 'of data, either way' }),
        }),
      ),
    }),
  ),
  pit: Tree,
  process: Type.Object({
    cpuMs: Type.Number({ description: 'user and system, of the process that runs the guest' }),
    rssBytes: Type.Number(),
  }),
  saves: Type.Optional(
    Type.Array(Type.Object({ dir: Type.String(), bytesDone: Type.Number(), bytesTotal: Type.Number() }), {
      description: 'snapshots under way that were asked for here, in bytes of guest memory',
    }),
  ),
  viewers: Type.Integer({ description: 'of console and logs' }),
  writes: Type.Optional(
    Type.Object(
      {
        pages: Type.Number({ description: 'of 4 KiB that were written, each counted once between two looks' }),
        bucketBytes: Type.Number(),
        buckets: Type.Array(Type.Number(), { description: 'the same by place in guest memory' }),
      },
      { description: 'since somebody watches: asked for by writes=true' },
    ),
  ),
});
export type Stats = Static<typeof Stats>;

export const WatchQuery = Type.Object(
  {
    everyMs: Type.Optional(Type.Integer({ minimum: 50, maximum: 60_000, description: 'default 1000' })),
    writes: Type.Optional(
      Type.Boolean({ description: 'with writes to memory, which are noted as long as this is open' }),
    ),
  },
  strict,
);

export const SnapshotRequest = Type.Object(
  {
    dir: Path,
    mode: Type.Optional(choice(['live', 'instant', 'paused'], 'default live')),
    parent: Type.Optional(Path),
    throttle: Type.Optional(Type.Boolean({ description: 'live: slows a guest down that is faster than the disk' })),
    compress: Type.Optional(choice(['zstd', 'none'], 'default zstd where there is libzstd')),
    maxPauseMs: Type.Optional(Type.Number({ exclusiveMinimum: 0, exclusiveMaximum: 86_400_000 })),
    track: Type.Optional(Type.Boolean()),
    whenBusy: Type.Optional(choice(['queue', 'refuse'], 'default queue')),
  },
  strict,
);
export type SnapshotRequest = Static<typeof SnapshotRequest>;

export const SnapshotDone = Type.Object({ dir: Path, id: Type.String(), stats: Tree });

export const Port = Type.Integer({ minimum: 1, maximum: 65535 });

const Forward = Type.Object(
  {
    host: Port,
    guest: Port,
    protocol: Type.Optional(choice(['tcp', 'udp'], 'default tcp')),
    address: Type.Optional(Type.String({ maxLength: 64 })),
  },
  strict,
);

const networks = [
  Type.Object({ kind: Type.Literal('tap'), name: Type.String({ minLength: 1, maxLength: 15 }) }, strict),
  Type.Object({ kind: Type.Literal('switch'), name: Name }, strict),
  Type.Object({ kind: Type.Literal('passt'), forwards: Type.Optional(Type.Array(Forward, { maxItems: 256 })) }, strict),
] as const;

export const Backend = Type.Union([
  Type.Object({ kind: Type.Literal('file'), path: Path }, strict),
  Type.Object({ kind: Type.Literal('qcow2'), path: Path }, strict),
  ...networks,
]);
export type Backend = Static<typeof Backend>;

/** Those that a nic can stand on. */
export const NetworkBackend = Type.Union([...networks]);
export type NetworkBackend = Static<typeof NetworkBackend>;

export const Rebind = Type.Object({ backend: Backend }, strict);
export const DeviceParams = Type.Object({ id: Type.String({ minLength: 1, maxLength: 20 }) }, strict);

const TerminalSize = Type.Object(
  { columns: Type.Integer({ minimum: 0, maximum: 65535 }), rows: Type.Integer({ minimum: 0, maximum: 65535 }) },
  strict,
);

/** The first message of a request to `exec`. */
export const ExecRequest = Type.Object(
  {
    argv: Type.Array(Type.String({ maxLength: 128 * 1024 }), { minItems: 1, maxItems: 65536 }),
    env: Type.Optional(Type.Record(Type.String(), Type.String(), { description: 'all of it; default a plain one' })),
    cwd: Type.Optional(Path),
    waitMs: Type.Optional(
      Type.Integer({ minimum: 0, maximum: MAX_MS, description: 'for the agent in the guest; default 30000' }),
    ),
    timeoutMs: Type.Optional(
      Type.Integer({ minimum: 1, maximum: MAX_MS, description: 'after which it is killed; default never' }),
    ),
    terminal: Type.Optional(TerminalSize),
    stdin: Type.Optional(Type.Boolean({ description: 'false: at its end from the start; default true' })),
    isTyped: Type.Optional(
      Type.Boolean({ description: "somebody types it, who would not know to end it first: QEMU's agent gets none" }),
    ),
  },
  strict,
);
export type ExecRequest = Static<typeof ExecRequest>;

/** Messages to a command that runs. */
export const ExecControl = Type.Object(
  { signal: Type.Optional(Type.Integer({ minimum: 1, maximum: 64 })), resize: Type.Optional(TerminalSize) },
  strict,
);
export type ExecControl = Static<typeof ExecControl>;

export const ExecStatus = Type.Union([
  Type.Object({ kind: Type.Literal('exited'), code: Type.Integer() }),
  Type.Object({ kind: Type.Literal('signalled'), signal: Type.Integer() }),
  Type.Object({ kind: Type.Literal('not-started'), errno: Type.Integer() }),
]);

/** The last message of an answer of `exec`. */
export const ExecEnd = Type.Object({ status: ExecStatus, timedOut: Type.Boolean() });
export type ExecEnd = Static<typeof ExecEnd>;
