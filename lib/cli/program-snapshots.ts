/** The grammar of the commands about snapshots; the rest of the command line is in program.ts. */
import type { Command } from 'commander';
import type { RawRestoreOptions } from './restore-options.js';
import type { SnapshotsRequest } from './snapshots-command.js';
import { gathered } from './gathered.js';
import { addHoldingOptions } from './program-holding.js';
import { UsageError } from './usage-error.js';

export interface SnapshotActions {
  restore(dir: string, options: RawRestoreOptions): Promise<number>;
  snapshots(request: SnapshotsRequest): Promise<number>;
}

/** Adds them; `act` takes what each does. */
export function addSnapshotCommands(
  program: Command,
  actions: SnapshotActions,
  act: (name: string, work: () => Promise<number>) => Promise<void>,
): void {
  const restore = program
    .command('restore')
    .summary('go on with the guest of a snapshot')
    .description(
      'Makes the machine of a snapshot anew, with its console on this terminal; Ctrl-] leaves. The snapshot stays as it ' +
        'is, and can be restored any number of times. Exit status as of run.',
    )
    .argument('<dir>', 'the folder of the snapshot')
    .option(
      '--memory <how>',
      'lazy: run at once, memory comes as it is used; eager: load it first (default: lazy where it can)',
    )
    .option('--clock <how>', 'what becomes of the time since: freeze, step or catch-up (default: step)')
    .option(
      '--nic <backend>',
      'a network in place of the one that a nic was on, as run has it, with its id behind it: switch:lan,id=net0; may come ' +
        'more than once',
      gathered,
      [] as readonly string[],
    )
    .option(
      '-p, --forward <forward>',
      'a port of this host that leads to one of the guest, over the first passt of --nic; may come more than once',
      gathered,
      [] as readonly string[],
    )
    .option('--kvm <host>', 'auto, native or embedded', 'auto')
    .option('--name <name>', 'what you reach the machine by, as of run; without it nobody does');
  addHoldingOptions(restore)
    .option('--timeout <seconds>', 'ends the guest after this time, everything included, with status 124')
    .option('--quiet', 'no progress on stderr')
    .option('--json', 'events on stderr, one object a line')
    .helpOption('-h, --help', 'print this help')
    .addHelpText(
      'after',
      `
Examples:
  vivarium restore saved/box
  vivarium restore -d --name second saved/box
  vivarium restore --nic passt:8080:80,id=net0 saved/box
`,
    )
    .action((dir: string, options: RawRestoreOptions) => act('restore', () => actions.restore(dir, options)));

  const group = program
    .command('snapshots')
    .summary('list, verify and delete snapshots')
    .description('What lies in a folder of snapshots, whether one is sound, and how one goes.')
    .helpCommand(false)
    .helpOption('-h, --help', 'print this help');
  const add = (what: SnapshotsRequest['what'], summary: string, argument: string): Command =>
    group
      .command(what)
      .summary(summary)
      .description(summary)
      .argument('<dir>', argument)
      .option('--json', 'as one JSON object on stdout')
      .helpOption('-h, --help', 'print this help')
      .action((dir: string, options: { json?: boolean; children?: string }) =>
        act('snapshots', () => {
          const { json = false, children = 'merge' } = options;
          if (children !== 'merge' && children !== 'refuse') {
            throw new UsageError(`--children: '${children}' is none of merge, refuse`);
          }
          return actions.snapshots({ what, dir, json, children });
        }),
      );
  add('list', 'the snapshots of a folder by age, with dates, sizes and parents', 'a folder of snapshots');
  add('tree', 'the same, each under its parent', 'a folder of snapshots');
  add('verify', 'holds every byte of a snapshot, and all it needs of its parents, against a check', 'a snapshot');
  add('delete', 'deletes a snapshot', 'a snapshot').option(
    '--children <how>',
    'of snapshots that stand on it: merge (they get what they need) or refuse',
    'merge',
  );
}
