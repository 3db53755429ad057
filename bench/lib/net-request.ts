/**
 * What net.ts hands to net-inside.ts, and what comes back, as JSON. Imports nothing: it is loaded on both sides.
 */

/** A load of the network's: one run of it in each guest. */
export const NET_JOBS = ['streamOut', 'streamIn', 'packetsOut', 'packetsIn', 'ping'] as const;
export type NetJob = (typeof NET_JOBS)[number];

/**
 * Before the jobs each guest goes through all of them once, for so long each, unmeasured: a process is compared when it has been at work
 * for a while, and V8 optimises a frame's path only after some thousand frames, which take seconds where it is emulated itself.
 */
export const NET_WARM_UP_SECONDS = 6;

export const NET_CONTESTANTS = ['vivarium', 'qemu'] as const;
export type NetContestant = (typeof NET_CONTESTANTS)[number];

/** The two ends of the guest's network. */
export const NET_HOST_ADDRESS = '10.211.0.1';
export const NET_GUEST_ADDRESS = '10.211.0.2';

/**
 * Lines of a guest's console. A job begins; it has ended, with what its program said: bits a second of a stream, frames a
 * second of packets, and of pings the median round trip in us and how many there were a second. A guest that warms up says the name of
 * the job too, since the other end has its part in it.
 */
export const NET_WARMS = /^NET-WARMS (\w+)$/;
export const NET_BEGINS = /^NET-BEGINS (\w+)$/;
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
