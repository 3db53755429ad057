/**
 * The grammar of the command line: commands, options, help, and what is said of a mistake in them. It parses only;
 * what the commands do is given to it as functions.
 */
import { Command, CommanderError } from 'commander';
import type { CommandIo } from '../base/command-io.js';
import { gathered } from './gathered.js';
import { nearest } from '../base/options.js';
import { completions, completionScript, SHELLS } from './completion.js';
import { addControlCommands, type ControlActions } from './program-control.js';
import { addDashboardCommand, type DashboardActions } from './program-dashboard.js';
import { addSnapshotCommands, type SnapshotActions } from './program-snapshots.js';
import { DEFAULT_STALL_SECONDS, type RawRunOptions } from './run-options.js';
import { addHoldingOptions } from './program-holding.js';
import { UsageError } from './usage-error.js';

export interface Actions extends SnapshotActions, ControlActions, DashboardActions {
  run(options: RawRunOptions, command: readonly string[] | undefined): Promise<number>;
  doctor(options: { json: boolean }): Promise<number>;
}

/**
 * Parses and acts; the exit status. Help and version are printed on stdout and give 0.
 *
 * @throws UsageError for a command line that is none.
 */
export async function runProgram(
  argv: readonly string[],
  io: CommandIo,
  version: string,
  actions: Actions,
): Promise<number> {
  // Everything after the first -- is the guest's, and no option parser's.
  const split = argv.indexOf('--');
  const ours = split < 0 ? argv : argv.slice(0, split);
  const command = split < 0 ? undefined : argv.slice(split + 1);

  let status = 0;
  const program = new Command('vivarium')
    .description('Runs real Linux guests on KVM.')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      // Mistakes are said by whoever catches the error, in one place.
      writeErr: () => undefined,
      getOutHelpWidth: () => io.terminalSize()?.columns ?? 80,
    });
  const run = program
    .command('run')
    .usage('[options] [-- COMMAND...]')
    .summary('boot a Linux guest, or run a COMMAND in one')
    .description(
      'Boots a Linux guest with its console on this terminal; Ctrl-] leaves. With a COMMAND: runs it in the default ' +
        'initramfs, with this stdin, stdout and stderr, and exits with its status.',
    )
    .option('--kernel <file>', "bzImage, vmlinux or multiboot ELF (default: Debian's cloud kernel)")
    .option('--initrd <file>', "initramfs (default: busybox with the kernel's virtio modules)")
    .option('--cmdline <text>', "replaces the kernel's command line")
    .option('--append <text>', 'adds to the command line')
    .option('--cpus <n>', 'virtual CPUs', '1')
    .option('--memory <size>', 'guest memory', '256M')
    .option(
      '--disk <path>',
      'an image or block device as vda, vdb, ...; PATH[,ro][,id=NAME][,format=raw|qcow2][,bps=SIZE][,iops=NUMBER], raw ' +
        'unless the name ends in .qcow2, bps and iops at most; may come more than once',
      gathered,
      [] as readonly string[],
    )
    .option(
      '--nic <backend>',
      'a network interface as eth0, eth1, ... on tap:NAME, switch:NAME (all machines of this user that name it) or ' +
        'passt[:FORWARD,...] (the host as an ordinary user reaches it), then [,id=NAME][,mac=ADDRESS][,mtu=BYTES]' +
        '[,bps=SIZE][,iops=NUMBER] (at most so much each way); ' +
        'may come more than once',
      gathered,
      [] as readonly string[],
    )
    .option(
      '-p, --forward <forward>',
      'a port of this host that leads to one of the guest, as [ADDRESS:]HOST:GUEST[/udp], over the first passt, which ' +
        'is added if there is none; may come more than once',
      gathered,
      [] as readonly string[],
    )
    .option(
      '--pit <policy>',
      "what becomes of lost timer ticks: catch-up, reinject (the kernel's way) or discard",
      'catch-up',
    )
    .option(
      '--qemu-agent',
      "a port for QEMU's guest agent, which distributions ship: what exec, cp and stop use in a guest without vivarium's own",
    )
    .option('--kvm <host>', 'auto, native or embedded', 'auto')
    .option(
      '--name <name>',
      'what you reach the machine by, from other terminals: vivarium ps, console, exec, stop, ...',
    );
  addHoldingOptions(run)
    .option('--timeout <seconds>', 'ends the run after this time, everything included, with status 124')
    .option(
      '--stall-timeout <seconds>',
      'ends a guest that has shown no sign of life (a byte on its console; for a COMMAND, its agent) and no progress ' +
        'for this time, with status 126; 0: never',
      DEFAULT_STALL_SECONDS,
    )
    .option('--quiet', 'no progress on stderr')
    .option('--json', 'events on stderr, one object a line')
    .helpOption('-h, --help', 'print this help')
    .addHelpText(
      'after',
      `
Examples:
  vivarium run -- uname -a
  vivarium run --memory 1G --disk root.img
  vivarium run -d --name box --nic passt:8080:80
  vivarium exec box -- cat /proc/cpuinfo

Exit status: the COMMAND's own, 127 when it is not found in the guest; without one 0 when the guest powered off,
rebooted or halted. 124: the time of --timeout is over. 125: vivarium failed, or an option is wrong. 126: the guest
crashed, or never showed a sign of life. 128+n: ended by signal n.`,
    )
    .action(async (options: RawRunOptions) => {
      status = await actions.run(options, command);
    });
  program
    .command('doctor')
    .summary('what this machine can do, and how to cure each lack')
    .description(
      'Tells what this machine can do, with one line on how to cure each lack. Status 0 when guests can run.',
    )
    .option('--json', 'as one JSON object')
    .helpOption('-h, --help', 'print this help')
    .action(async (options: { json?: boolean }) => {
      if (command !== undefined) throw new UsageError('doctor: there is nothing to put after --');
      status = await actions.doctor({ json: options.json ?? false });
    });

  const act = async (
    name: string,
    work: (command: readonly string[]) => Promise<number>,
    takesCommand = false,
  ): Promise<void> => {
    if (command !== undefined && !takesCommand) throw new UsageError(`${name}: there is nothing to put after --`);
    status = await work(command ?? []);
  };
  addSnapshotCommands(program, actions, act);
  addControlCommands(program, actions, act);
  addDashboardCommand(program, actions, act);
  addCompletion(program, io, actions, act);

  if (ours.length === 0) {
    throw new UsageError('a command is wanted, such as run, ps or doctor; vivarium --help tells which there are');
  }
  try {
    await program.parseAsync([...ours], { from: 'user' });
    return status;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return 0;
    throw new UsageError(explain(error, ours, program));
  }
}

/** `completion SHELL`, and what the scripts that it prints ask. */
function addCompletion(
  program: Command,
  io: CommandIo,
  actions: Actions,
  act: (name: string, work: (words: readonly string[]) => Promise<number>, takesCommand?: boolean) => Promise<void>,
): void {
  program
    .command('completion')
    .summary('a script with which your shell completes this command')
    .description(`Prints a script for ${SHELLS.join(', ')}.`)
    .argument('<shell>', SHELLS.join(', '))
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', '\nExamples:\n  source <(vivarium completion bash)\n  vivarium completion fish | source\n')
    .action((name: string) =>
      act('completion', () => {
        const shell = SHELLS.find((known) => known === name);
        if (shell === undefined) throw new UsageError(`completion: '${name}' is none of ${SHELLS.join(', ')}`);
        io.stdout.write(completionScript(shell));
        return Promise.resolve(0);
      }),
    );
  program.command('complete', { hidden: true }).action(() =>
    act(
      'complete',
      async (words) => {
        const machines = await actions.machineNames();
        io.stdout.write(
          completions(program, words, () => machines)
            .map((text) => `${text}\n`)
            .join(''),
        );
        return 0;
      },
      true,
    ),
  );
}

/** What commander says, with the nearest right name and where to read more. */
function explain(error: CommanderError, argv: readonly string[], program: Command): string {
  const [first = ''] = argv;
  const command = program.commands.find((known) => known.name() === first);
  // Commander puts its own suggestion on a second line.
  const message = (error.message.replace(/^error: /, '').split('\n')[0] ?? '').replace(/\.$/, '');
  const more = `vivarium ${command === undefined ? '' : `${first} `}--help tells more`;
  if (error.code === 'commander.unknownOption') {
    const name = /'(--?[^'=]*)/.exec(message)?.[1] ?? '';
    const inner = command?.commands.find((known) => known.name() === argv[1]);
    const names = (inner ?? command ?? program).options
      .flatMap((option) => [option.long, option.short])
      .concat('--help', '--version');
    return `${message}${didYouMean(name, names)}; ${more}`;
  }
  if (error.code === 'commander.help') {
    const names = command?.commands.map((known) => known.name()) ?? [];
    return `${first}: one of ${names.join(', ')} is wanted; ${more}`;
  }
  if (error.code === 'commander.unknownCommand') {
    const names = (command ?? program).commands.map((known) => known.name());
    const given = command === undefined ? first : (argv[1] ?? '');
    return `${message}${didYouMean(given, names)}; ${more}`;
  }
  if (error.code === 'commander.excessArguments') {
    if (first === 'restore' || first === 'snapshots') return `${first}: too many arguments; ${more}`;
    const stray = strayArgument(argv.slice(1), command);
    const before = first === 'exec' ? 'exec NAME' : first;
    const takesCommand = first === 'run' || first === 'exec';
    const hint = takesCommand ? `; a COMMAND stands after --, as in: vivarium ${before} -- ${stray ?? 'COMMAND'}` : '';
    return `${first}: ${stray === undefined ? 'too many arguments' : `what is '${stray}'?`}${hint}`;
  }
  return `${message}; ${more}`;
}

function didYouMean(name: string, known: readonly (string | undefined)[]): string {
  const near = nearest(
    name,
    known.filter((candidate): candidate is string => candidate !== undefined),
  );
  return near === undefined ? '' : `; did you mean '${near}'?`;
}

/** The first argument that is no option and no option's value. */
function strayArgument(argv: readonly string[], command: Command | undefined): string | undefined {
  for (let index = 0; index < argv.length; index++) {
    const argument = argv[index] ?? '';
    if (!argument.startsWith('-')) return argument;
    const option = command?.options.find((known) => known.long === argument || known.short === argument);
    if (option?.required === true) index++;
  }
  return undefined;
}
