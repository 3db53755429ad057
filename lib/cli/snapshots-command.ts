/**
 * `vivarium snapshots`: what lies in a folder of snapshots, whether one is sound, and how one goes. The work is the store's;
 * here its answers become text for people or JSON for programs, on stdout.
 */
import path from 'node:path';
import type { Clock } from '../base/clock.js';
import type { CommandIo } from '../base/command-io.js';
import { formatSize } from '../base/units.js';
import type { BrokenSnapshot, SnapshotInfo, SnapshotNode, snapshots } from '../snapshot/index.js';
import { ExitStatus } from './exit-status.js';
import { ProgressBar } from './progress-bar.js';
import { plainText } from './reporter.js';
import { table } from './table.js';
import { untilInterrupted } from './until-interrupted.js';

export interface SnapshotsRequest {
  readonly what: 'list' | 'tree' | 'verify' | 'delete';
  readonly dir: string;
  readonly json: boolean;
  /** Of delete. */
  readonly children: 'merge' | 'refuse';
}

export interface SnapshotsWorld {
  readonly clock: Clock;
  readonly store: typeof snapshots;
}

/** The exit status; what is wrong with a snapshot is thrown as the store has it. */
export async function snapshotsCommand(
  request: SnapshotsRequest,
  io: CommandIo,
  world: SnapshotsWorld,
): Promise<number> {
  return untilInterrupted({ io, world }, async (signal) => {
    const answer = await ask({ ...request, dir: path.resolve(io.cwd, request.dir) }, io, world, signal);
    io.stdout.write(request.json ? `${JSON.stringify(answer.json, null, 2)}\n` : answer.text);
    return ExitStatus.OK;
  });
}

interface Answer {
  readonly json: unknown;
  readonly text: string;
}

async function ask(
  { what, dir, json, children }: SnapshotsRequest,
  io: CommandIo,
  { store, clock }: SnapshotsWorld,
  signal: AbortSignal,
): Promise<Answer> {
  switch (what) {
    case 'list': {
      const { snapshots: sound, broken } = await store.list(dir);
      return { json: { snapshots: sound, broken: broken.map(brokenJson) }, text: listText(dir, sound, broken) };
    }
    case 'tree': {
      const [roots, { broken }] = [await store.tree(dir), await store.list(dir)];
      return { json: { snapshots: roots, broken: broken.map(brokenJson) }, text: treeText(dir, roots, broken) };
    }
    case 'verify': {
      const bar = new ProgressBar(io, `verify ${shown(path.basename(dir))}`, { json });
      try {
        await store.verify(dir, { signal, clock, onProgress: (progress) => bar.show(progress) });
      } finally {
        bar.end();
      }
      return { json: { path: dir, ok: true }, text: `${shown(dir)}: every byte is as it was written\n` };
    }
    case 'delete': {
      const { merged } = await store.delete(dir, { children, signal });
      const names = merged.map(shown).join(', ');
      const more =
        merged.length === 0 ? '' : `; ${names} ${merged.length > 1 ? 'have' : 'has'} taken over what was needed`;
      return { json: { deleted: dir, merged }, text: `${shown(dir)}: deleted${more}\n` };
    }
  }
}

/** A name of a file may hold anything, and is shown on a terminal. */
function shown(name: string): string {
  return plainText(name).replaceAll('\n', '?');
}

function brokenJson({ name, path: at, error }: BrokenSnapshot): unknown {
  return { name, path: at, code: error.code, message: error.message };
}

function brokenText(broken: readonly BrokenSnapshot[]): string {
  return broken.map(({ name, error }) => `broken: ${shown(name)}: ${shown(error.message)}\n`).join('');
}

function listText(dir: string, sound: readonly SnapshotInfo[], broken: readonly BrokenSnapshot[]): string {
  if (sound.length + broken.length === 0) return none(dir);
  const nameOf = new Map(sound.map(({ id, name }) => [id, name]));
  const rows = sound.map((info) => [...cells(info), parentOf(info, nameOf)]);
  return (
    (sound.length === 0 ? '' : table([['NAME', 'MADE', 'FILES', 'MEMORY', 'PARENT'], ...rows])) + brokenText(broken)
  );
}

function parentOf({ parentId }: SnapshotInfo, nameOf: ReadonlyMap<string, string>): string {
  if (parentId === undefined) return '-';
  return shown(nameOf.get(parentId) ?? 'elsewhere');
}

function treeText(dir: string, roots: readonly SnapshotNode[], broken: readonly BrokenSnapshot[]): string {
  if (roots.length + broken.length === 0) return none(dir);
  const rows: string[][] = [];
  const add = (node: SnapshotNode, lead: string, branch: string): void => {
    const [name = '', ...more] = cells(node);
    rows.push([`${lead}${branch}${name}`, ...more, node.parentElsewhere ? 'its parent is elsewhere' : '']);
    const below = branch === '' ? lead : `${lead}${branch === '`- ' ? '   ' : '|  '}`;
    for (const [at, child] of node.children.entries()) {
      add(child, below, at === node.children.length - 1 ? '`- ' : '|- ');
    }
  };
  for (const root of roots) add(root, '', '');
  return (rows.length === 0 ? '' : table(rows)) + brokenText(broken);
}

function none(dir: string): string {
  return `${shown(dir)}: no snapshots\n`;
}

function cells({ name, createdMs, fileBytes, memoryBytes }: SnapshotInfo): string[] {
  const date = new Date(createdMs)
    .toISOString()
    .replace(/\.\d+Z$/, '')
    .replace('T', ' ');
  return [shown(name), date, formatSize(fileBytes), formatSize(memoryBytes)];
}
