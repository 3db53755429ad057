/**
 * `run -d`, `restore -d`: prepares what takes long in front of the user, then starts the process that holds the machine and
 * waits until it runs, or for why it does not. The machine's name is the only thing on stdout.
 */
import { AbortError } from '../base/errors.js';
import type { CommandIo } from '../base/command-io.js';
import type { HolderFence } from './fence-launch.js';
import { statusOfSignal } from './exit-status.js';
import type { Ready } from './holder.js';
import type { Interruption } from './interruption.js';
import type { Outcome } from './outcome.js';
import { ProgressBar } from './progress-bar.js';
import type { Reporter } from './reporter.js';
import type { RunWorld } from './world.js';

/** A process that was started to hold a machine. */
export interface HolderProcess {
  /** Why its paths are not fenced, where that was not asked for. */
  readonly unfenced?: string | undefined;
  /** The machine runs; undefined when the process ended before. */
  readonly ready: Promise<Ready | undefined>;
  /** Its status and what it wrote on stderr. */
  readonly ended: Promise<{ readonly status: number; readonly stderr: string }>;
  kill(): void;
  /** It lives on by itself. */
  letGo(): void;
}

export async function startHolder(
  argv: readonly string[],
  fence: HolderFence,
  context: { io: CommandIo; world: RunWorld; report: Reporter; interruption: Interruption },
  { json, quiet }: { readonly json: boolean; readonly quiet: boolean },
): Promise<Outcome> {
  const { io, world, report, interruption } = context;
  const { signal } = interruption;
  if (signal.aborted) throw new AbortError(signal);
  const aborted = new Promise<'aborted'>((resolve) => {
    signal.addEventListener('abort', () => resolve('aborted'), { once: true });
  });
  let bar: ProgressBar | undefined;
  const holder = await world.startHolder(argv, fence, ({ title, progress }) => {
    if (quiet) return;
    bar ??= new ProgressBar(io, title, { json });
    bar.show(progress);
  });
  const { unfenced } = holder;
  if (unfenced !== undefined) {
    report.event(
      'unfenced',
      { reason: unfenced },
      { progress: `the machine's process reaches what its user does: ${unfenced}` },
    );
  }
  report.event('starting', {}, { progress: 'starting the machine' });
  const first = await Promise.race([holder.ready, aborted]);
  bar?.end();
  if (first === 'aborted') {
    holder.kill();
    await holder.ended;
    throw new AbortError(signal);
  }
  if (first !== undefined) {
    holder.letGo();
    report.event('detached', { ...first });
    io.stdout.write(`${first.name}\n`);
    return { status: 0, reason: 'detached' };
  }
  const { status, stderr } = await holder.ended;
  io.stderr.write(stderr);
  return { status: status === 0 ? statusOfSignal('SIGHUP') : status, reason: 'failure' };
}
