/**
 * `vivarium restore`: the machine of a snapshot in this process, with its console on this terminal as `run` has it. Where
 * this machine's KVM can't run Linux a Linux guest is refused by name: only what runs natively is restored here.
 */
import path from 'node:path';
import type { CommandIo } from '../base/command-io.js';
import type { RestoreOptions } from '../machine/index.js';
import { Interruption } from './interruption.js';
import type { Outcome } from './outcome.js';
import { ProgressBar } from './progress-bar.js';
import { ProgressWatch } from './progress-watch.js';
import { flushed } from './pump-output.js';
import { Reporter } from './reporter.js';
import { onConsole, outcomeOfFailure } from './run-command.js';
import { UsageError } from './usage-error.js';
import type { RunWorld } from './world.js';

/** As the option parser gives them. */
export interface RawRestoreOptions {
  readonly memory?: string;
  readonly clock?: string;
  readonly name?: string;
  readonly quiet?: boolean;
  readonly json?: boolean;
}

export interface RestoreCommandOptions {
  readonly dir: string;
  readonly memory: NonNullable<RestoreOptions['memory']> | undefined;
  readonly clock: NonNullable<RestoreOptions['clock']> | undefined;
  readonly name: string | undefined;
  readonly quiet: boolean;
  readonly json: boolean;
}

/** @throws UsageError naming the option */
export function parseRestoreOptions(dir: string, raw: RawRestoreOptions): RestoreCommandOptions {
  if (dir === '' || dir.includes('\0')) throw new UsageError('restore: the folder of a snapshot is wanted');
  return {
    dir,
    memory: oneOf('--memory', raw.memory, ['lazy', 'eager'] as const),
    clock: oneOf('--clock', raw.clock, ['freeze', 'step', 'catch-up'] as const),
    name: raw.name,
    quiet: raw.quiet ?? false,
    json: raw.json ?? false,
  };
}

function oneOf<T extends string>(option: string, text: string | undefined, choices: readonly T[]): T | undefined {
  const choice = choices.find((known) => known === text);
  if (text === undefined || choice !== undefined) return choice;
  throw new UsageError(`${option}: '${text}' is none of ${choices.join(', ')}`);
}

/** A guest that was restored need not say anything: nobody waits for a sign of life. */
const NEVER = { timeoutMs: undefined, stallTimeoutMs: 0, command: undefined };

export async function restoreCommand(options: RestoreCommandOptions, io: CommandIo, world: RunWorld): Promise<number> {
  const report = new Reporter(io, world.clock, options);
  const interruption = new Interruption(io, world.clock, NEVER);
  let outcome: Outcome;
  try {
    outcome = await restoreHere(options, io, world, report, interruption);
  } catch (error) {
    outcome = outcomeOfFailure(error, interruption, NEVER, report);
  } finally {
    interruption.dispose();
  }
  report.event('exit', { status: outcome.status, reason: outcome.reason, ...outcome.fields });
  await Promise.all([flushed(io.stdout), flushed(io.stderr)]);
  return outcome.status;
}

async function restoreHere(
  { dir, memory, clock, name, quiet, json }: RestoreCommandOptions,
  io: CommandIo,
  world: RunWorld,
  report: Reporter,
  interruption: Interruption,
): Promise<Outcome> {
  const { signal } = interruption;
  const folder = path.resolve(io.cwd, dir);
  const bar = new ProgressBar(io, `restore ${path.basename(folder)}`, { json });
  const machine = await world
    .restoreMachine(
      folder,
      {
        ...(memory && { memory }),
        ...(clock && { clock }),
        ...(name !== undefined && { name }),
        start: false,
        logger: report.logger(),
        ...(quiet ? {} : { onProgress: (progress) => bar.show(progress) }),
      },
      signal,
    )
    .finally(() => bar.end());
  try {
    report.event('restored', { path: folder }, { progress: `restored from ${folder}` });
    return await onConsole(machine, io, report, interruption, new ProgressWatch(world.clock, 0, () => undefined));
  } finally {
    await machine.close();
  }
}
