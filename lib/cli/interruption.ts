/**
 * What ends a run from outside the guest: `--timeout`, and signals. The first SIGINT asks (the guest to power off),
 * anything else, and the second SIGINT, ends the run. One AbortSignal carries it through every step.
 */
import type { Clock, Timer } from '../base/clock.js';
import type { CommandIo, CommandSignal } from '../base/command-io.js';

import type { StalledCpu } from './progress-watch.js';

export type InterruptionCause =
  | { readonly kind: 'timeout' }
  | { readonly kind: 'signal'; readonly signal: CommandSignal }
  /** The guest never showed a sign of life, and no progress. */
  | { readonly kind: 'stalled'; readonly cpus: readonly StalledCpu[] }
  /** Nobody reads the output any more. */
  | { readonly kind: 'closed-output' }
  /** Ctrl-] at the console. */
  | { readonly kind: 'left' };

export class Interruption {
  /** Called at the first SIGINT instead of ending the run; set while there is a guest to ask. */
  onAsk: (() => void) | undefined;
  readonly #controller = new AbortController();
  readonly #timer: Timer | undefined;
  #stopListening: () => void;
  #asked: CommandSignal | undefined;
  #cause: InterruptionCause | undefined;

  constructor(io: CommandIo, clock: Clock, options: { timeoutMs: number | undefined }) {
    this.#stopListening = io.onSignal((signal) => this.#onSignal(signal));
    this.#timer =
      options.timeoutMs === undefined
        ? undefined
        : clock.setTimer(BigInt(options.timeoutMs) * 1_000_000n, () => this.end({ kind: 'timeout' }));
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Why the run is to end, once it is. */
  get cause(): InterruptionCause | undefined {
    return this.#cause;
  }

  /** The time of `--timeout` is over, here or, by the SIGQUIT that stands for it, outside of the embedded host. */
  get timeIsOver(): boolean {
    return this.#cause?.kind === 'timeout' || (this.#cause?.kind === 'signal' && this.#cause.signal === 'SIGQUIT');
  }

  /** The signal that asked the guest to power off, if one did. */
  get asked(): CommandSignal | undefined {
    return this.#asked;
  }

  /** The first cause counts. */
  end(cause: InterruptionCause): void {
    if (this.#cause !== undefined) return;
    this.#cause = cause;
    this.#controller.abort();
  }

  /** Somebody else takes the signals from now on. */
  dropSignals(): void {
    this.#stopListening();
    this.#stopListening = () => undefined;
  }

  dispose(): void {
    this.#timer?.cancel();
    this.dropSignals();
  }

  #onSignal(signal: CommandSignal): void {
    if (signal === 'SIGINT' && this.#asked === undefined && this.onAsk !== undefined) {
      this.#asked = signal;
      this.onAsk();
    } else {
      this.end({ kind: 'signal', signal });
    }
  }
}
