/**
 * What boot.ts hands to boot-inside.ts, and what comes back, as JSON. Imports nothing: it is loaded on both sides.
 */

/** The first line of userspace. */
export const MARKER = 'VIVARIUM-USERSPACE';

/** The same words for every machine: one console, and a reset by triple fault, which all of them end on. */
export const KERNEL_WORDS = ['console=ttyS0', 'reboot=t', 'panic=-1'];

export interface InsideRequest {
  readonly kernel: string;
  readonly initrd: string;
  readonly qemu: string;
  readonly libraries: readonly string[];
  readonly runs: number;
}

export type Contestant = 'vivarium' | 'microvm' | 'pc';

/** Milliseconds from the command's start to the marker, in the order of the rounds. */
export type InsideResult = Readonly<Record<'quiet' | 'full', Record<Contestant, number[]>>>;
