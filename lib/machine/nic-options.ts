/** The network interfaces of a machine as its user writes them, and the checks on them before anything is opened. */
import { checkInteger, checkOptionNames } from '../base/options.js';
import {
  checkDirectionLimits,
  type DirectionLimits,
  isGroupMac,
  type NetSource,
  parseMac,
  type TrafficLimits,
} from '../vsp/index.js';
import { DeviceIds } from './device-ids.js';

export interface NicOptions {
  /** Names it in `vm.device(id)`; unique in the machine: letters, digits, '.', '_' and '-', at most 20. */
  readonly id: string;
  /** What it stands on: `tap(name)`, `passt(options)`, `networkSwitch(name)`, or `recordedNetwork` around one. */
  readonly backend: NetSource;
  /**
   * Its address, such as '02:00:00:00:00:01', not one of a group. Default: the same each time for this user, the machine's
   * name and the id, unless another machine of this user that is open has it: then the next one.
   */
  readonly mac?: string;
  /** The most bytes behind the header of a frame, 68 to 65521, at most what the backend has. Default: the backend's. */
  readonly mtuBytes?: number;
  /**
   * What may pass at most, over whatever network: packets (as operations) and bytes a second, one for both directions, of which each
   * has the whole, or `send` and `receive`, as the guest sees them. Default: no limit.
   */
  readonly limits?: TrafficLimits | DirectionLimits;
}

/** Checked. */
export interface NicConfig {
  readonly id: string;
  readonly backend: NetSource;
  /** A number of 48 bits; undefined for the default. */
  readonly mac: number | undefined;
  readonly mtuBytes: number | undefined;
  readonly limits?: DirectionLimits | undefined;
}

/** Slots of the PCI bus beside the host bridge. */
const MAX_NICS = 31;

/** @throws TypeError for wrong names and types, RangeError for values out of bounds, an id or an address that comes twice. */
export function checkNics(nics: unknown, ids = new DeviceIds()): NicConfig[] {
  if (!Array.isArray(nics)) throw new TypeError('nics: an array is wanted');
  checkInteger('nics.length', nics.length, 0, MAX_NICS);
  const seen = new Set<number>();
  return (nics as NicOptions[]).map((nic, index) => {
    const name = `nics[${index}]`;
    if (typeof nic !== 'object' || nic === null) throw new TypeError(`${name}: { id, backend } is wanted`);
    checkOptionNames(name, nic, ['id', 'backend', 'mac', 'mtuBytes', 'limits']);
    const id = ids.claim(`${name}.id`, nic.id);
    const { backend, mtuBytes } = nic;
    if (typeof backend !== 'object' || (backend as NetSource | null)?.class !== 'network') {
      throw new TypeError(`${name}.backend: a network is wanted, such as networkSwitch(name)`);
    }
    const mac = nic.mac === undefined ? undefined : checkMac(`${name}.mac`, nic.mac);
    if (mac !== undefined) {
      if (seen.has(mac)) throw new RangeError(`${name}.mac: ${String(nic.mac)} is the address of another nic too`);
      seen.add(mac);
    }
    if (mtuBytes !== undefined) checkInteger(`${name}.mtuBytes`, mtuBytes, 68, 65521);
    const limits = nic.limits === undefined ? undefined : checkDirectionLimits(`${name}.limits`, nic.limits);
    return { id, backend, mac, mtuBytes, limits };
  });
}

function checkMac(name: string, text: unknown): number {
  const mac = typeof text === 'string' ? parseMac(text) : undefined;
  if (mac === undefined) {
    throw new TypeError(`${name}: ${JSON.stringify(text)} is no address; one such as '02:00:00:00:00:01' is wanted`);
  }
  if (mac === 0) throw new RangeError(`${name}: ${String(text)} is the address of nobody`);
  if (isGroupMac(mac)) {
    throw new RangeError(`${name}: ${String(text)} is the address of a group: the first byte must be even`);
  }
  return mac;
}
