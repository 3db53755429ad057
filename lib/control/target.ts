/**
 * What is controlled, as interfaces: the machine as the control socket's server sees it, and what it is told of the process
 * that holds it. A Machine is one of these; so is the fake of the tests.
 */
import type { GuestAgents } from '../agent/guest-agents.js';
import type { Clock } from '../base/clock.js';
import type { Fence } from '../base/fence.js';
import type {
  DeviceSource,
  EndStatus,
  MachineCounters,
  MachineMemory,
  PauseOptions,
  Snapshot,
  SnapshotOptions,
  StopOptions,
} from '../machine/index.js';
import type { PitEvents } from '../time/index.js';
import type { RebindOptions, RebindReport } from '../vsp/index.js';
import type { Ending } from './ending.js';
import type { EventHub } from './event-hub.js';
import type { MachineRecord } from './machine-folders.js';
import type { OutputHub } from './output-hub.js';
import type { Backend } from './schemas.js';

export interface ControlledMachine {
  readonly name: string;
  readonly state: 'created' | 'running' | 'paused' | 'stopped' | 'failed';
  readonly console: {
    write(data: Uint8Array | string): boolean;
    drained(): Promise<void>;
    readonly output: AsyncIterable<Uint8Array>;
  };
  readonly memory: MachineMemory;
  readonly pit: {
    status(): unknown;
    on<K extends keyof PitEvents>(name: K, listener: (event: PitEvents[K]) => void): () => void;
  };
  /** Calls back at once when it has another state; the result takes the listener away. */
  onState(listener: (state: ControlledMachine['state']) => void): () => void;
  start(call?: { signal?: AbortSignal }): Promise<void>;
  pause(options?: PauseOptions): Promise<void>;
  resume(call?: { signal?: AbortSignal }): Promise<void>;
  stop(options?: StopOptions): Promise<EndStatus>;
  kill(): Promise<EndStatus>;
  wait(call?: { signal?: AbortSignal }): Promise<EndStatus>;
  snapshot(dir: string, options?: SnapshotOptions): Promise<Snapshot>;
  device(id: string): {
    readonly contract: unknown;
    rebind(backend: DeviceSource, options?: RebindOptions): Promise<RebindReport>;
  };
  inspect(): unknown;
  counters(): MachineCounters;
}

/** How the guest ended, and what whoever holds the machine makes of it. */
export interface FinalStatus extends EndStatus {
  readonly status?: number;
  readonly outcome?: string;
}

/** Bytes of guest memory. */
export interface SaveUnderWay {
  readonly dir: string;
  bytesDone: number;
  bytesTotal: number;
}

export interface ControlTarget {
  readonly machine: ControlledMachine;
  readonly record: MachineRecord;
  /** What its process is fenced in by; undefined where it is not. */
  readonly fence: Fence | undefined;
  readonly clock: Clock;
  /** Of the guest; the commands in it are run through one of them. */
  readonly agents: GuestAgents;
  /** What the console has shown. */
  readonly console: OutputHub;
  /** What `logs` shows: the console, or the output of the COMMAND. */
  readonly logs: OutputHub;
  /** Snapshots that are being saved, as far as they are. */
  readonly saves: Set<SaveUnderWay>;
  /** What happens to the machine. */
  readonly events: EventHub;
  /** The backend that was chosen for a device. @throws VmmError where it can't be had in this host */
  readonly makeBackend: (choice: Backend, device: string) => DeviceSource;
  /** The end with the holder's own status, when the holder knows it. */
  readonly ending: Ending;
}
