/**
 * A network before it is opened: what `tap(name)` and its siblings return, what a machine's configuration and `rebind`
 * take. A source may be opened again, each time for one device: after a rebind away, for a restore, for another machine.
 */
import type { Clock } from '../../base/clock.js';
import type { Logger } from '../../base/logger.js';
import type { BackendDescription } from '../contract.js';
import type { NetBackend } from './contract.js';

export interface NetOpenContext {
  /** The device that it is opened for, and its address. */
  readonly id: string;
  readonly mac: number;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
}

export interface NetSource {
  readonly class: 'network';
  /** Why only one guest can be behind it; missing where several can. */
  readonly onlyOneGuest?: string | undefined;
  describe(): BackendDescription;
  /**
   * @throws VmmError ERR_DEVICE (what it stands on is missing, taken or not allowed), ERR_SYSTEM; each names what it is
   *   and, where there is one, the cure. AbortError.
   */
  open(context: NetOpenContext): Promise<NetBackend>;
}
