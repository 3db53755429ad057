/**
 * What passes between the parts of a run: the files it boots, and what it came to.
 */

/** The files of a run, found and checked. */
export interface Images {
  readonly kernel: string;
  readonly initrd: string;
}

/** What a run came to: its status, and why. */
export interface Outcome {
  readonly status: number;
  readonly reason: string;
  readonly fields?: Readonly<Record<string, unknown>>;
}
