/**
 * What fio.ts hands to fio-inside.ts, and what comes back, as JSON. Imports nothing: it is loaded on both sides.
 */

/** A load of fio's: one run of it in each guest. */
export interface FioJob {
  readonly name: string;
  readonly rw: 'randread' | 'randwrite' | 'randrw' | 'read' | 'write';
  readonly blockBytes: number;
  readonly depth: number;
}

const KiB = 1024;
const job = (rw: FioJob['rw'], blockBytes: number, depth: number): FioJob => ({
  name: `${rw}${blockBytes >= KiB * KiB ? `${blockBytes / KiB / KiB}M` : `${blockBytes / KiB}k`}Depth${depth}`,
  rw,
  blockBytes,
  depth,
});

export const FIO_JOBS: readonly FioJob[] = [
  job('randread', 4 * KiB, 1),
  job('randread', 4 * KiB, 32),
  job('randwrite', 4 * KiB, 1),
  job('randwrite', 4 * KiB, 32),
  job('read', KiB * KiB, 4),
  job('write', KiB * KiB, 4),
];

/**
 * Before the jobs each guest reads and writes for so long, unmeasured: a process is compared when it has been at work for a
 * while. V8 optimises a request's path after some thousand requests, which take seconds where it is emulated itself.
 */
export const FIO_WARM_UP_SECONDS = 15;

export const FIO_CONTESTANTS = ['vivarium', 'qemuThreads', 'qemuIoUring'] as const;
export type FioContestant = (typeof FIO_CONTESTANTS)[number];

/** Lines of a guest's console: the job begins; it has ended, with requests a second. */
export const FIO_BEGINS = /^FIO-BEGINS (\d+)$/;
export const FIO_ENDS = /^FIO-ENDS (\d+) (\d+)/;

export interface FioRequest {
  readonly kernel: string;
  readonly initrd: string;
  readonly qemu: string;
  readonly libraries: readonly string[];
  readonly runs: number;
  /** How long each job runs. */
  readonly seconds: number;
}

export interface FioSample {
  readonly perSecond: number;
  /** CPU time of the machine's whole process, its CPUs' included, for one request. */
  readonly cpuUs: number;
}

/** By contestant and job, in the order of the rounds. */
export type FioResult = Readonly<Record<FioContestant, Record<string, FioSample[]>>>;
