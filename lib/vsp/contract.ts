/**
 * What every device class has in common: a guest is offered one whole set of functions, each of them done by the
 * backend (native, through the HAL) or by us (emulated, by the HEL); and what of it is reported for each device.
 * The provider of a class computes the set when the device is made and freezes it: a later backend changes who does a
 * function, never which there are.
 */

import type { DirectionLimits, TrafficLimits } from './sharing/budget.js';

export type ServedBy = 'native' | 'emulated';

/** One function of a device since it was made. */
export interface FunctionReport {
  readonly by: ServedBy;
  /** Calls that have ended, well or not. */
  readonly calls: number;
  /** Of these, how many ended with an error. */
  readonly errors: number;
  /** Time between call and completion of all of them, in ns. */
  readonly ns: number;
  /** Data of all that have gone well, either way; missing where there was none. */
  readonly bytes?: number;
}

/** `vm.device(id).contract` */
export interface DeviceContract {
  readonly class: 'block' | 'console' | 'entropy' | 'network';
  readonly functions: Readonly<Record<string, FunctionReport>>;
  /** The backend: its kind, and what tells it from others of that kind. */
  readonly backend: BackendDescription;
  /** How often the backend was changed. */
  readonly rebinds: number;
  /** What the guest may do with it over time, whatever the backend; a network's are those of each direction. Missing: no limit. */
  readonly limits?: TrafficLimits | DirectionLimits | undefined;
}

export interface BackendDescription {
  /** 'file', 'qcow2', 'memory', 'unix-socket', ... */
  readonly kind: string;
  readonly [detail: string]: string | number | boolean | BackendDescription | undefined;
}
