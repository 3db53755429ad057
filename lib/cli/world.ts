/**
 * What `run` and `doctor` need of the rest of vivarium, as interfaces: commands see these, tests give fakes, and
 * real-world.ts joins them to the other rooms, loading each only when it is used.
 */
import type { Duplex } from 'node:stream';
import type { GuestAgents } from '../agent/guest-agents.js';
import type { QemuAgentPort } from '../agent/qemu/port.js';
import type { MachineRecord, OutputHub } from '../control/index.js';
import type { PolicyName } from '../time/index.js';
import type { ChannelHostEnd } from '../chipset/channel-port.js';
import type { Clock } from '../base/clock.js';
import type { Fence } from '../base/fence.js';
import type { Channel, CommandIo } from '../base/command-io.js';
import type { Logger } from '../base/logger.js';
import type { SessionEnd } from '../host/index.js';
import type { HolderProcess } from './detach-command.js';
import type { Underway } from './holder.js';
import type { HolderFence } from './fence-launch.js';
import type { NameClaim, OpenControl } from './run-control.js';
import type { DiskChoice } from './disk-option.js';
import type { NicChoice } from './nic-option.js';
import type { EndStatus } from '../machine/status.js';
import type { DescribedSnapshot, RestoreOptions } from '../machine/index.js';

/** The part of a Machine that the command uses. */
export interface RunMachine {
  readonly console: {
    /** False asks the caller to go on only after `drained()`; the data was taken. */
    write(data: Uint8Array | string): boolean;
    drained(): Promise<void>;
    readonly output: AsyncIterable<Uint8Array>;
    /** The output kept so far. */
    readonly text: string;
  };
  readonly channel: ChannelHostEnd;
  readonly qemuAgentPort?: QemuAgentPort | undefined;
  start(): Promise<void>;
  pause(): Promise<void>;
  /** Everything about it as a JSON tree. */
  inspect(): unknown;
  /** Presses the power button and waits. */
  stop(options: { timeoutMs?: number; signal?: AbortSignal }): Promise<EndStatus>;
  kill(): Promise<EndStatus>;
  wait(): Promise<EndStatus>;
  close(): Promise<void>;
}

export interface RunMachineOptions {
  /** Undefined: the default. */
  readonly name: string | undefined;
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Paths absolute. */
  readonly disks: readonly DiskChoice[];
  readonly nics: readonly NicChoice[];
  readonly pit: PolicyName;
  /** It has a port for QEMU's agent. */
  readonly qemuAgent: boolean;
  readonly kernel: string;
  readonly initrd: string | undefined;
  readonly cmdline: string;
  readonly logger: Logger;
}

export type RestoreMachineOptions = Omit<RestoreOptions, 'overrides' | 'signal'> & {
  readonly nics: readonly NicChoice[];
};

export interface KernelChoice {
  readonly path: string;
  readonly release: string | undefined;
  /** What the initramfs is built from; opaque to the command. */
  readonly image: unknown;
}

export interface HostChoice {
  readonly host: 'native' | 'embedded';
  /** Why, in half a sentence. */
  readonly reason: string;
}

export interface ControlWishes {
  readonly record: MachineRecord;
  readonly agents: GuestAgents;
  readonly logs?: OutputHub;
  /** Where other networks for nics that are lent in are asked for. */
  readonly networks?: Channel | undefined;
}

/** Networks of this machine that are open for a guest in the embedded host. */
export interface LentNics {
  /** What the command inside is to be told: each at its channel, with its address. */
  readonly nics: readonly NicChoice[];
  /** Takes the session's channel of each. */
  readonly join: readonly ((channel: Channel) => void)[];
  /** Gives the process inside other networks for them, as it asks over the session's channel. */
  lendOthers(channel: Channel): void;
  close(): Promise<void>;
}

export interface RunWorld {
  /** Takes a name for this process. @throws VmmError ERR_NAME_TAKEN, ERR_SETUP */
  claimName(name: string, host: 'native' | 'embedded'): Promise<NameClaim>;
  /** The control of a machine, to be opened before its guest runs. */
  openControl(machine: RunMachine, options: ControlWishes): Promise<OpenControl>;
  /** The outer end of a channel that carries control connections. */
  carryConnections(channel: Channel): Promise<(stream: Duplex) => void>;
  /** The inner one. */
  takeCarried(channel: Channel, accept: (stream: Duplex) => void): Promise<void>;
  /** Resolves when the machine of that name answers. */
  untilReached(name: string, signal: AbortSignal): Promise<void>;
  /** Starts this command in a process of its own, in a fence. */
  startHolder(
    argv: readonly string[],
    fence: HolderFence,
    onProgress: (underway: Underway) => void,
  ): Promise<HolderProcess>;
  /** The fence that this process is in, closed for good; undefined when it is in none. */
  closeFence(): Promise<Fence | undefined>;
  readonly clock: Clock;
  /** True in a process inside the embedded host: there is nothing to choose, and the outer process has checked. */
  readonly inside: boolean;
  chooseHost(wish: 'auto' | 'native' | 'embedded', signal: AbortSignal): Promise<HostChoice>;
  defaultKernel(log: Logger, signal: AbortSignal): Promise<KernelChoice>;
  /** A kernel of the user's own: what can be told of it for the initramfs. */
  describeKernel(path: string): Promise<KernelChoice>;
  /** Readies what is kept of a kernel between boots, for a process that may not write it. What can't be done is left. */
  keepKernel(path: string): Promise<void>;
  defaultInitramfs(kernel: KernelChoice, log: Logger, signal: AbortSignal): Promise<string>;
  createMachine(options: RunMachineOptions, signal: AbortSignal): Promise<RunMachine>;
  /** What a snapshot's machine stands on, its images as they are called here. @throws as describeSnapshot */
  describeSnapshot(dir: string): Promise<DescribedSnapshot>;
  /** The machine of a snapshot, its nics on these networks where they are given. @throws as Machine.restore */
  restoreMachine(dir: string, options: RestoreMachineOptions, signal: AbortSignal): Promise<RunMachine>;
  /**
   * Keeps other processes of this machine from using the images while the embedded host does; the result lets go.
   *
   * @throws VmmError ERR_DISK_LOCKED
   */
  lockDisks(disks: readonly DiskChoice[]): Promise<() => Promise<void>>;
  /** Opens networks for a guest in the embedded host. @throws VmmError ERR_DEVICE, ERR_STATE, ...; AbortError */
  lendNics(nics: readonly NicChoice[], log: Logger, signal: AbortSignal): Promise<LentNics>;
  /** The path that means the same file inside the embedded host. */
  innerPath(path: string, cwd: string): string;
  /**
   * Runs the command inside the embedded host with these streams, and a channel for each member of `join`. It takes the
   * signals from the call on.
   */
  forward(
    argv: readonly string[],
    io: CommandIo,
    options: { log: Logger; signal: AbortSignal; join?: readonly ((channel: Channel) => void)[] },
  ): Promise<SessionEnd>;
}
