/**
 * The JavaScript end of the doorbell: takes the sources that need attention (vCPUs with an exit, posted rings, watched
 * eventfds) out of the native queue and calls their handlers. After it has served one it polls a little for the next,
 * which spares the wake-up of a sleeping thread; polling is bounded and stops when it does not pay.
 */
import { availableParallelism } from 'node:os';
// By name: the global `process` is a getter.
import { hrtime } from 'node:process';
import type { NativeRuntime } from './native.js';

/** How long one poll waits for the next source. */
const POLL_NS = 20_000;
/** After this many polls in a row that found nothing, stop until exits come close together again. */
const MISSES_BEFORE_REST = 4;
/** A doorbell this soon after the last dispatch says that polling would have paid. */
const NEAR_NS = 60_000n;
/** The event loop gets its turn at least this often. */
const TURN_NS = 1_000_000n;
/** The clock is looked at once in so many sources. */
const SOURCES_PER_CLOCK = 32;

export class Dispatcher {
  readonly #handlers = new Map<number, () => void>();
  /** Takes away what was registered for an object that nobody holds any more. */
  readonly #collected = new FinalizationRegistry<number>((sourceId) => this.#handlers.delete(sourceId));
  /** How many times each is held. */
  readonly #held = new Map<object, number>();
  #runtime: NativeRuntime | undefined;
  #misses = MISSES_BEFORE_REST;
  #endedNs = 0n;
  readonly #pollNs = availableParallelism() > 1 ? POLL_NS : 0;
  #dispatching = false;
  #continuation: NodeJS.Immediate | undefined;

  /** Called by the loader, once. */
  attach(runtime: NativeRuntime): void {
    this.#runtime = runtime;
    runtime.setVcpuSpin(this.#pollNs);
  }

  get runtime(): NativeRuntime {
    if (!this.#runtime) throw new TypeError('the dispatcher is not attached');
    return this.#runtime;
  }

  /**
   * `handler` is called on the JavaScript thread, with `owner`, whenever the source stands in the queue. The owner is
   * held weakly, and `handler` must not hold it: a machine that nobody holds is collected, with its threads. See `hold`.
   */
  register<T extends object>(sourceId: number, owner: T, handler: (owner: T) => void): void {
    const held = new WeakRef(owner);
    this.#handlers.set(sourceId, () => {
      const live = held.deref();
      if (live !== undefined) handler(live);
    });
    this.#collected.register(owner, sourceId);
  }

  /**
   * Something that `owner` hears of is on its way, and somebody waits for it: until `letGo` it is not collected, and the event loop
   * does not end. Who waits for a promise holds nothing that would make it resolve. Counted.
   */
  hold(owner: object): void {
    this.#held.set(owner, (this.#held.get(owner) ?? 0) + 1);
    this.runtime.ref();
  }

  letGo(owner: object): void {
    const left = this.#held.get(owner)! - 1;
    if (left === 0) this.#held.delete(owner);
    else this.#held.set(owner, left);
    this.runtime.unref();
  }

  unregister(sourceId: number): void {
    this.#handlers.delete(sourceId);
  }

  /** Serves the queue until it is empty or the event loop is due its turn. The doorbell calls it. */
  dispatch(): void {
    const runtime = this.#runtime;
    // A handler that runs the event loop itself must not find itself here again.
    if (!runtime || this.#dispatching) return;
    this.#dispatching = true;
    if (this.#continuation) clearImmediate(this.#continuation);
    this.#continuation = undefined;
    const mayPoll = this.#pollNs > 0;
    // Where nobody polls the clock is not needed before there is much to serve.
    let startedNs = mayPoll ? hrtime.bigint() : 0n;
    if (startedNs - this.#endedNs < NEAR_NS) this.#misses = 0;
    let served = 0;
    try {
      let source = runtime.next(0);
      while (source !== 0) {
        this.#handlers.get(source)?.();
        if (++served % SOURCES_PER_CLOCK === 0) {
          const nowNs = hrtime.bigint();
          if (startedNs === 0n) startedNs = nowNs;
          if (nowNs - startedNs > TURN_NS) {
            this.#continueLater();
            return;
          }
        }
        const poll = this.#misses < MISSES_BEFORE_REST ? this.#pollNs : 0;
        source = runtime.next(poll);
        if (poll > 0) this.#misses = source === 0 ? this.#misses + 1 : 0;
      }
      if (mayPoll) this.#endedNs = hrtime.bigint();
    } catch (error) {
      // A handler that throws is a bug of ours; the queue must be served all the same.
      this.#continueLater();
      throw error;
    } finally {
      this.#dispatching = false;
    }
  }

  #continueLater(): void {
    this.#continuation = setImmediate(() => this.dispatch());
  }
}
