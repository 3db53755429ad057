/** What the commands about named machines need of the rest of vivarium; tests give fakes. */
import type { Clock } from '../base/clock.js';
import type { EndedRecord, ListedMachine, RemoteMachine } from '../control/index.js';

export interface ControlWorld {
  readonly clock: Clock;
  /** @throws TypeError for what is no name; VmmError ERR_NO_MACHINE, ERR_STATE; AbortError */
  connect(name: string, signal: AbortSignal): Promise<RemoteMachine>;
  list(): Promise<ListedMachine[]>;
  /** The counters of all machines in the text format of Prometheus. */
  scrape(): Promise<string>;
  /** Those that may be there, without asking them. */
  names(): readonly string[];
  /** Those that have ended and are remembered. */
  listEnded(): EndedRecord[];
  /** The last machine of that name, when it has ended. */
  ended(name: string): EndedRecord | undefined;
  /** The last that its guest has printed. */
  endedOutput(name: string): Uint8Array;
}
