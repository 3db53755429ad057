/** The entropy device of a machine as its user writes it, and the checks on it before anything is opened. */
import { checkInteger, checkOptionNames } from '../base/options.js';
import { type EntropyRate, type EntropySource, hostEntropy } from '../vsp/index.js';
import { DeviceIds } from './device-ids.js';

export interface EntropyOptions {
  /** Names it in `vm.device(id)`; unique in the machine. Default 'entropy'. */
  readonly id?: string;
  /** Default: `hostEntropy()`. */
  readonly backend?: EntropySource;
  /** What the guest gets in the long run. Default 1 MiB. */
  readonly bytesPerSecond?: number;
  /** What it may have at once after a pause. Default 64 KiB. */
  readonly burstBytes?: number;
}

/** Checked. */
export interface EntropyConfig {
  readonly id: string;
  readonly backend: EntropySource;
  readonly rate: EntropyRate;
}

/** @throws TypeError for wrong names and types, RangeError for values out of bounds and for another device's id. */
export function checkEntropy(entropy: unknown, ids = new DeviceIds()): EntropyConfig | undefined {
  if (entropy === false) return undefined;
  if (entropy !== true && (typeof entropy !== 'object' || entropy === null)) {
    throw new TypeError('entropy: true, false or { id, backend, bytesPerSecond, burstBytes } is wanted');
  }
  const options: EntropyOptions = entropy === true ? {} : entropy;
  checkOptionNames('entropy', options, ['id', 'backend', 'bytesPerSecond', 'burstBytes']);
  const id = ids.claim('entropy.id', options.id ?? 'entropy');
  const { backend = hostEntropy(), bytesPerSecond, burstBytes } = options;
  if (typeof backend !== 'object' || (backend as EntropySource | null)?.class !== 'entropy') {
    throw new TypeError('entropy.backend: a generator is wanted, such as hostEntropy()');
  }
  const limit = (name: string, value: number | undefined): number | undefined =>
    value === undefined ? undefined : checkInteger(`entropy.${name}`, value, 1, Number.MAX_SAFE_INTEGER);
  const rate = {
    bytesPerSecond: limit('bytesPerSecond', bytesPerSecond),
    burstBytes: limit('burstBytes', burstBytes),
  };
  return { id, backend, rate };
}
