/**
 * The change of a device's backend while requests are in flight.
 *
 *   open and check the new one, flush the old one    old one serves; a refusal or an abort ends here
 *   hold new requests, drain what is in flight, flush the old one again if it writes behind
 *                                                    bounded by maxHoldMs, both together
 *   deactivate the old one, activate the new one     a failure refuses the change: held requests go on on the old one
 *   switch; held requests go on, in order            no way back from here
 *   flush the old one if it was not yet              the guest's flushes wait for it (owed-flush.ts)
 *   close the old one
 *
 * A flush of the old one that fails refuses the change, unless the caller accepts the loss: then the old one is left as it
 * is, writes nothing more, and the guest's next flush fails, as it does on a disk that loses what its cache held.
 */
import type { Clock } from '../../base/clock.js';
import { AbortError, VmmError } from '../../base/errors.js';
import type { Logger } from '../../base/logger.js';
import type { BackendDescription } from '../contract.js';
import { waitFor } from '../deadline.js';
import type { BlockBackend, BlockError } from './contract.js';
import type { RequestGate } from './gate.js';
import type { BlockSource } from './source.js';

export interface RebindOptions {
  readonly signal?: AbortSignal | undefined;
  /** A larger backend is taken, and the guest told of the new size. Default: only one of the same size. */
  readonly allowLarger?: boolean | undefined;
  /**
   * The identity policy: answers with a reason to refuse the new backend, or undefined. Whether it has the same data
   * is for the caller to know; the size is checked anyway.
   */
  readonly refuse?: ((old: BackendDescription, next: BackendDescription) => string | undefined) | undefined;
  /**
   * The old backend is left even when it can't be flushed, as one on a dying disk can't: what the guest has written since
   * its last good flush may be lost, which its next flush reports. Default: that refuses the change.
   */
  readonly acceptLoss?: boolean | undefined;
  /**
   * How long requests may be held, in milliseconds, before the change is given up: one deadline for what is in flight and
   * the flush behind it. What follows, the old backend's deactivate() and the new one's activate(), is outside it: it is
   * waited for, however long it takes. Default 10 000.
   */
  readonly maxHoldMs?: number | undefined;
}

/** What a change cost. */
export interface RebindReport {
  /** From the first moment at which requests were held until they went on. */
  readonly holdNs: number;
  /** Of it, until nothing was in flight any more. */
  readonly drainNs: number;
  /** Requests that were held. */
  readonly held: number;
  /** With `acceptLoss`: why the old backend could not be flushed, where it could not. */
  readonly lost?: string;
}

/** The provider, as far as a change of its backend needs it. */
export interface RebindHost {
  readonly id: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly gate: RequestGate<unknown>;
  /** The size that the guest knows. */
  sizeBytes(): number;
  /** The backend itself has the guest's changes. */
  readonly writesToBackend: boolean;
  backend(): BlockBackend;
  open(source: BlockSource, signal: AbortSignal | undefined): Promise<BlockBackend>;
  /** The new backend serves from now on. */
  adopt(backend: BlockBackend): void;
  /** Flushes the one before; the guest's flushes wait for it. Resolves at its end. */
  owe(backend: BlockBackend): Promise<BlockError | undefined>;
  /** The guest's next flush fails with it. */
  lose(error: BlockError): void;
}

const DEFAULT_MAX_HOLD_MS = 10_000;

/** @throws VmmError of what refused it, AbortError; the old backend then serves as before. */
export async function changeBackend(
  host: RebindHost,
  source: BlockSource,
  options: RebindOptions = {},
): Promise<RebindReport> {
  const { signal, maxHoldMs = DEFAULT_MAX_HOLD_MS } = options;
  if (signal?.aborted) throw new AbortError(signal);
  const next = await host.open(source, signal);
  const old = host.backend();
  const report = { holdNs: 0, drainNs: 0, held: 0 };
  let lost: BlockError | undefined;
  let owed: Promise<BlockError | undefined> | undefined;
  try {
    check(host, old, next, options);
    // Most of what has to be durable is so before anything stands still.
    const flushes = host.writesToBackend && old.flush !== undefined;
    const flushLimits = { clock: host.clock, signal, what: `disk ${host.id}: flush of the old backend` };
    const acceptsLoss = options.acceptLoss === true;
    if (flushes) lost = await waitFor(flushed(host, old, acceptsLoss), flushLimits);
    if (signal?.aborted) throw new AbortError(signal);
    const startNs = host.clock.nowNs();
    const sinceNs = (): number => Number(host.clock.nowNs() - startNs);
    host.gate.hold();
    old.hurry?.();
    try {
      const maxNs = BigInt(Math.round(maxHoldMs * 1e6));
      const what = `disk ${host.id}: requests in flight`;
      await waitFor(host.gate.drained(), { clock: host.clock, signal, maxNs, what });
      report.drainNs = sinceNs();
      if (flushes && old.writesBehind === true && lost === undefined) {
        const leftNs = startNs + maxNs - host.clock.nowNs();
        const inTime = {
          maxNs: leftNs > 0n ? leftNs : 0n,
          what: `${flushLimits.what}, of ${maxHoldMs} ms with the drain`,
        };
        lost = await waitFor(flushed(host, old, acceptsLoss), { ...flushLimits, ...inTime });
      }
      // Neither to be left half way: they are waited for.
      if (host.writesToBackend && lost === undefined) await old.deactivate?.();
      await next.activate?.();
      check(host, old, next, options);
      if (signal?.aborted) throw new AbortError(signal);
      host.adopt(next);
      if (lost !== undefined) {
        old.abandon?.();
        host.lose(lost);
      } else if (flushes && old.writesBehind !== true) {
        owed = host.owe(old);
      }
    } finally {
      report.held = host.gate.held;
      report.holdNs = sinceNs();
      host.gate.release();
    }
  } catch (error) {
    await close(host, next);
    throw error;
  }
  const error = await owed;
  const failure = lost ?? error;
  if (failure) host.logger.log('error', `disk ${host.id}: the backend before could not be flushed`, { error: failure });
  await close(host, old);
  return lost === undefined ? report : { ...report, lost: lost.message };
}

function check(host: RebindHost, old: BlockBackend, next: BlockBackend, options: RebindOptions): void {
  const has = next.geometry.sizeBytes;
  const wanted = host.sizeBytes();
  let reason: string | undefined;
  if (has < wanted || (has > wanted && options.allowLarger !== true)) {
    reason = `the new backend has ${has} bytes, the device ${wanted}`;
  } else {
    reason = options.refuse?.(old.describe(), next.describe());
  }
  if (reason !== undefined) throw new VmmError('ERR_DISK_IMAGE', `disk ${host.id}: rebind refused: ${reason}`);
}

/** Why a flush failed, where that is accepted. @throws VmmError ERR_DISK_IMAGE where it is not. */
function flushed(host: RebindHost, backend: BlockBackend, acceptsLoss: boolean): Promise<BlockError | undefined> {
  return new Promise((resolve, reject) => {
    backend.flush!((error: BlockError | undefined) => {
      if (error === undefined || acceptsLoss) return resolve(error);
      const message = `disk ${host.id}: rebind refused: the old backend can't be flushed: ${error.message}`;
      const cure = 'acceptLoss: true leaves it all the same; what was written since the last good flush may be lost';
      reject(new VmmError('ERR_DISK_IMAGE', message, { cause: error, cure }));
    });
  });
}

/** The switch is decided by then: what fails here is only told to the log. */
async function close(host: RebindHost, backend: BlockBackend): Promise<void> {
  try {
    await backend.close();
  } catch (error) {
    host.logger.log('warn', `disk ${host.id}: a backend failed to close`, { error, backend: backend.describe() });
  }
}
