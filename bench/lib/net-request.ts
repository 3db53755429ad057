/**
 * What net.ts hands to net-inside.ts, and what comes back, as JSON. Imports nothing: it is loaded on both sides.
 */

/** A load of the network's: one run of it in each guest. */
export const NET_JOBS = ['streamOut', 'streamIn', 'packetsOut', 'packetsIn', 'ping'] as const;
export type NetJob = (typeof NET_JOBS)[number];

/**
 * Before the rounds each guest goes through all jobs once, for so long each, unmeasured: a process is compared when it has been at work
 * for a while, and V8 optimises a frame's path only after some thousand frames, which take seconds where it is emulated itself.
 */
export const NET_WARM_UP_SECONDS = 10;

export const NET_CONTESTANTS = ['vivarium', 'qemu'] as const;
export type NetContestant = (typeof NET_CONTESTANTS)[number];

/**
 * A guest says that it is ready, then waits for lines: `net ADDRESS HOST-ADDRESS`, to be said once, a job and its seconds, and `end`. A
 * job has ended with what its program said: kilobits a second of a stream, frames a second that came in, and of pings the
 * median round trip in us and how many there were a second.
 */
export const NET_READY = 'NET-READY';
export const NET_ENDS = /^NET-ENDS (\w+) ([\d.]+)(?: ([\d.]+))?/;

/** A program's file and its libraries. */
export interface NetProgram {
  readonly path: string;
  readonly libraries: readonly string[];
}

export interface NetRequest {
  readonly kernel: string;
  readonly initrd: string;
  readonly qemu: string;
  readonly libraries: readonly string[];
  readonly iperf3: NetProgram;
  readonly netload: string;
  readonly runs: number;
  /** How long each job runs. */
  readonly seconds: number;
}

export interface NetSampleInside {
  /** Kilobits of a stream, frames, or echoes. */
  readonly perSecond: number;
  /** Of pings: the median round trip. */
  readonly roundTripUs?: number | undefined;
  /** CPU time of the machine's whole process, its CPUs' included, for each that went through. */
  readonly cpuUs: number;
}

/** By contestant and job, in the order of the rounds. */
export type NetResult = Readonly<Record<NetContestant, Record<NetJob, NetSampleInside[]>>>;
