/** The state of a machine's life, and who is told of its changes: at once, in order, each on its own. */
import type { Logger } from '../base/logger.js';
import type { MachineState } from './status.js';

export type StateListener = (state: MachineState) => void;

export class StateHolder {
  readonly #logger: Logger;
  readonly #listeners = new Set<StateListener>();
  #state: MachineState = 'created';

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  get state(): MachineState {
    return this.#state;
  }

  /** Listeners are told of another state than before; what one throws hinders nobody. */
  set state(state: MachineState) {
    if (state === this.#state) return;
    this.#state = state;
    for (const listener of [...this.#listeners]) {
      try {
        listener(state);
      } catch (error) {
        this.#logger.log('error', "a listener of the machine's state threw", { error: String(error) });
      }
    }
  }

  /** The result takes the listener away. @throws TypeError */
  readonly on = (listener: StateListener): (() => void) => {
    if (typeof listener !== 'function') throw new TypeError('onState: the listener is no function');
    const own: StateListener = (state) => listener(state);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  };
}
