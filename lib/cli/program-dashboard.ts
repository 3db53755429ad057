/** The grammar of `vivarium dashboard`; the rest of the command line is in program.ts. */
import type { Command } from 'commander';
import type { DashboardRequest } from './dashboard-command.js';
import { UsageError } from './usage-error.js';

export interface DashboardActions {
  dashboard(request: DashboardRequest): Promise<number>;
}

/** Adds it; `act` takes what it does. */
export function addDashboardCommand(
  program: Command,
  actions: DashboardActions,
  act: (name: string, work: () => Promise<number>) => Promise<void>,
): void {
  program
    .command('dashboard')
    .summary('a page with your machines, for a browser on this machine')
    .description(
      'Serves a page with your machines on 127.0.0.1, and prints its URL: consoles, guest time, exits, memory, disks, networks ' +
        'and snapshots. Whoever has the URL may do all that the page can. Ctrl-C ends it, and no machine.',
    )
    .option('--port <port>', 'of 127.0.0.1 (default: any that is free)')
    .option(
      '--snapshots <dir>',
      'a folder of snapshots, to show, to add to, to restore and to delete from; made where it is not there',
    )
    .option('--json', 'the URL as one JSON object on stdout')
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', '\nExamples:\n  vivarium dashboard\n  vivarium dashboard --port 8080 --snapshots snapshots\n')
    .action(({ port, snapshots, json = false }: { port?: string; snapshots?: string; json?: boolean }) =>
      act('dashboard', () => actions.dashboard({ port: portOf(port), snapshots, json })),
    );
}

function portOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,5}$/.test(text) && Number(text) <= 65535) return Number(text);
  throw new UsageError(`--port: '${text}' is no number from 0 to 65535`);
}
