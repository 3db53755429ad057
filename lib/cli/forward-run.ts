/**
 * `run` where this machine's KVM can't run Linux: the same command inside the embedded host. Images are found outside,
 * where the network and the user's cache are; signals are the inner process's, the time stays ours.
 */
import type { CommandIo, CommandSignal } from '../base/command-io.js';
import { AbortError } from '../base/errors.js';
import { checkDisk } from './disk-option.js';
import { statusOfSignal } from './exit-status.js';
import type { Interruption } from './interruption.js';
import type { Images, Outcome } from './outcome.js';
import type { Reporter } from './reporter.js';
import type { RunOptions } from './run-options.js';
import type { RunWorld } from './world.js';

/** The reason of an outcome that the process inside has told already. */
export const FORWARDED = 'forwarded';
/** How long a process inside the embedded host has for its last words when the time is over. */
const LAST_WORDS_NS = 5_000_000_000n;

export interface ForwardContext {
  readonly io: CommandIo;
  readonly world: RunWorld;
  readonly report: Reporter;
  readonly interruption: Interruption;
}

export async function forward(options: RunOptions, images: Images, context: ForwardContext): Promise<Outcome> {
  const { io, world, report, interruption } = context;
  const inner = (path: string): string => world.innerPath(path, io.cwd);
  const argv = ['run', '--kvm', 'native', '--kernel', inner(images.kernel), '--initrd', inner(images.initrd)];
  argv.push('--cpus', String(options.cpus), '--memory', String(options.memoryBytes), '--pit', options.pit);
  const disks = options.disks.map((disk) => ({ ...disk, path: checkDisk(disk, io.cwd, false) }));
  for (const { path, id, readOnly, format } of disks) {
    argv.push(`--disk=${inner(path)},format=${format},id=${id}${readOnly ? ',ro' : ''}`);
  }
  argv.push('--stall-timeout', String(options.stallTimeoutMs / 1000));
  if (options.cmdline !== undefined) argv.push(`--cmdline=${options.cmdline}`);
  if (options.append !== undefined) argv.push(`--append=${options.append}`);
  if (options.quiet) argv.push('--quiet');
  if (options.json) argv.push('--json');
  if (options.command !== undefined) argv.push('--', ...options.command);
  let quit = false;
  const told = withTimeoutSignal(io, interruption.signal, (signal) => (quit ||= signal === 'SIGQUIT'));
  const given = graceful(interruption, world.clock);
  const release = disks.length === 0 ? undefined : await world.lockDisks(disks);
  const running = world.forward(argv, told, report.logger(), given).finally(() => release?.());
  // Only now, so that there is no moment at which nobody takes them.
  interruption.dropSignals();
  const end = await running;
  if (interruption.cause !== undefined) throw new AbortError(interruption.signal);
  // A process inside can't tell a SIGQUIT of the user's from the one for the time that is over, and leaves the end to us.
  const quitInside = end.by === 'process' && quit && end.status === statusOfSignal('SIGQUIT');
  if (quitInside) return { status: end.status, reason: 'signal', fields: { signal: 'SIGQUIT' } };
  if (end.by === 'process') return { status: end.status, reason: FORWARDED };
  return { status: statusOfSignal(end.signal), reason: 'signal', fields: { signal: end.signal } };
}

/** When the time is over the process inside is told by SIGQUIT, so that it can still say what its guest was doing. */
function withTimeoutSignal(io: CommandIo, signal: AbortSignal, onSignal: (signal: CommandSignal) => void): CommandIo {
  const told = Object.create(io) as { -readonly [Key in keyof CommandIo]: CommandIo[Key] };
  told.onSignal = (callback) => {
    const stop = io.onSignal((name) => {
      onSignal(name);
      callback(name);
    });
    const onAbort = (): void => callback('SIGQUIT');
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) queueMicrotask(onAbort);
    return () => {
      signal.removeEventListener('abort', onAbort);
      stop();
    };
  };
  return told;
}

/** Aborts some time after the interruption. */
function graceful(interruption: Interruption, clock: RunWorld['clock']): AbortSignal {
  const late = new AbortController();
  interruption.signal.addEventListener('abort', () => clock.setTimer(LAST_WORDS_NS, () => late.abort()), {
    once: true,
  });
  return late.signal;
}
