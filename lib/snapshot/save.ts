/**
 * The three ways to save a machine, over what they need of it: who stops and starts it, who writes groups of memory, who knows
 * what was dirtied, who intercepts writes. Nothing here knows a file or a CPU. Whatever happens, the machine goes on as before, and
 * nothing stays protected or logged.
 *
 *   paused    stop - state - all groups - go
 *   live      all groups - dirtied ones, in rounds - stop - state - copy the last ones - go - write them
 *   instant   protect - stop - state, protect again - go - groups, those first that the guest is about to change
 */
import type { Clock } from '../base/clock.js';
import { AbortError, VmmError } from '../base/errors.js';
import type { SavedPart } from '../base/saved-state.js';
import { decideLiveRound } from './live-policy.js';

export type SaveMode = 'paused' | 'live' | 'instant';

/** The machine, while it is saved. */
export interface SaveSubject {
  /**
   * Prepares the devices, then takes every vCPU out of the guest. Nothing of it remains when it throws.
   *
   * @returns when the first vCPU was asked to leave, by the clock.
   */
  stop(signal: AbortSignal | undefined): Promise<bigint>;
  /** Everything but memory; only between stop() and go(). */
  saveState(): Promise<readonly SavedPart[]>;
  /**
   * Lets devices and vCPUs go on, if they ran before. It never fails for a machine that has ended.
   *
   * @param isKept the state that was saved is the snapshot's; else nothing of this stop is to be left.
   */
  go(isKept: boolean): Promise<void>;
}

/** Where groups go, by their numbers in ascending order. Its failures reject what is called next, and `drained`. */
export interface GroupWriter {
  readonly groups: number;
  /** Writes groups as they are in guest memory by now; again if they were written before. */
  write(groups: Uint32Array, signal: AbortSignal | undefined): Promise<void>;
  /** Groups that copy() can hold. */
  readonly bufferGroups: number;
  /** Copies groups, to be written from there. */
  copy(groups: Uint32Array): Promise<void>;
  /** Everything that was handed over is written. */
  drained(signal: AbortSignal | undefined): Promise<void>;
}

/** Who has been told of all writes to guest memory since it was made, and since its last take(). */
export interface DirtyGroups {
  take(): Uint32Array;
  close(): void;
}

/** Slows the guest down while memory is written that it changes faster than that. */
export interface GuestThrottle {
  /** From now on the guest stands still for this share of the time, from 0 to below 1, a little at a time. */
  set(share: number): void;
  /** Resolves when it is let alone again. Idempotent. */
  end(): Promise<void>;
}

/** Holds writes to groups that are not saved yet until they are. */
export interface GroupIntercept {
  /** Protects groups while the guest runs: what the stop has to do later is less. */
  protectAhead(groups: Uint32Array): Promise<void>;
  /** With the guest stopped: from here on the bytes of these groups are those of this instant. */
  arm(groups: Uint32Array): Promise<void>;
  /** Every group was handed to the writer. Rejects when that failed. */
  finished(signal: AbortSignal | undefined): Promise<void>;
  /** Nothing is protected afterwards. Idempotent. */
  release(): Promise<void>;
}

export interface SaveOptions {
  readonly subject: SaveSubject;
  readonly writer: GroupWriter;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
  /** The stop that must not be exceeded. */
  readonly maxPauseMs?: number | undefined;
  /** The groups to be saved, as of the call, where it is not all of them: those that differ from a parent. */
  readonly changed?: (() => Uint32Array) | undefined;
}

export interface Saved {
  readonly parts: readonly SavedPart[];
  /** How long no vCPU ran, as far as they did before. */
  readonly pauseMs: number;
  readonly rounds: number;
  /** The largest share of the time for which the guest was held meanwhile, beside the stop. */
  readonly throttled?: number;
}

/** What a live snapshot may copy for within its stop where nothing was promised: as QEMU's migration. */
const DEFAULT_LIVE_COPY_MS = 300;
/** Copying within one process: a guess for the first stop, measured afterwards. */
const COPIED_GROUPS_PER_MS = 32;
/** A first guess at a stop without copying. */
const FIXED_STOP_MS = 2;
/** Shares of the time that a guest is held for, one after the other, as long as rounds are in vain. */
const THROTTLE_SHARES = [0.5, 0.8, 0.95, 0.99];
/** Stops that found more dirtied than was thought, before it is given up. */
const MAX_VAIN_STOPS = 3;

export async function savePaused(options: SaveOptions): Promise<Saved> {
  const { writer, maxPauseMs } = options;
  const { signal: caller } = options;
  return stopped(options, async (parts, startNs) => {
    const limitMs = maxPauseMs === undefined ? undefined : maxPauseMs - msSince(options.clock, startNs);
    if (limitMs !== undefined && limitMs <= 0) throw tooLong(options, startNs, maxPauseMs!, 0);
    const limit = new AbortController();
    const timer = limitMs === undefined ? undefined : options.clock.setTimer(toNs(limitMs), () => limit.abort());
    let written = 0;
    let total = 0;
    try {
      // In parts, so that what was reached says how long all of it would take.
      const groups = wanted(options);
      total = groups.length;
      for (const part of slices(groups, limitMs === undefined ? PAUSED_PART_GROUPS : LIMITED_PART_GROUPS)) {
        await writer.write(part, anyOf(caller, limit.signal));
        written += part.length;
      }
      await writer.drained(anyOf(caller, limit.signal));
    } catch (error) {
      if (!limit.signal.aborted || caller?.aborted === true) throw error;
      throw tooLong(options, startNs, maxPauseMs!, written / total);
    } finally {
      timer?.cancel();
    }
    return { parts, rounds: 1 };
  });
}

const PAUSED_PART_GROUPS = 1024;
/** 2 MiB: where a time is to be kept it is looked at often. */
const LIMITED_PART_GROUPS = 32;

/** With `throttle` a guest that dirties memory faster than it is written is slowed down before that is refused. */
export async function saveLive(
  options: SaveOptions & { readonly dirty: DirtyGroups; readonly throttle?: GuestThrottle | undefined },
): Promise<Saved> {
  const { writer, dirty, signal, maxPauseMs: promisedMs, throttle } = options;
  const shares = throttle === undefined ? [] : [...THROTTLE_SHARES];
  let throttled: number | undefined;
  let history: number[] = [];
  let vainStops = 0;
  /** Rounds whose guest was faster than it is now: they say nothing about what will be. */
  let before = 0;
  /** False where the guest can't be slowed down any more. */
  const slowDown = (round: number): boolean => {
    const share = shares.shift();
    if (share === undefined) return false;
    throttle!.set((throttled = share));
    [history, before, vainStops] = [[], round, 0];
    return true;
  };
  try {
    let fixedStopMs = FIXED_STOP_MS;
    let copiedGroupsPerMs = COPIED_GROUPS_PER_MS;
    let left = wanted(options);
    for (let round = 1; ; round++) {
      await writer.write(left, signal);
      left = dirty.take();
      const { bufferGroups } = writer;
      // Where nothing was promised only the copying has a bound: what a slow host makes of the rest is no reason to refuse.
      const maxPauseMs = promisedMs ?? fixedStopMs + DEFAULT_LIVE_COPY_MS;
      const bounds = { fixedStopMs, copiedGroupsPerMs, bufferGroups, maxPauseMs, canThrottle: shares.length > 0 };
      const decision = decideLiveRound({ round: round - before, dirtyGroups: left.length, history, ...bounds });
      history.push(left.length);
      if (decision.action === 'refuse') {
        if (slowDown(round)) continue;
        throw refused(maxPauseMs, decision.neededMs, decision.why, throttle === undefined);
      }
      if (decision.action === 'round') continue;

      const last = left;
      const saved = await stopped(options, async (parts, startNs) => {
        const all = union(last, dirty.take());
        const stateMs = msSince(options.clock, startNs);
        // It may have dirtied more since the look, and the state may take longer than was thought.
        const limitMs = promisedMs ?? stateMs + DEFAULT_LIVE_COPY_MS;
        const isTooLate = stateMs + all.length / copiedGroupsPerMs > limitMs || all.length > bufferGroups;
        fixedStopMs = stateMs;
        if (isTooLate) {
          left = all;
          return undefined;
        }
        const copyNs = options.clock.nowNs();
        await writer.copy(all);
        const copyMs = msSince(options.clock, copyNs);
        if (all.length > 0 && copyMs > 0) copiedGroupsPerMs = all.length / copyMs;
        return { parts, rounds: round };
      });
      if (saved !== undefined) {
        await throttle?.end();
        await writer.drained(signal);
        return throttled === undefined ? saved : { ...saved, throttled };
      }
      if (++vainStops < MAX_VAIN_STOPS || slowDown(round)) continue;
      const neededMs = Math.ceil(fixedStopMs + left.length / copiedGroupsPerMs);
      const why = `${left.length} groups of 64 KiB and ${fixedStopMs.toFixed(1)} ms for its state`;
      throw refused(maxPauseMs, neededMs, why, throttle === undefined);
    }
  } finally {
    dirty.close();
    await throttle?.end();
  }
}

export async function saveInstant(options: SaveOptions & { readonly intercept: GroupIntercept }): Promise<Saved> {
  const { intercept, writer, signal, maxPauseMs } = options;
  try {
    await intercept.protectAhead(wanted(options));
    const saved = await stopped(options, async (parts, startNs) => {
      await intercept.arm(wanted(options));
      const pauseMs = msSince(options.clock, startNs);
      if (maxPauseMs !== undefined && pauseMs > maxPauseMs) {
        throw refused(maxPauseMs, Math.ceil(pauseMs), 'its state and the protection of its memory');
      }
      return { parts, rounds: 1 };
    });
    await intercept.finished(signal);
    await writer.drained(signal);
    return saved;
  } finally {
    await intercept.release();
  }
}

/** Does something with the machine stopped, and times that. */
async function stopped<T extends { readonly parts: readonly SavedPart[]; readonly rounds: number } | undefined>(
  { subject, clock, signal }: SaveOptions,
  action: (parts: readonly SavedPart[], startNs: bigint) => Promise<T>,
): Promise<T extends undefined ? undefined : Saved> {
  throwIfAborted(signal);
  const startNs = await subject.stop(signal);
  let result: T | undefined;
  try {
    throwIfAborted(signal);
    result = await action(await subject.saveState(), startNs);
  } finally {
    await subject.go(result !== undefined);
  }
  const pauseMs = msSince(clock, startNs);
  return (result === undefined ? undefined : { ...result, pauseMs }) as T extends undefined ? undefined : Saved;
}

function tooLong({ clock }: SaveOptions, startNs: bigint, maxPauseMs: number, done: number): VmmError {
  const neededMs = done > 0 ? Math.ceil(msSince(clock, startNs) / done) : undefined;
  return refused(maxPauseMs, neededMs, "the machine's memory is written while it is paused");
}

function refused(maxPauseMs: number, neededMs: number | undefined, why: string, canThrottle = false): VmmError {
  const needed = neededMs === undefined ? 'it takes longer' : `it takes about ${neededMs} ms`;
  return new VmmError('ERR_SNAPSHOT_REFUSED', `a pause of ${maxPauseMs} ms can't be kept: ${needed} (${why})`, {
    cure:
      neededMs === undefined
        ? "mode: 'instant' stops it for the shortest time"
        : `maxPauseMs: ${neededMs}, ${canThrottle ? 'throttle: true, ' : ''}or another mode`,
  });
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new AbortError(signal);
}

function anyOf(first: AbortSignal | undefined, second: AbortSignal): AbortSignal {
  return first === undefined ? second : AbortSignal.any([first, second]);
}

function msSince(clock: Clock, startNs: bigint): number {
  return Number(clock.nowNs() - startNs) / 1e6;
}

function toNs(ms: number): bigint {
  return BigInt(Math.ceil(ms * 1e6));
}

function wanted({ changed, writer }: SaveOptions): Uint32Array {
  return changed?.() ?? Uint32Array.from({ length: writer.groups }, (_, group) => group);
}

function* slices(groups: Uint32Array, length: number): Generator<Uint32Array> {
  for (let at = 0; at < groups.length; at += length) yield groups.subarray(at, at + length);
}

/** Of two ascending lists, in ascending order. */
function union(one: Uint32Array, other: Uint32Array): Uint32Array {
  return Uint32Array.from(new Set([...one, ...other])).sort();
}
