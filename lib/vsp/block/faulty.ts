/**
 * `faultyDisk(disk, plan)`: another disk with faults, delays, larger blocks, or fewer native functions. For tests: of
 * guests on a failing disk, and of the emulation, which has to make good for what is switched off.
 * It checks that the provider keeps the contract: a request that is not in whole blocks or is empty fails with 'corrupt'.
 */
import { hostClock, type Clock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { alignDown } from '../../base/units.js';
import type { IoVector } from '../../memory/io-vector.js';
import type { BackendDescription } from '../contract.js';
import { SECTOR_BYTES, type BlockBackend, type BlockDone, type BlockFunction, type BlockGeometry } from './contract.js';
import { blockError } from './errors.js';
import { checkFaultPlan, FaultRules, type FaultPlan, type FaultyFunction } from './fault-plan.js';
import type { BlockSource } from './source.js';
import type { FrozenUnits } from './unit-store.js';

/**
 * A disk that does what `plan` says with each request, and hands the rest on to `disk`.
 *
 * @throws TypeError, RangeError for a plan that makes no sense.
 * @example
 * // The third write fails, every read is 1 ms late, and there is no native discard.
 * faultyDisk(fileDisk('root.img'), {
 *   without: ['discard'],
 *   rules: [
 *     { on: 'write', nth: 3, fault: { error: 'io' } },
 *     { on: 'read', fault: { delayNs: 1_000_000n } },
 *   ],
 * });
 */
export function faultyDisk(disk: BlockSource, plan: FaultPlan): BlockSource {
  checkFaultPlan(plan);
  return {
    class: 'block',
    describe: () => ({ kind: 'faulty', disk: disk.describe() }),
    ...(disk.overlay && {
      overlay: (file) => {
        const inner = disk.overlay!(file);
        return { ...inner, source: faultyDisk(inner.source, plan) };
      },
    }),
    async open(context) {
      const lower = await disk.open(context);
      const { sizeBytes } = lower.geometry;
      const blockBytes = Math.max(plan.blockBytes ?? SECTOR_BYTES, lower.geometry.blockBytes);
      if (sizeBytes % blockBytes === 0) return new FaultyBackend(lower, plan, blockBytes);
      await lower.close();
      throw new VmmError('ERR_DISK_IMAGE', `faulty disk: ${sizeBytes} bytes are no whole blocks of ${blockBytes}`);
    },
  };
}

/** Does the request, or the first `lengthBytes` of it. */
type Doing = (lengthBytes: number, done: BlockDone) => void;

class FaultyBackend implements BlockBackend {
  onGeometry: ((geometry: BlockGeometry) => void) | undefined;
  readonly writesBehind: boolean | undefined;
  readonly write?: (offset: number, data: IoVector, done: BlockDone) => void;
  readonly flush?: (done: BlockDone) => void;
  readonly discard?: (offset: number, lengthBytes: number, done: BlockDone) => void;
  readonly writeZeroes?: (offset: number, lengthBytes: number, mayUnmap: boolean, done: BlockDone) => void;
  readonly hurry?: () => void;
  readonly identify?: () => string;
  readonly refreshGeometry?: () => Promise<BlockGeometry>;
  readonly activate?: () => Promise<void>;
  readonly deactivate?: () => Promise<void>;
  readonly abandon?: () => void;
  readonly freeze?: () => FrozenUnits;
  readonly #lower: BlockBackend;
  readonly #plan: FaultPlan;
  readonly #rules: FaultRules;
  readonly #clock: Clock;
  readonly #blockBytes: number;

  constructor(lower: BlockBackend, plan: FaultPlan, blockBytes: number) {
    this.#lower = lower;
    this.writesBehind = lower.writesBehind;
    this.#plan = plan;
    this.#rules = new FaultRules(plan.rules ?? []);
    this.#clock = plan.clock ?? hostClock;
    this.#blockBytes = blockBytes;
    const has = (name: BlockFunction): boolean =>
      !(plan.without as readonly BlockFunction[] | undefined)?.includes(name);
    if (lower.write && has('write')) {
      this.write = (offset, data, done) =>
        this.#do('write', offset, data.lengthBytes, done, (length, next) => {
          lower.write!(offset, data.slice(0, length), next);
        });
      if (lower.discard && has('discard')) {
        this.discard = (offset, lengthBytes, done) =>
          this.#do('discard', offset, lengthBytes, done, (length, next) => lower.discard!(offset, length, next));
      }
      if (lower.writeZeroes && has('write-zeroes')) {
        this.writeZeroes = (offset, lengthBytes, mayUnmap, done) =>
          this.#do('write-zeroes', offset, lengthBytes, done, (length, next) => {
            lower.writeZeroes!(offset, length, mayUnmap, next);
          });
      }
    }
    if (lower.flush && has('flush')) {
      this.flush = (done) => this.#do('flush', 0, 0, done, (_length, next) => lower.flush!(next));
    }
    if (lower.identify && has('identify')) this.identify = () => lower.identify!();
    if (lower.hurry) this.hurry = () => lower.hurry!();
    if (lower.activate) this.activate = () => lower.activate!();
    if (lower.deactivate) this.deactivate = () => lower.deactivate!();
    if (lower.freeze) this.freeze = () => lower.freeze!();
    if (lower.abandon) this.abandon = () => lower.abandon!();
    if (lower.refreshGeometry && has('resize')) {
      this.refreshGeometry = async () => this.#shown(await lower.refreshGeometry!());
    }
    if (has('resize')) lower.onGeometry = (geometry) => this.onGeometry?.(this.#shown(geometry));
  }

  get geometry(): BlockGeometry {
    return this.#shown(this.#lower.geometry);
  }

  read(offset: number, data: IoVector, done: BlockDone): void {
    this.#do('read', offset, data.lengthBytes, done, (length, next) => {
      this.#lower.read(offset, data.slice(0, length), next);
    });
  }

  describe(): BackendDescription {
    return { kind: 'faulty', disk: this.#lower.describe() };
  }

  close(): Promise<void> {
    this.#lower.onGeometry = undefined;
    return this.#lower.close();
  }

  #shown(geometry: BlockGeometry): BlockGeometry {
    const blockBytes = this.#blockBytes;
    if (this.#plan.without?.includes('topology')) {
      return { sizeBytes: geometry.sizeBytes, blockBytes, physicalBlockBytes: blockBytes, optimalIoBytes: 0 };
    }
    return { ...geometry, blockBytes, physicalBlockBytes: Math.max(blockBytes, geometry.physicalBlockBytes) };
  }

  #do(name: FaultyFunction, offset: number, lengthBytes: number, done: BlockDone, doing: Doing): void {
    if (name !== 'flush' && (lengthBytes === 0 || offset % this.#blockBytes || lengthBytes % this.#blockBytes)) {
      done(blockError('corrupt', `${name} of ${lengthBytes} bytes at ${offset} on blocks of ${this.#blockBytes}`));
      return;
    }
    const fault = this.#rules.decide(name, offset, lengthBytes);
    if (fault === undefined) doing(lengthBytes, done);
    else if ('delayNs' in fault) this.#clock.setTimer(fault.delayNs, () => doing(lengthBytes, done));
    else if ('error' in fault) done(blockError(fault.error, `${name} at ${offset} fails as planned`));
    else {
      const stopped = blockError('io', `${name} at ${offset} stops after ${fault.stopAfterBytes} bytes as planned`);
      const first = alignDown(Math.min(fault.stopAfterBytes, lengthBytes), this.#blockBytes);
      if (first === 0 || (name !== 'read' && name !== 'write')) done(stopped);
      else doing(first, (error) => done(error ?? stopped));
    }
  }
}
