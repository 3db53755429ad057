/** What the dashboard needs of the rest of vivarium; tests give fakes. */
import type { Clock } from '../base/clock.js';
import type { ListedMachine, RemoteMachine } from '../control/index.js';
import type { snapshots } from '../snapshot/index.js';

export interface DashboardWorld {
  readonly clock: Clock;
  list(): Promise<ListedMachine[]>;
  /** @throws TypeError for what is no name; VmmError ERR_NO_MACHINE, ERR_STATE; AbortError */
  connect(name: string, signal: AbortSignal): Promise<RemoteMachine>;
  /** The counters of all machines as Prometheus's text. @throws VmmError ERR_SETUP */
  metrics(): Promise<string>;
  readonly store: Pick<typeof snapshots, 'list' | 'tree' | 'delete'>;
  /**
   * Starts the machine of a snapshot under a name, in a process of its own; resolves when it runs.
   *
   * @throws VmmError, why it does not run; AbortError
   */
  restore(dir: string, name: string, options: RestoreOptions): Promise<void>;
}

export interface RestoreOptions {
  readonly signal: AbortSignal;
  /** What it is at, for people. */
  readonly onProgress: (text: string) => void;
}
