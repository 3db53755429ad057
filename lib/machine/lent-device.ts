/**
 * A device of the host, lent to the guest, as its machine's user holds it: one interface over the providers of all
 * classes. What a class does not have is refused here; everything else is the provider's.
 */
import { AbortError, VmmError } from '../base/errors.js';
import { checkInteger, checkOptionNames } from '../base/options.js';
import type { BlockProvider, BlockSource, ConsolePort, ConsoleSize, ConsoleSource } from '../vsp/index.js';
import type { DeviceContract, EntropyProvider, EntropySource, RebindOptions, RebindReport } from '../vsp/index.js';
import type { NetLimiter, NetOpenContext, NetProvider, NetSource } from '../vsp/index.js';

/** What any lent device can stand on. */
export type DeviceSource = BlockSource | NetSource | ConsoleSource | EntropySource;

/** What `refresh` found: a disk's size, or the size of the terminal behind a console port that has one. */
export interface RefreshReport {
  readonly sizeBytes?: number;
  readonly terminal?: ConsoleSize;
}

/** `vm.device(id)` */
export interface LentDevice {
  readonly id: string;
  /** Its functions: by whom they are done, how often, at what cost; and the backend. */
  readonly contract: DeviceContract;
  /**
   * Another backend of its class from now on, while the guest runs and has requests in flight. A refusal leaves the old
   * one serving. `allowLarger`, `acceptLoss` and `maxHoldMs` are for disks: the other classes hold no requests.
   *
   * A nic's link stays as it is for the guest, and frames that wait for it stay; those under way in the old network are lost.
   *
   * @throws TypeError for a backend of another class; VmmError ERR_DISK_IMAGE, ERR_DISK_LOCKED, ERR_DEVICE, ERR_TIMEOUT,
   *   ERR_STATE, ERR_CLOSED, ERR_SYSTEM; AbortError.
   */
  rebind(backend: DeviceSource, options?: RebindOptions): Promise<RebindReport>;
  /** Looks whether the backend has another size, and tells the guest. @throws VmmError */
  refresh(): Promise<RefreshReport>;
  /**
   * Sets the size of the terminal that a console port is, where its backend has none of its own.
   *
   * @throws TypeError on a device of another class, RangeError for a size that is none.
   */
  resize(size: ConsoleSize): void;
  /** Takes a nic's link down or up: the guest is told, and nothing passes while it is down. @throws TypeError on another class */
  setLink(up: boolean): void;
}

export function lentDisk(disk: BlockProvider): LentDevice {
  return {
    id: disk.id,
    get contract() {
      return disk.contract;
    },
    rebind: async (backend, options) => {
      requireClass(disk.id, 'block', backend);
      checkOptionNames('rebind', options ?? {}, REBIND_OPTIONS);
      return disk.rebind(backend, options);
    },
    refresh: async () => ({ sizeBytes: (await disk.refreshGeometry()).sizeBytes }),
    resize: () => refuseResize(disk.id, 'block'),
    setLink: () => refuseLink(disk.id, 'block'),
  };
}

/** `limiter`: what every network of the device is put behind. */
export function lentNic(nic: NetProvider, context: Omit<NetOpenContext, 'signal'>, limiter?: NetLimiter): LentDevice {
  return {
    id: nic.id,
    get contract() {
      return { ...nic.contract, ...(limiter && { limits: limiter.limits }) };
    },
    rebind: async (source, options) => {
      requireClass(nic.id, 'network', source);
      const opened = {
        describe: () => source.describe(),
        open: async () => {
          const backend = await source.open({ ...context, signal: options?.signal });
          return limiter?.around(backend) ?? backend;
        },
      };
      return change(opened, options, nic, (backend) => nic.rebind(backend));
    },
    refresh: () => Promise.resolve({}),
    resize: () => refuseResize(nic.id, 'network'),
    setLink: (up) => {
      if (typeof up !== 'boolean') throw new TypeError('setLink: true or false is wanted');
      nic.setLink(up);
    },
  };
}

export function lentConsolePort(id: string, port: ConsolePort): LentDevice {
  return {
    id,
    get contract() {
      return port.contract;
    },
    rebind: async (source, options) => {
      requireClass(id, 'console', source);
      return change(source, options, port, (backend) => port.rebind(backend));
    },
    refresh: () => {
      const terminal = port.refreshSize();
      return Promise.resolve(terminal === undefined ? {} : { terminal });
    },
    resize: (size) => {
      checkOptionNames('resize', size, ['columns', 'rows']);
      const { columns, rows } = size;
      port.resize({
        columns: checkInteger('columns', columns, 1, 0xffff),
        rows: checkInteger('rows', rows, 1, 0xffff),
      });
    },
    setLink: () => refuseLink(id, 'console'),
  };
}

export function lentEntropy(entropy: EntropyProvider): LentDevice {
  return {
    id: entropy.id,
    get contract() {
      return entropy.contract;
    },
    rebind: async (source, options) => {
      requireClass(entropy.id, 'entropy', source);
      return change(source, options, entropy, (backend) => entropy.rebind(backend));
    },
    refresh: () => Promise.resolve({}),
    resize: () => refuseResize(entropy.id, 'entropy'),
    setLink: () => refuseLink(entropy.id, 'entropy'),
  };
}

const REBIND_OPTIONS = ['signal', 'refuse', 'allowLarger', 'acceptLoss', 'maxHoldMs'];

const CLASSES = { block: 'a disk', network: 'a network', console: 'a console', entropy: 'a generator' };

function requireClass<C extends DeviceSource['class']>(
  id: string,
  wanted: C,
  source: DeviceSource,
): asserts source is Extract<DeviceSource, { class: C }> {
  if ((source as DeviceSource | undefined)?.class === wanted) return;
  throw new TypeError(`rebind of '${id}': ${CLASSES[wanted]} is wanted as its backend`);
}

function refuseResize(id: string, ofClass: DeviceSource['class']): never {
  throw new TypeError(`'${id}' is ${CLASSES[ofClass]}: only a console port has a terminal's size`);
}

function refuseLink(id: string, ofClass: DeviceSource['class']): never {
  throw new TypeError(`'${id}' is ${CLASSES[ofClass]}: only a nic has a link`);
}

/** The change where no request is held: the new backend is opened, asked for, and takes over. */
async function change<Backend extends { close(): Promise<void> }>(
  source: { open(): Backend | Promise<Backend>; describe(): DeviceContract['backend'] },
  options: RebindOptions = {},
  device: { readonly contract: DeviceContract },
  takeOver: (backend: Backend) => Promise<void>,
): Promise<RebindReport> {
  checkOptionNames('rebind', options, REBIND_OPTIONS);
  const { signal, refuse } = options;
  throwIfAborted(signal);
  const reason = refuse?.(device.contract.backend, source.describe());
  if (reason !== undefined) throw new VmmError('ERR_STATE', `rebind refused: ${reason}`);
  const backend = await source.open();
  try {
    throwIfAborted(signal);
    await takeOver(backend);
  } catch (error) {
    await backend.close();
    throw error;
  }
  return { holdNs: 0, drainNs: 0, held: 0 };
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new AbortError(signal);
}
