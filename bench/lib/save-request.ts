/**
 * What save-embedded.ts hands to save-inside.ts, and what comes back, as JSON. Imports nothing: it is loaded on both sides.
 */

/** What the guest says when it is up, and again and again while it lives. */
export const GUEST_UP = 'VIVARIUM-UP';
export const GUEST_LIVES = 'VIVARIUM-LIVES';
export const GUEST_MIB = 256;

/**
 * `paused`: stopped all the while. `live`: copied while it runs, then stopped. `instant`: as it was at the start, QEMU's
 * `background-snapshot`.
 */
export const SAVE_MODES = ['paused', 'live', 'instant'] as const;
export type SaveMode = (typeof SAVE_MODES)[number];

export const SAVE_CONTESTANTS = ['vivarium', 'qemu'] as const;
export type SaveContestant = (typeof SAVE_CONTESTANTS)[number];

export interface SaveRequest {
  readonly kernel: string;
  readonly initrd: string;
  readonly qemu: string;
  readonly libraries: readonly string[];
  readonly runs: number;
}

export interface SaveSample {
  /** From the request until all is in the file. */
  readonly totalMs: number;
  /** How long the guest stood still by the contestant's own account. */
  readonly stopMs: number;
  /** Of the files. */
  readonly bytes: number;
  /** From the request to restore, in a process that is ready for it, to the guest's next word. */
  readonly restoreMs: number;
}

/** In the order of the rounds. */
export type SaveResult = Readonly<Record<SaveContestant, Record<SaveMode, SaveSample[]>>>;
