/** What snapshot() and restore() take, checked before anything is touched, and what they give. */
import { checkOptionNames } from '../../base/options.js';
import type { Clock } from '../../base/clock.js';
import type { Logger } from '../../base/logger.js';
import type { InterceptStats, LoadCost } from '../../memory/index.js';
import type { SaveMode } from '../../snapshot/save.js';
import type { SnapshotProgress } from '../../snapshot/index.js';
import type { PitOptions } from '../../time/index.js';
import type { BlockSource, ConsoleSource, EntropySource, NetSource } from '../../vsp/index.js';
import { CLOCK_MODES, type ClockMode } from '../state/clock-mode.js';

export interface SnapshotOptions {
  /** Default 'live'. See docs/snapshots.md for what each costs. */
  readonly mode?: SaveMode;
  /** The folder of a snapshot of this machine, taken or restored from last: only what has changed since is written. */
  readonly parent?: string;
  /** Default 'zstd' where this host has libzstd, else 'none'. */
  readonly compress?: 'zstd' | 'none';
  /** The longest stop of the guest. A snapshot that can't keep it is refused, and the guest goes on. */
  readonly maxPauseMs?: number;
  /**
   * Of mode 'live': slows the guest down where it changes memory faster than that is written, in steps up to a hundredth of its speed,
   * instead of refusing. Default false.
   */
  readonly throttle?: boolean;
  /**
   * Notes from now on what the guest writes, so that this snapshot can be a parent. Default true; it costs a guest's first write to each page.
   */
  readonly track?: boolean;
  /** While another snapshot of the machine is taken: wait for it, or be refused. Default 'queue'. */
  readonly whenBusy?: 'queue' | 'refuse';
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: SnapshotProgress) => void;
}

export interface SnapshotStats {
  /** How long no vCPU ran, in ms. */
  readonly pauseMs: number;
  readonly totalMs: number;
  /** Pages of guest memory, and those of them in groups that hold zeros alone. */
  readonly pages: number;
  readonly zeroPages: number;
  /** Of all files. */
  readonly bytesWritten: number;
  readonly rounds: number;
  /** With `throttle`: the largest share of the time for which the guest was held, where it had to be. */
  readonly throttled?: number;
  /** Of mode 'instant': the guest's writes that were held until their group was saved or copied. Times in ns. */
  readonly intercept?: Pick<
    InterceptStats,
    'faults' | 'faultNs' | 'faultMaxNs' | 'stalls' | 'stallNs' | 'stallMaxNs' | 'armNs' | 'protectNs'
  >;
}

export interface Snapshot {
  readonly dir: string;
  readonly id: string;
  readonly stats: SnapshotStats;
}

/**
 * Backends of the restored machine's devices, by the devices' ids, where they are not to be the same as before. Every console port needs
 * one, a passt with forwards, and a disk over something that is neither a file, a qcow2 image nor memory.
 */
export interface RestoreOverrides {
  readonly disks?: Readonly<Record<string, BlockSource>>;
  readonly nics?: Readonly<Record<string, NetSource>>;
  /** Of console ports. */
  readonly console?: Readonly<Record<string, ConsoleSource>>;
  readonly entropy?: EntropySource;
}

export interface RestoreOptions {
  /** 'lazy': vCPUs run at once, pages come when they are touched. Default 'lazy' where this host can, else 'eager'. */
  readonly memory?: 'lazy' | 'eager';
  /**
   * Whether it shares memory with other machines that this process has restored from the same snapshot, until it writes to it; what is
   * shared comes in pages of 4 KiB. Default: when another of them is there already, and memory is lazy. With 'eager' all of it is
   * there before anything runs, as without.
   */
  readonly share?: boolean;
  /** What becomes of the time since. Default 'step'. */
  readonly clock?: ClockMode;
  readonly overrides?: RestoreOverrides;
  /** Default true. With false the machine is paused. */
  readonly start?: boolean;
  /** Default: the saved one. */
  readonly name?: string;
  /** As of snapshot(): what the guest writes is noted, so that this snapshot can be the parent of its next one. Default true. */
  readonly track?: boolean;
  /** Takes CPU features from the guest that this host lacks, instead of refusing. Default false. */
  readonly mask?: boolean;
  /** Default: as saved; a policy of the user's own is to be given anew. */
  readonly pit?: PitOptions;
  readonly logger?: Logger;
  readonly hostClock?: Clock;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: SnapshotProgress) => void;
}

/** What a phase of a restore cost: since restore() was called, in ms, and what of memory came by then. */
export interface RestoreCost extends Partial<LoadCost> {
  readonly ms: number;
}

/** The phases of a restore. Each rejects with what made it impossible. */
export interface RestorePhases {
  /** vCPUs run. With `start: false`: the machine is ready to. */
  readonly running: Promise<RestoreCost>;
  /** The groups that were used most are there. */
  readonly hotLoaded: Promise<RestoreCost>;
  /** All of its memory is there; the snapshot's files are no longer needed. */
  readonly complete: Promise<RestoreCost>;
}

const SNAPSHOT_OPTIONS = [
  ...['mode', 'parent', 'compress', 'maxPauseMs', 'throttle', 'track', 'whenBusy', 'signal', 'onProgress'],
];
const RESTORE_OPTIONS = [
  ...[
    'memory',
    'share',
    'clock',
    'overrides',
    'start',
    'name',
    'track',
    'mask',
    'pit',
    'logger',
    'hostClock',
    'signal',
    'onProgress',
  ],
];

/** @throws TypeError, RangeError */
export function checkSnapshotOptions(dir: string, options: SnapshotOptions): SnapshotOptions {
  checkFolder('snapshot', dir);
  checkOptionNames('snapshot', options, SNAPSHOT_OPTIONS);
  const { mode, parent, compress, maxPauseMs, throttle, track, whenBusy } = options;
  choice('snapshot: mode', mode, ['paused', 'live', 'instant']);
  choice('snapshot: compress', compress, ['zstd', 'none']);
  choice('snapshot: whenBusy', whenBusy, ['queue', 'refuse']);
  choice('snapshot: track', track, [true, false]);
  choice('snapshot: throttle', throttle, [true, false]);
  if (throttle === true && mode !== undefined && mode !== 'live') {
    throw new RangeError(`snapshot: throttle: a snapshot in mode '${mode}' slows no guest down; 'live' does`);
  }
  if (parent !== undefined) checkFolder('snapshot: parent', parent);
  if (maxPauseMs !== undefined && !(typeof maxPauseMs === 'number' && maxPauseMs > 0 && maxPauseMs < 86_400_000)) {
    throw new RangeError(`snapshot: maxPauseMs: ${String(maxPauseMs)} is no time above 0 and below a day`);
  }
  return options;
}

/** @throws TypeError */
export function checkRestoreOptions(dir: string, options: RestoreOptions): RestoreOptions {
  checkFolder('restore', dir);
  checkOptionNames('restore', options, RESTORE_OPTIONS);
  const { memory, clock, overrides = {}, start, mask } = options;
  choice('restore: memory', memory, ['lazy', 'eager']);
  choice('restore: clock', clock, CLOCK_MODES);
  choice('restore: start', start, [true, false]);
  choice('restore: track', options.track, [true, false]);
  choice('restore: share', options.share, [true, false]);
  choice('restore: mask', mask, [true, false]);
  checkOptionNames('restore: overrides', overrides, ['disks', 'nics', 'console', 'entropy']);
  return options;
}

function checkFolder(name: string, dir: unknown): void {
  if (typeof dir !== 'string' || dir === '') throw new TypeError(`${name}: the path of a folder is wanted`);
  if (dir.includes('\0')) throw new TypeError(`${name}: the path holds a NUL`);
}

function choice<T>(name: string, value: T | undefined, choices: readonly T[]): void {
  if (value === undefined || choices.includes(value)) return;
  throw new TypeError(
    `${name}: ${JSON.stringify(value)} is none of ${choices.map((each) => JSON.stringify(each)).join(', ')}`,
  );
}
