/**
 * What a machine is made of, as its user writes it, and the checks on it: names, types and bounds, before any
 * descriptor is opened. A mistake here is a TypeError or a RangeError that names the option.
 */
import { totalmem } from 'node:os';
import { isMachineName, MACHINE_NAME_RULE } from '../base/machine-name.js';
import { checkInteger, checkOptionNames } from '../base/options.js';
import { silentLogger, type Logger } from '../base/logger.js';
import { formatSize, MiB, PAGE_SIZE, parseSize } from '../base/units.js';
import { hostClock, type Clock } from '../base/clock.js';
import { KERNEL_ENTRIES, type BootImage } from '../boot/index.js';
import type { BusDevice } from '../bus/index.js';
import { checkPitOptions, type PitOptions } from '../time/index.js';
import type { VirtioDevice } from '../vdp/index.js';
import { checkDeviceOptions, type DeviceConfigs, type DeviceOptions } from './device-options.js';

export interface MachineOptions extends DeviceOptions {
  /** Shown in errors, logs and thread names. Default 'vm'. */
  readonly name?: string;
  /** Virtual CPUs, from 1. Default 1. */
  readonly cpus?: number;
  /** Guest RAM: bytes, or text such as '256MiB'. At least 1 MiB, a multiple of 4 KiB. Default 256 MiB. */
  readonly memory?: number | string;
  readonly boot: BootImage;
  /** A byte written to port 0xf4 ends the machine with reason 'debug-exit'. Default false. */
  readonly debugExit?: boolean;
  /** What a reset by the guest does. Default 'end'. */
  readonly onReset?: 'end' | 'restart';
  /** Guest memory as a memfd instead of anonymous memory. Default 'anonymous'. */
  readonly memoryBacking?: 'anonymous' | 'memfd';
  /** Devices of the user's own in port space, each at a range that no device of the machine has. */
  readonly portDevices?: readonly PortDevice[];
  /**
   * Makes the virtio devices on the PCI bus, in the order of their slots, at most 31: called for each power cycle, since
   * the machine closes them at its end.
   */
  readonly virtioDevices?: () => readonly VirtioDevice[];
  /** How the guest's time by the PIT is kept. Default: lost ticks are caught up. */
  readonly pit?: PitOptions;
  readonly logger?: Logger;
  readonly clock?: Clock;
}

/** A device of the user's own and its place. What it throws ends the machine with reason 'failed', and nothing else. */
export interface PortDevice {
  readonly firstPort: number;
  readonly portCount: number;
  readonly device: BusDevice;
}

/** The checked and completed options. */
export interface MachineConfig extends DeviceConfigs {
  readonly name: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly boot: BootImage;
  readonly debugExit: boolean;
  readonly onReset: 'end' | 'restart';
  readonly memoryBacking: 'anonymous' | 'memfd';
  readonly portDevices: readonly PortDevice[];
  readonly virtioDevices: () => readonly VirtioDevice[];
  readonly pit: PitOptions;
  readonly logger: Logger;
  readonly clock: Clock;
}

const NAMES = [
  'name',
  'cpus',
  'memory',
  'boot',
  'debugExit',
  'onReset',
  'memoryBacking',
  'portDevices',
  'virtioDevices',
  'disks',
  'nics',
  'consolePorts',
  'qemuAgent',
  'entropy',
  'pit',
  'logger',
  'clock',
] as const;
const MIN_MEMORY = MiB;
/** Above what any KVM offers; how many this one allows is asked when the machine is made. */
const MAX_CPUS = 0xffff;

/**
 * Checks everything that needs no host resource.
 *
 * @throws TypeError for wrong names and types, RangeError for values out of bounds.
 */
export function checkMachineOptions(options: MachineOptions): MachineConfig {
  if (typeof options !== 'object' || options === null)
    throw new TypeError('Machine.create: an options object is wanted');
  checkOptionNames('Machine.create', options, NAMES);
  const name = options.name ?? 'vm';
  if (!isMachineName(name)) throw new TypeError(`name: ${JSON.stringify(name)} is no name; ${MACHINE_NAME_RULE}`);
  const boot = checkBoot(options.boot);
  return {
    name,
    cpus: checkInteger('cpus', options.cpus ?? 1, 1, MAX_CPUS),
    memoryBytes: checkMemory(options.memory ?? '256MiB'),
    boot,
    debugExit: checkBoolean('debugExit', options.debugExit ?? false),
    onReset: checkChoice('onReset', options.onReset ?? 'end', ['end', 'restart']),
    memoryBacking: checkChoice('memoryBacking', options.memoryBacking ?? 'anonymous', ['anonymous', 'memfd']),
    portDevices: checkPortDevices(options.portDevices ?? []),
    virtioDevices: checkVirtioDevices(options.virtioDevices ?? noVirtioDevices),
    ...checkDeviceOptions(options, 'kernel' in boot),
    pit: checkPit(options.pit ?? {}),
    logger: options.logger ?? silentLogger,
    clock: options.clock ?? hostClock,
  };
}

/** The default of `virtioDevices`. */
export const noVirtioDevices = (): readonly VirtioDevice[] => [];

/** The size of guest RAM in bytes. @throws TypeError, RangeError */
export function checkMemory(memory: number | string): number {
  const bytes = parseSize(memory, 'memory');
  if (bytes < MIN_MEMORY) throw new RangeError(`memory: ${formatSize(bytes)} is less than ${formatSize(MIN_MEMORY)}`);
  if (bytes % PAGE_SIZE !== 0) throw new RangeError(`memory: ${bytes} bytes is not a multiple of ${PAGE_SIZE}`);
  const host = totalmem();
  if (bytes > host)
    throw new RangeError(`memory: ${formatSize(bytes)} is more than this host has, ${formatSize(host)}`);
  return bytes;
}

function checkBoot(boot: BootImage): BootImage {
  if (typeof boot !== 'object' || boot === null) {
    throw new TypeError('boot: one of { kernel }, { flat, address, mode } and { multiboot } is wanted');
  }
  if ('kernel' in boot) {
    checkOptionNames('boot', boot, ['kernel', 'initrd', 'cmdline', 'cacheDir', 'entry']);
    checkText('boot.kernel', boot.kernel);
    if (boot.initrd !== undefined) checkInitrd(boot.initrd);
    if (boot.cmdline !== undefined) checkText('boot.cmdline', boot.cmdline);
    if (boot.cacheDir !== undefined) checkText('boot.cacheDir', boot.cacheDir);
    if (boot.entry !== undefined) checkChoice('boot.entry', boot.entry, KERNEL_ENTRIES);
  } else if ('flat' in boot) {
    checkOptionNames('boot', boot, ['flat', 'address', 'entry', 'mode']);
    if (typeof boot.flat !== 'string' && !(boot.flat instanceof Uint8Array)) {
      throw new TypeError('boot.flat: a Uint8Array or a path is wanted');
    }
    checkInteger('boot.address', boot.address, 0, 2 ** 52 - 1);
    if (boot.entry !== undefined) checkInteger('boot.entry', boot.entry, 0, 2 ** 52 - 1);
    checkChoice('boot.mode', boot.mode, ['real16', 'protected32', 'long64']);
  } else if ('multiboot' in boot) {
    checkOptionNames('boot', boot, ['multiboot', 'modules', 'cmdline']);
    checkText('boot.multiboot', boot.multiboot);
    if (boot.cmdline !== undefined) checkText('boot.cmdline', boot.cmdline);
    if (boot.modules !== undefined) checkModules(boot.modules);
  } else {
    throw new TypeError('boot: one of { kernel }, { flat, address, mode } and { multiboot } is wanted');
  }
  return boot;
}

function checkModules(modules: unknown): void {
  if (!Array.isArray(modules)) throw new TypeError('boot.modules: an array is wanted');
  for (const [index, module] of (modules as unknown[]).entries()) {
    const name = `boot.modules[${index}]`;
    if (typeof module === 'object' && module !== null) {
      checkOptionNames(name, module, ['path', 'cmdline']);
      checkText(`${name}.path`, (module as { path?: unknown }).path);
      const { cmdline } = module as { cmdline?: unknown };
      if (cmdline !== undefined) checkText(`${name}.cmdline`, cmdline);
    } else checkText(name, module);
  }
}

function checkPit(pit: PitOptions): PitOptions {
  checkPitOptions(pit);
  return pit;
}

function checkInitrd(initrd: unknown): void {
  for (const part of Array.isArray(initrd) ? (initrd as unknown[]) : [initrd]) {
    if (!(part instanceof Uint8Array)) checkText('boot.initrd', part);
  }
}

function checkPortDevices(devices: readonly PortDevice[]): readonly PortDevice[] {
  const given: unknown = devices;
  if (!Array.isArray(given)) throw new TypeError('portDevices: an array is wanted');
  for (const [index, entry] of devices.entries()) {
    const name = `portDevices[${index}]`;
    checkOptionNames(name, entry, ['firstPort', 'portCount', 'device']);
    checkInteger(`${name}.firstPort`, entry.firstPort, 0, 0xffff);
    checkInteger(`${name}.portCount`, entry.portCount, 1, 0x10000 - entry.firstPort);
    const device: unknown = entry.device;
    if (typeof device !== 'object' || device === null) throw new TypeError(`${name}.device: a device is wanted`);
  }
  return devices;
}

function checkVirtioDevices(make: () => readonly VirtioDevice[]): () => readonly VirtioDevice[] {
  if (typeof make !== 'function') throw new TypeError('virtioDevices: a function that makes them is wanted');
  return make;
}

function checkText(name: string, value: unknown): void {
  if (typeof value !== 'string') throw new TypeError(`${name}: a text is wanted`);
  if (value.includes('\0')) throw new TypeError(`${name}: holds a NUL`);
}

function checkBoolean(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw new TypeError(`${name}: true or false is wanted`);
  return value;
}

function checkChoice<T extends string>(name: string, value: unknown, choices: readonly T[]): T {
  if (!choices.includes(value as T)) {
    throw new TypeError(`${name}: ${JSON.stringify(value)} is none of ${choices.map((c) => `'${c}'`).join(', ')}`);
  }
  return value as T;
}
