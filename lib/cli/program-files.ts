/** The grammar of the commands about files in a guest. */
import type { Command } from 'commander';
import { UsageError } from './usage-error.js';

/** What was asked of a file or folder; `place` is NAME:PATH as it was written. */
export type FileRequest = { readonly place: string; readonly waitMs: number } & (
  | { readonly what: 'read' | 'list' }
  | { readonly what: 'write'; readonly mode: number | undefined; readonly append: boolean }
);

interface Raw {
  readonly json?: boolean;
  readonly wait?: string;
  readonly mode?: string;
  readonly append?: boolean;
}

const PLACE = ['<place>', 'a path in the guest, behind the name of the machine'] as const;
const WAIT = ['--wait <seconds>', 'for the agent in the guest (default: 30)'] as const;

export function addFileCommands(
  add: (name: string, summary: string, more: string, examples: readonly string[]) => Command,
  go: (request: FileRequest & { readonly json: boolean }) => Promise<void>,
  waitMs: (text: string | undefined) => number,
): void {
  add('read', 'print a file of a machine', 'Prints a file of the guest, of at most 16 MiB.', [
    'read box:/etc/os-release',
    'read box:/var/log/boot.gz | gunzip',
  ])
    .usage('[options] NAME:PATH')
    .argument(...PLACE)
    .option(...WAIT)
    .action((place: string, raw: Raw) => go({ what: 'read', place, waitMs: waitMs(raw.wait), json: false }));

  add('write', 'make a file in a machine', 'Makes a file in the guest of what is on stdin, of at most 16 MiB.', [
    'write box:/etc/motd < motd',
    'write --mode 600 box:/etc/app.key < app.key',
    'write --append box:/etc/hosts < more',
  ])
    .usage('[options] NAME:PATH')
    .argument(...PLACE)
    .option('--mode <octal>', 'its permissions (default: 644 of a new file, else as they are)')
    .option('--append', 'behind what is there, rather than in its place')
    .option(...WAIT)
    .action((place: string, raw: Raw) => {
      const { append = false } = raw;
      return go({ what: 'write', place, mode: octal(raw.mode), append, waitMs: waitMs(raw.wait), json: false });
    });

  add('list', 'what is in a folder of a machine', 'Lists a folder of the guest: mode, size, time (UTC) and name.', [
    'list box:/etc',
    'list --json box:/var/log',
  ])
    .usage('[options] NAME:PATH')
    .argument(...PLACE)
    .option('--json', 'as JSON on stdout')
    .option(...WAIT)
    .action((place: string, raw: Raw) =>
      go({ what: 'list', place, waitMs: waitMs(raw.wait), json: raw.json ?? false }),
    );
}

function octal(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^[0-7]{1,4}$/.test(text)) return parseInt(text, 8);
  throw new UsageError(`--mode: '${text}' is not a number of up to four octal digits`);
}
