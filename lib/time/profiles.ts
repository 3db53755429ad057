/**
 * Profiles: what kinds of guest bear (row T8). A profile holds for a range of programmed rates; with 'auto' the rate that
 * the guest really programs chooses, and a named profile whose range the guest leaves gives way to the one that fits.
 */

/** Above `lagNs` the guest is caught up at `speed` times its nominal rate. */
export interface SpeedStep {
  readonly lagNs: bigint;
  readonly speed: number;
}

export interface PitProfile {
  readonly name: ProfileName;
  /** The programmed rates it is for, in Hz: from, included, to, not included. */
  readonly fromHz: number;
  readonly toHz: number;
  /** Interrupts a second at most: this many times nominal, and no more than `maxRateHz`. */
  readonly maxSpeed: number;
  readonly maxRateHz: number;
  /** Lag below which no episode begins, however short the period. */
  readonly enterNs: bigint;
  readonly speeds: readonly SpeedStep[];
}

export type ProfileName = 'bios-dos' | '64hz' | '100hz' | '250hz' | '1000hz' | 'tickless';

const MS = 1_000_000n;

/** 1000 Hz kernels take a fourfold rate well: at 4000 Hz a 2 s stop is paid back in 0.7 to 1 s. */
const KERNEL_SPEEDS: readonly SpeedStep[] = [
  { lagNs: 0n, speed: 1.25 },
  { lagNs: 25n * MS, speed: 1.5 },
  { lagNs: 100n * MS, speed: 2 },
  { lagNs: 250n * MS, speed: 3 },
  { lagNs: 1000n * MS, speed: 4 },
];

/** BIOS and DOS programs move things on the screen by ticks: gently, until the lag is seconds. */
const DOS_SPEEDS: readonly SpeedStep[] = [
  { lagNs: 0n, speed: 1.25 },
  { lagNs: 500n * MS, speed: 1.5 },
  { lagNs: 1000n * MS, speed: 2 },
  { lagNs: 3000n * MS, speed: 4 },
];

const KERNEL = { maxSpeed: 4, maxRateHz: 5000, enterNs: 5n * MS, speeds: KERNEL_SPEEDS };

export const PROFILES: readonly PitProfile[] = [
  { ...KERNEL, name: 'bios-dos', fromHz: 0, toHz: 25, maxRateHz: 100, speeds: DOS_SPEEDS },
  { ...KERNEL, name: '64hz', fromHz: 25, toHz: 82, maxRateHz: 328 },
  { ...KERNEL, name: '100hz', fromHz: 82, toHz: 150, maxRateHz: 600 },
  { ...KERNEL, name: '250hz', fromHz: 150, toHz: 500, maxRateHz: 2000 },
  { ...KERNEL, name: '1000hz', fromHz: 500, toHz: Number.POSITIVE_INFINITY },
];

/** A guest that keeps no time by ticks: its PIT is only watched. It holds for one-shot modes, or when named. */
export const TICKLESS: PitProfile = {
  ...KERNEL,
  name: 'tickless',
  fromHz: 0,
  toHz: 0,
  maxSpeed: 1,
  speeds: [{ lagNs: 0n, speed: 1 }],
};

export const PROFILE_NAMES: readonly ProfileName[] = [...PROFILES.map(({ name }) => name), TICKLESS.name];

/** The profile in force for a programmed rate; undefined for `hz` stands for a mode without one. */
export function profileFor(wanted: ProfileName | 'auto', hz: number | undefined): PitProfile {
  if (hz === undefined || wanted === 'tickless') return TICKLESS;
  const named = PROFILES.find(({ name, fromHz, toHz }) => name === wanted && hz >= fromHz && hz < toHz);
  return named ?? PROFILES.find(({ fromHz, toHz }) => hz >= fromHz && hz < toHz) ?? TICKLESS;
}
