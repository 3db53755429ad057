/**
 * `run` where this machine's KVM can't run Linux: the same command inside the embedded host. Images are found outside,
 * where the network and the user's cache are; signals are the inner process's, the time stays ours.
 */
import type { Duplex } from 'node:stream';
import type { Channel, CommandIo, CommandSignal } from '../base/command-io.js';
import { AbortError } from '../base/errors.js';
import { checkDisk } from './disk-option.js';
import { statusOfSignal } from './exit-status.js';
import type { Interruption } from './interruption.js';
import type { Images, Outcome } from './outcome.js';
import { formatLimits } from './limit-option.js';
import { formatNic } from './nic-option.js';
import type { Reporter } from './reporter.js';
import type { NameClaim } from './run-control.js';
import type { RunOptions } from './run-options.js';
import type { SessionEnd } from '../host/index.js';
import type { LentNics, RunWorld } from './world.js';

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

/** A run that others reach by name: its name, and what is to be done once it is reached. */
export interface ForwardNamed extends ForwardContext {
  readonly claim?: NameClaim | undefined;
  readonly started?: () => Promise<void>;
}

export async function forward(options: RunOptions, images: Images, context: ForwardNamed): Promise<Outcome> {
  const { io, world, report, interruption, claim, started } = context;
  const disks = options.disks.map((disk) => ({ ...disk, path: checkDisk(disk, io.cwd, false) }));
  const held: (() => Promise<void>)[] = [];
  const letGo = async (): Promise<void> => {
    await Promise.all(held.map((release) => release()));
  };
  let running: Promise<SessionEnd>;
  let quit = false;
  try {
    if (disks.length > 0) held.push(await world.lockDisks(disks));
    const lent = await lendNics(options, context);
    held.push(() => lent.close());
    // What came while these were opened has found nobody inside to tell.
    if (interruption.signal.aborted) throw new AbortError(interruption.signal);
    const hasAgent = options.initrd === undefined;
    const control = claim && { channel: lent.join.length, hasAgent, record: claim.record };
    const argv = innerArguments({ ...options, disks, nics: lent.nics, control }, images, (path) =>
      world.innerPath(path, io.cwd),
    );
    const join = [...lent.join, ...(claim ? [await carryFor(claim, world)] : [])];
    const told = withTimeoutSignal(io, interruption.signal, (signal) => (quit ||= signal === 'SIGQUIT'));
    const given = graceful(interruption, world.clock);
    running = world.forward(argv, told, { log: report.logger(), signal: given, join }).finally(letGo);
  } catch (error) {
    await letGo();
    throw error;
  }
  // Only now, so that there is no moment at which nobody takes them.
  interruption.dropSignals();
  // One that is never reached ends, which says why.
  started?.().catch(() => undefined);
  const end = await running;
  if (interruption.cause !== undefined) throw new AbortError(interruption.signal);
  // A process inside can't tell a SIGQUIT of the user's from the one for the time that is over, and leaves the end to us.
  const quitInside = end.by === 'process' && quit && end.status === statusOfSignal('SIGQUIT');
  if (quitInside) return { status: end.status, reason: 'signal', fields: { signal: 'SIGQUIT' } };
  if (end.by === 'process') return { status: end.status, reason: FORWARDED };
  return { status: statusOfSignal(end.signal), reason: 'signal', fields: { signal: end.signal } };
}

/** Listens, and gives what takes the channel over which the connections go; those that come before wait for it. */
async function carryFor(claim: NameClaim, world: RunWorld): Promise<(channel: Channel) => void> {
  let take: (carry: Promise<(stream: Duplex) => void>) => void = () => undefined;
  const carrier = new Promise<(stream: Duplex) => void>((resolve) => (take = resolve));
  await claim.listen((stream) => {
    carrier.then((carry) => carry(stream)).catch(() => void stream.destroy());
  });
  return (channel) => take(world.carryConnections(channel));
}

async function lendNics({ nics }: RunOptions, { world, report, interruption }: ForwardContext): Promise<LentNics> {
  if (nics.length === 0) return { nics, join: [], close: () => Promise.resolve() };
  return world.lendNics(nics, report.logger(), interruption.signal);
}

/** The command line of the process inside; `inner` gives the path that means the same file there. */
function innerArguments(options: RunOptions, images: Images, inner: (path: string) => string): string[] {
  const argv = ['run', '--kvm', 'native', '--kernel', inner(images.kernel), '--initrd', inner(images.initrd)];
  argv.push('--cpus', String(options.cpus), '--memory', String(options.memoryBytes), '--pit', options.pit);
  for (const { path, id, readOnly, format, limits } of options.disks) {
    const more = [`format=${format}`, `id=${id}`, ...(readOnly ? ['ro'] : []), ...formatLimits(limits)];
    argv.push(`--disk=${[inner(path), ...more].join(',')}`);
  }
  for (const nic of options.nics) argv.push(`--nic=${formatNic(nic)}`);
  argv.push('--stall-timeout', String(options.stallTimeoutMs / 1000));
  if (options.cmdline !== undefined) argv.push(`--cmdline=${options.cmdline}`);
  if (options.append !== undefined) argv.push(`--append=${options.append}`);
  if (options.control !== undefined) argv.push(`--control=${JSON.stringify(options.control)}`);
  if (options.quiet) argv.push('--quiet');
  if (options.json) argv.push('--json');
  if (options.command !== undefined) argv.push('--', ...options.command);
  return argv;
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
