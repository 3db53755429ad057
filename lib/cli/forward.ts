/**
 * A command whose guest this machine's KVM can't run: the same command inside the embedded host. What it stands on is found
 * outside, where the network and the user's cache are; signals are the inner process's, the time stays ours.
 */
import type { Duplex } from 'node:stream';
import type { Channel, CommandIo, CommandSignal } from '../base/command-io.js';
import { AbortError, VmmError } from '../base/errors.js';
import type { DiskChoice } from './disk-option.js';
import { statusOfSignal } from './exit-status.js';
import type { CommandContext } from './hosted-command.js';
import type { Interruption } from './interruption.js';
import type { NicChoice } from './nic-option.js';
import type { Outcome } from './outcome.js';
import type { NameClaim } from './run-control.js';
import type { InnerControl } from './run-options.js';
import type { SessionEnd } from '../host/index.js';
import type { LentNics, RunWorld } from './world.js';

/** The reason of an outcome that the process inside has told already. */
export const FORWARDED = 'forwarded';
/** How long a process inside the embedded host has for its last words when the time is over. */
const LAST_WORDS_NS = 5_000_000_000n;

/** What the process inside is to be. */
export interface ForwardPlan {
  /** Images that it uses, with absolute paths: nobody else of this machine may write to them meanwhile. */
  readonly disks: readonly DiskChoice[];
  /**
   * They are a snapshot's, which nobody changes: a process that holds one for writing is taken for the machine that was saved, which goes
   * on in an image beside it.
   */
  readonly disksMayBeHeld?: boolean;
  readonly nics: readonly NicChoice[];
  /** The guest has the default initramfs, so it can be asked to start the agent. */
  readonly hasAgent: boolean;
  /** Its command line, with what it is to be told of nics and of who it is outside. */
  argv(inside: { readonly nics: readonly NicChoice[]; readonly control: InnerControl | undefined }): readonly string[];
}

/** One that others reach by name: its name, and what is to be done once it is reached. */
export interface ForwardContext extends CommandContext {
  readonly claim?: NameClaim | undefined;
  readonly onReached?: () => Promise<void>;
}

export async function forward(plan: ForwardPlan, context: ForwardContext): Promise<Outcome> {
  const { io, world, report, interruption, claim, onReached } = context;
  const { disks, hasAgent, disksMayBeHeld = false } = plan;
  const held: (() => Promise<void>)[] = [];
  const letGo = async (): Promise<void> => {
    await Promise.all(held.map((release) => release()));
  };
  const given = graceful(interruption, world.clock);
  let running: Promise<SessionEnd>;
  let quit = false;
  try {
    for (const disk of disks) {
      const release = await world.lockDisks([disk]).catch((error: unknown) => {
        const isHeld = error instanceof VmmError && error.code === 'ERR_DISK_LOCKED';
        if (isHeld && disksMayBeHeld) return undefined;
        throw error;
      });
      if (release !== undefined) held.push(release);
    }
    const lent = await lendNics(plan, context);
    held.push(() => lent.close());
    // What came while these were opened has found nobody inside to tell.
    if (interruption.signal.aborted) throw new AbortError(interruption.signal);
    const { join, control } = await reachedBy(claim, lent, hasAgent, world);
    const argv = plan.argv({ nics: lent.nics, control });
    const told = withTimeoutSignal(io, interruption.signal, (signal) => (quit ||= signal === 'SIGQUIT'));
    running = world.forward(argv, told, { log: report.logger(), signal: given.signal, join }).finally(letGo);
  } catch (error) {
    await letGo();
    throw error;
  }
  // Only now, so that there is no moment at which nobody takes them.
  interruption.dropSignals();
  const end = await untilReachedOrEnded(running, onReached, given, world.clock);
  if (interruption.cause !== undefined) throw new AbortError(interruption.signal);
  // A process inside can't tell a SIGQUIT of the user's from the one for the time that is over, and leaves the end to us.
  const quitInside = end.by === 'process' && quit && end.status === statusOfSignal('SIGQUIT');
  if (quitInside) return { status: end.status, reason: 'signal', fields: { signal: 'SIGQUIT' } };
  if (end.by === 'process') return { status: end.status, reason: FORWARDED };
  return { status: statusOfSignal(end.signal), reason: 'signal', fields: { signal: end.signal } };
}

/** One that can't be reached mostly ends, and says why; one that does not is ended. @throws why it could not be reached */
async function untilReachedOrEnded(
  running: Promise<SessionEnd>,
  onReached: ForwardContext['onReached'],
  ender: AbortController,
  clock: RunWorld['clock'],
): Promise<SessionEnd> {
  let isOver = false;
  let unreached: { readonly error: unknown } | undefined;
  let timer: { cancel(): void } | undefined;
  onReached?.().catch((error: unknown) => {
    if (isOver) return;
    timer = clock.setTimer(LAST_WORDS_NS, () => {
      unreached = { error };
      ender.abort();
    });
  });
  try {
    return await running;
  } catch (error) {
    throw unreached === undefined ? error : unreached.error;
  } finally {
    isOver = true;
    timer?.cancel();
  }
}

/** Who takes the session's channels, and what the process inside is told of them; nics are rebound by whoever reaches it. */
async function reachedBy(
  claim: NameClaim | undefined,
  lent: LentNics,
  hasAgent: boolean,
  world: RunWorld,
): Promise<{ join: ((channel: Channel) => void)[]; control: InnerControl | undefined }> {
  if (claim === undefined) return { join: [...lent.join], control: undefined };
  const channel = lent.join.length;
  const control = { channel, hasAgent, record: claim.record };
  const join = [...lent.join, await carryFor(claim, world)];
  if (lent.nics.length === 0) return { join, control };
  return { join: [...join, (networks) => lent.lendOthers(networks)], control: { ...control, networks: channel + 1 } };
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

async function lendNics({ nics }: ForwardPlan, { world, report, interruption }: ForwardContext): Promise<LentNics> {
  if (nics.length === 0) return { nics, join: [], lendOthers: () => undefined, close: () => Promise.resolve() };
  return world.lendNics(nics, report.logger(), interruption.signal);
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
function graceful(interruption: Interruption, clock: RunWorld['clock']): AbortController {
  const late = new AbortController();
  interruption.signal.addEventListener('abort', () => clock.setTimer(LAST_WORDS_NS, () => late.abort()), {
    once: true,
  });
  return late;
}
