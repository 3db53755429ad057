/** The grammar of the commands about named machines; the rest of the command line is in program.ts. */
import type { Command } from 'commander';
import { addFileCommands, type FileRequest } from './program-files.js';
import { gathered } from './gathered.js';
import { UsageError } from './usage-error.js';

/** What was asked of a machine, in values. */
export type ControlRequest = { readonly json: boolean } & (
  | { readonly what: 'ps'; readonly all: boolean }
  | { readonly what: 'inspect' | 'stats' | 'resume' | 'kill' | 'console' | 'events'; readonly name: string }
  /** Without a name: of all machines. */
  | { readonly what: 'metrics'; readonly name: string | undefined }
  | { readonly what: 'pause'; readonly name: string; readonly clock: 'count' | 'freeze' | undefined }
  | { readonly what: 'stop'; readonly name: string; readonly timeoutMs: number | undefined }
  | {
      readonly what: 'wait';
      readonly name: string;
      readonly timeoutMs: number | undefined;
      /** A TCP port of the guest that is waited for, in place of the end. */
      readonly port: number | undefined;
    }
  | {
      readonly what: 'logs';
      readonly name: string;
      readonly follow: boolean;
      readonly tailLines: number | undefined;
    }
  | {
      readonly what: 'exec';
      readonly name: string;
      readonly argv: readonly string[];
      /** As written: NAME=VALUE or NAME. */
      readonly env: readonly string[];
      readonly cwd: string | undefined;
      readonly waitMs: number;
      readonly timeoutMs: number | undefined;
      readonly stdin: boolean;
      readonly terminal: boolean;
    }
  | {
      readonly what: 'snapshot';
      readonly name: string;
      readonly dir: string;
      readonly mode: 'live' | 'instant' | 'paused' | undefined;
      readonly parent: string | undefined;
      readonly maxPauseMs: number | undefined;
    }
  | {
      readonly what: 'cp';
      readonly from: string;
      readonly to: string;
      readonly quiet: boolean;
      readonly waitMs: number;
    }
  | FileRequest
  | { readonly what: 'rebind'; readonly name: string; readonly device: string; readonly backend: string }
);

export interface ControlActions {
  control(request: ControlRequest): Promise<number>;
  /** Of machines that may be there, for completion. */
  machineNames(): Promise<readonly string[]>;
}

interface Raw {
  readonly json?: boolean;
  readonly all?: boolean;
  readonly prometheus?: boolean;
  readonly follow?: boolean;
  readonly tail?: string;
  readonly clock?: string;
  readonly timeout?: string;
  readonly port?: string;
  readonly wait?: string;
  readonly env: readonly string[];
  readonly workdir?: string;
  readonly stdin?: boolean;
  readonly tty?: boolean;
  readonly live?: boolean;
  readonly instant?: boolean;
  readonly paused?: boolean;
  readonly parent?: string;
  readonly maxPause?: string;
  readonly quiet?: boolean;
}

const NAME = ['<name>', 'of the machine'] as const;
const MAX_MS = 2 ** 31 - 1;
const DEFAULT_WAIT_MS = 30_000;

/** Adds them; `act` takes what each does, and refuses a COMMAND behind -- but for those that take one. */
export function addControlCommands(
  program: Command,
  actions: ControlActions,
  act: (name: string, work: (command: readonly string[]) => Promise<number>, takesCommand?: boolean) => Promise<void>,
): void {
  const add = (name: string, summary: string, more: string, examples: readonly string[]): Command =>
    program
      .command(name)
      .summary(summary)
      .description(more)
      .helpOption('-h, --help', 'print this help')
      .addHelpText('after', `\nExamples:\n${examples.map((line) => `  vivarium ${line}\n`).join('')}`);
  const withJson = (command: Command): Command => command.option('--json', 'as JSON on stdout');
  const json = ({ json: wanted = false }: Raw): boolean => wanted;
  const go = (request: ControlRequest): Promise<void> => act(request.what, () => actions.control(request));

  withJson(
    add('ps', 'your machines', 'Lists your machines that have a name, with their states.', ['ps', 'ps --all --json']),
  )
    .option('-a, --all', 'also those that have ended')
    .action((raw: Raw) => go({ what: 'ps', all: raw.all ?? false, json: json(raw) }));

  for (const [what, summary, more] of [
    ['inspect', 'everything about a machine, as JSON', 'Prints everything about a machine as one JSON tree.'],
    ['resume', 'let a paused machine run on', 'Lets a paused machine run on.'],
    ['kill', 'end a machine at once', 'Ends a machine at once, as pulling the plug does.'],
  ] as const) {
    withJson(add(what, summary, more, [`${what} box`]))
      .argument(...NAME)
      .action((name: string, raw: Raw) => go({ what, name, json: json(raw) }));
  }

  withJson(
    add(
      'stats',
      "a machine's counters",
      'Prints exits of each CPU, the PIT, devices by function, and the cost of the process.',
      ['stats box', 'stats --prometheus box', 'stats --all --prometheus'],
    ),
  )
    .usage('[options] NAME')
    .argument('[name]', NAME[1])
    .option('--prometheus', "in Prometheus's text format, for a scraper")
    .option('-a, --all', 'all machines, with --prometheus')
    .action((name: string | undefined, raw: Raw) => act('stats', () => actions.control(statsRequest(name, raw))));

  withJson(
    add('pause', 'stop the CPUs of a machine', 'Takes every CPU out of the guest.', [
      'pause box',
      'pause --clock freeze box',
    ]),
  )
    .argument(...NAME)
    .option('--clock <how>', 'count: the guest is to see the time that passes; freeze: it is not (default: count)')
    .action((name: string, raw: Raw) =>
      go({ what: 'pause', name, clock: oneOf('--clock', raw.clock, ['count', 'freeze']), json: json(raw) }),
    );

  withJson(
    add(
      'stop',
      'ask the guest to power off',
      'Presses the power button, and kills the guest when it has not ended by then.',
      ['stop box', 'stop --timeout 120 box'],
    ),
  )
    .argument(...NAME)
    .option('--timeout <seconds>', 'until it is killed (default: 30)')
    .action((name: string, raw: Raw) =>
      go({ what: 'stop', name, timeoutMs: milliseconds('--timeout', raw.timeout), json: json(raw) }),
    );

  withJson(
    add(
      'wait',
      'wait until a machine has ended, or serves',
      "Waits until a machine has ended, and prints its command's exit status; with --port until something in its guest " +
        'listens there, and prints the addresses.',
      ['wait box', 'wait --timeout 60 box', 'wait --port 22 --timeout 60 box && ssh -p 2222 root@127.0.0.1'],
    ),
  )
    .argument(...NAME)
    .option('--port <number>', 'a TCP port of the guest to wait for')
    .option('--timeout <seconds>', 'ends with status 124 when it has not come to that by then')
    .action((name: string, raw: Raw) => {
      const [timeoutMs, port] = [milliseconds('--timeout', raw.timeout), portIn('--port', raw.port)];
      return go({ what: 'wait', name, timeoutMs, port, json: json(raw) });
    });

  add(
    'logs',
    'what a guest has printed',
    "Prints what the guest's console, or its COMMAND, has printed: the last of it.",
    ['logs box', 'logs -f --tail 20 box'],
  )
    .argument(...NAME)
    .option('-f, --follow', 'go on until the guest ends')
    .option('--tail <lines>', 'only the last of what was kept (default: all)')
    .action((name: string, raw: Raw) => {
      const tailLines = lines('--tail', raw.tail);
      return go({ what: 'logs', name, follow: raw.follow ?? false, tailLines, json: false });
    });

  withJson(
    add(
      'events',
      'what happens to a machine',
      'Prints what happens to a machine as it happens, until its end: states, snapshots, guest time, agents, backends.',
      ['events box', 'events --json box'],
    ),
  )
    .argument(...NAME)
    .action((name: string, raw: Raw) => go({ what: 'events', name, json: json(raw) }));

  add(
    'console',
    "a machine's console on this terminal",
    'Joins the console of a machine; Ctrl-] leaves, and the machine goes on.',
    ['console box'],
  )
    .argument(...NAME)
    .action((name: string) => go({ what: 'console', name, json: false }));

  add(
    'exec',
    'run a COMMAND in a machine',
    'Runs a COMMAND in the guest, with this stdin, stdout and stderr, and exits with its status.',
    ['exec box -- uname -a', 'exec -e LANG=C -w /tmp box -- sh -c "pwd; env"', 'exec box -- tar -cf - /etc > etc.tar'],
  )
    .usage('[options] NAME -- COMMAND...')
    .argument(...NAME)
    .option('-e, --env <name=value>', 'a variable of its environment; NAME alone: as it is here', gathered, [])
    .option('-w, --workdir <path>', 'its working folder (default: /)')
    .option('--wait <seconds>', 'for the agent in the guest (default: 30)')
    .option('--timeout <seconds>', 'kills it after this time, with status 124')
    .option('-t, --tty', 'in a terminal of its own: for shells and editors')
    .option('-n, --no-stdin', 'its stdin is at its end from the start')
    .addHelpText(
      'after',
      `
Exit status: the COMMAND's own, 127 when it is not found, 128+n when signal n ended it; 124: the time of --timeout is
over; 125: vivarium failed.`,
    )
    .action((name: string, raw: Raw) =>
      act(
        'exec',
        (argv) => {
          if (argv.length === 0)
            throw new UsageError('exec: a COMMAND is wanted, as in: vivarium exec NAME -- COMMAND');
          const { env, workdir, stdin = true, tty: terminal = false } = raw;
          if (workdir?.startsWith('/') === false) throw new UsageError('--workdir: an absolute path is wanted');
          const waitMs = milliseconds('--wait', raw.wait, 0) ?? DEFAULT_WAIT_MS;
          const timeoutMs = milliseconds('--timeout', raw.timeout);
          return actions.control({
            what: 'exec',
            name,
            argv,
            env,
            cwd: workdir,
            waitMs,
            timeoutMs,
            stdin,
            terminal,
            json: false,
          });
        },
        true,
      ),
    );

  withJson(
    add('cp', 'copy files into a machine or out of it', 'Copies a file or a folder; one of the two is NAME:PATH.', [
      'cp box:/etc/os-release .',
      'cp ./site box:/srv',
    ]),
  )
    .argument('<from>', 'a path here, or NAME:PATH')
    .argument('<to>', 'the other one: into a folder that is there, else under the new name')
    .option('--wait <seconds>', 'for the agent in the guest (default: 30)')
    .option('--quiet', 'do not say how much it was')
    .action((from: string, to: string, raw: Raw) => {
      const waitMs = milliseconds('--wait', raw.wait, 0) ?? DEFAULT_WAIT_MS;
      return go({ what: 'cp', from, to, quiet: raw.quiet ?? false, waitMs, json: json(raw) });
    });

  addFileCommands(add, go, (text) => milliseconds('--wait', text, 0) ?? DEFAULT_WAIT_MS);

  withJson(
    add('snapshot', 'save a machine while it runs', 'Saves a machine into a new folder; it goes on as it was.', [
      'snapshot box snapshots/ready',
      'snapshot box snapshots/later --instant --parent snapshots/ready',
      'snapshot box snapshots/quick --max-pause 50',
    ]),
  )
    .argument(...NAME)
    .argument('<dir>', 'the folder to be made')
    .option('--live', 'in rounds, with a short stop at the end (the default)')
    .option('--instant', 'of the moment that it begins')
    .option('--paused', 'the guest stands meanwhile')
    .option('--parent <dir>', "of this machine's last snapshot: only what has changed is written")
    .option('--max-pause <ms>', 'refuse rather than hold the guest for longer')
    .action((name: string, dir: string, raw: Raw) => {
      const modes = (['live', 'instant', 'paused'] as const).filter((mode) => raw[mode] === true);
      if (modes.length > 1)
        throw new UsageError(`snapshot: one of ${modes.map((mode) => `--${mode}`).join(', ')}, not all`);
      const maxPauseMs = raw.maxPause === undefined ? undefined : Number(raw.maxPause);
      if (maxPauseMs !== undefined && !(maxPauseMs > 0)) {
        throw new UsageError(`--max-pause: '${raw.maxPause ?? ''}' is not a number of milliseconds above 0`);
      }
      return go({ what: 'snapshot', name, dir, mode: modes[0], parent: raw.parent, maxPauseMs, json: json(raw) });
    });

  withJson(
    add(
      'rebind',
      'give a device another backend',
      'Gives a disk or nic another backend while the guest runs; the guest notices nothing.',
      ['rebind box disk0 /images/copy.qcow2', 'rebind box net0 switch:lan'],
    ),
  )
    .argument(...NAME)
    .argument('<device>', 'its id, such as disk0 or net0')
    .argument('<backend>', 'PATH[,format=raw|qcow2], tap:NAME, switch:NAME or passt')
    .action((name: string, device: string, backend: string, raw: Raw) =>
      go({ what: 'rebind', name, device, backend, json: json(raw) }),
    );
}

function oneOf<T extends string>(option: string, text: string | undefined, choices: readonly T[]): T | undefined {
  const choice = choices.find((known) => known === text);
  if (text === undefined || choice !== undefined) return choice;
  throw new UsageError(`${option}: '${text}' is none of ${choices.join(', ')}`);
}

function milliseconds(option: string, text: string | undefined, leastMs = 1): number | undefined {
  if (text === undefined) return undefined;
  const value = Math.ceil(Number(text) * 1000);
  if (/^\d+(\.\d+)?$/.test(text) && value >= leastMs && value <= MAX_MS) return value;
  throw new UsageError(`${option}: '${text}' is not a number of seconds above 0 and below 24 days`);
}

function portIn(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535) return Number(text);
  throw new UsageError(`${option}: '${text}' is not a number from 1 to 65535`);
}

function lines(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new UsageError(`${option}: '${text}' is not a number of lines`);
}

function statsRequest(
  name: string | undefined,
  { all = false, prometheus = false, json = false }: Raw,
): ControlRequest {
  if (prometheus && json) throw new UsageError('stats: one of --json, --prometheus, not both');
  if (all && !prometheus) throw new UsageError('stats: --all goes with --prometheus');
  if (all && name !== undefined) throw new UsageError('stats: a NAME or --all, not both');
  if (all) return { what: 'metrics', name: undefined, json };
  if (name === undefined) throw new UsageError('stats: the NAME of a machine is wanted');
  return prometheus ? { what: 'metrics', name, json } : { what: 'stats', name, json };
}
