/**
 * Bringing all lent devices to rest for a snapshot: each completes or parks what it was asked for, all at the same time and
 * each within a deadline. When one refuses or is late, those that were ready go on, and the error names it: the guest goes
 * on as before. A late one that becomes ready after all is let go at once.
 *
 *   running --prepare() of all--> at rest --resume()--> running
 *                             \--one refuses, is late, or an abort--> all resumed, ERR_SNAPSHOT_REFUSED | ERR_ABORTED
 */
import { setMaxListeners } from 'node:events';
import type { Clock } from '../base/clock.js';
import { AbortError, VmmError } from '../base/errors.js';
import { waitFor } from './deadline.js';

export interface PrepareOptions {
  /** By the device's clock; missing: any time. */
  readonly deadlineNs?: bigint | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A device, or what carries it, as the coordinator knows it. */
export interface Quiescable {
  /** As the user named it, with what it is: 'disk root'. */
  readonly title: string;
  /**
   * From when it resolves until resume(), nothing of the device writes guest memory or changes what it would save; what the
   * guest asks for waits, or is parked. A rejection is a veto, and leaves the device running.
   */
  prepare(options?: PrepareOptions): Promise<void>;
  /** The end of prepare(); nothing happens without one. Never throws. */
  resume(): void;
}

export interface QuiesceOptions {
  readonly clock: Clock;
  /** For each device. Default 10 s, as long as a rebind may hold a disk. */
  readonly maxNs?: bigint | undefined;
  readonly signal?: AbortSignal | undefined;
}

const DEFAULT_MAX_NS = 10_000_000_000n;
/** From a device's own deadline, at which it says what it waits for, to ours. */
const GRACE_NS = 100_000_000n;

/**
 * Resolves when every device is at rest.
 *
 * @returns what lets all of them go on, in the reverse order; it may be called more than once.
 * @throws VmmError ERR_SNAPSHOT_REFUSED naming the device, with its reason as the cause; AbortError.
 */
export async function quiesce(devices: readonly Quiescable[], options: QuiesceOptions): Promise<() => void> {
  const { clock, maxNs = DEFAULT_MAX_NS, signal } = options;
  if (signal?.aborted === true) throw new AbortError(signal);
  // One that refuses at once need not wait for the others, but they have to have ended before they are resumed.
  const others = new AbortController();
  // Each device listens more than once, and Node warns of more than ten.
  setMaxListeners(0, others.signal);
  let failure: Error | undefined;
  const end = (): void => {
    failure ??= new AbortError(signal);
    others.abort();
  };
  signal?.addEventListener('abort', end, { once: true });
  const deadlineNs = clock.nowNs() + maxNs;
  const results = await Promise.all(
    devices.map((device) =>
      prepared(device, { clock, maxNs, deadlineNs, signal: others.signal }).then(
        () => true,
        (error: unknown) => {
          failure ??= error as VmmError;
          others.abort();
          return false;
        },
      ),
    ),
  );
  signal?.removeEventListener('abort', end);
  const ready = devices.filter((_device, index) => results[index]);
  const resume = (): void => {
    for (const device of ready.splice(0).reverse()) device.resume();
  };
  if (failure === undefined) return resume;
  resume();
  throw failure;
}

/** @throws VmmError ERR_SNAPSHOT_REFUSED, AbortError. */
async function prepared(
  device: Quiescable,
  limits: { clock: Clock; maxNs: bigint; deadlineNs: bigint; signal: AbortSignal },
): Promise<void> {
  const { clock, maxNs, deadlineNs, signal } = limits;
  const preparing = (async () => device.prepare({ deadlineNs, signal }))();
  try {
    await waitFor(preparing, { clock, maxNs: maxNs + GRACE_NS, signal, what: device.title });
  } catch (cause) {
    // It is given up; should it become ready after all, nobody else would let it go.
    preparing.then(
      () => device.resume(),
      () => undefined,
    );
    if (cause instanceof AbortError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new VmmError('ERR_SNAPSHOT_REFUSED', `${device.title} can't be saved now: ${why}`, { cause });
  }
}
