/** The disks of a machine as its user writes them, and the checks on them before anything is opened. */
import { checkInteger, checkOptionNames } from '../base/options.js';
import { parseSize } from '../base/units.js';
import { type BlockSource, checkTrafficLimits, type TrafficLimits } from '../vsp/index.js';
import { DeviceIds } from './device-ids.js';

export interface DiskOptions {
  /** Names it in `vm.device(id)`; unique in the machine: letters, digits, '.', '_' and '-', at most 20. */
  readonly id: string;
  /** What it stands on: `fileDisk(path)`, `qcow2Disk(path)`, `memoryDisk(size)`, `faultyDisk(disk, plan)`. */
  readonly backend: BlockSource;
  /** The guest may only read. Default false. */
  readonly readOnly?: boolean;
  /**
   * The backend is only read, and what the guest writes is kept in memory until the machine is closed: at most this
   * much, bytes or text such as '1GiB'. Default: the guest writes to the backend.
   */
  readonly copyOnWrite?: number | string;
  /**
   * What the guest may do at most, over whatever backend: operations and bytes a second. Beyond it requests wait. A discard has no bytes.
   * Default: no limit.
   */
  readonly limits?: TrafficLimits;
}

/** Checked. */
export interface DiskConfig {
  readonly id: string;
  readonly backend: BlockSource;
  readonly readOnly: boolean;
  readonly copyOnWriteBytes: number | undefined;
  readonly limits?: TrafficLimits | undefined;
}

/** Slots of the PCI bus beside the host bridge. */
const MAX_DISKS = 31;

/** @throws TypeError for wrong names and types, RangeError for values out of bounds and for an id that comes twice. */
export function checkDisks(disks: unknown, ids = new DeviceIds()): DiskConfig[] {
  if (!Array.isArray(disks)) throw new TypeError('disks: an array is wanted');
  checkInteger('disks.length', disks.length, 0, MAX_DISKS);
  return (disks as DiskOptions[]).map((disk, index) => {
    const name = `disks[${index}]`;
    if (typeof disk !== 'object' || disk === null) throw new TypeError(`${name}: { id, backend } is wanted`);
    checkOptionNames(name, disk, ['id', 'backend', 'readOnly', 'copyOnWrite', 'limits']);
    const { backend, readOnly = false, copyOnWrite, limits } = disk;
    const id = ids.claim(`${name}.id`, disk.id);
    if (typeof backend !== 'object' || (backend as BlockSource | null)?.class !== 'block') {
      throw new TypeError(`${name}.backend: a disk is wanted, such as fileDisk(path)`);
    }
    if (typeof readOnly !== 'boolean') throw new TypeError(`${name}.readOnly: true or false is wanted`);
    if (readOnly && copyOnWrite !== undefined) {
      throw new RangeError(`${name}: readOnly and copyOnWrite together make no sense: there is nothing to keep`);
    }
    const copyOnWriteBytes = copyOnWrite === undefined ? undefined : parseSize(copyOnWrite, `${name}.copyOnWrite`);
    if (limits !== undefined) checkTrafficLimits(`${name}.limits`, limits);
    return { id, backend, readOnly, copyOnWriteBytes, limits };
  });
}
