/**
 * A snapshot before anything is made of it: opened, its parts told apart, held against their schemas, and the configuration of the
 * machine that it is to become. Nothing runs and no device is open yet; the images of its own that a clone's disks need are made
 * last. A snapshot may be anybody's: what is wrong in it is ERR_SNAPSHOT, and no file is opened or made for what it merely says.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { hostClock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { silentLogger } from '../../base/logger.js';
import type { SavedPart } from '../../base/saved-state.js';
import type { BootImage } from '../../boot/index.js';
import { SnapshotReader } from '../../snapshot/index.js';
import { hostEntropy, type RestoredDisk } from '../../vsp/index.js';
import { isQemuAgentPort, qemuAgentPort } from '../console-options.js';
import type { EntropyOptions } from '../entropy-options.js';
import { lentDevicesState } from '../lent-devices-state.js';
import { checkMachineOptions, checkMemory, type MachineConfig, type MachineOptions } from '../options.js';
import type { RestoreOptions } from './options.js';
import { RestoredDisks } from './restored-disks.js';
import { netSource, STAND_INS, unnamed } from './restored-sources.js';
import { loadConfig, pitOf, type SavedConfig } from './saved-config.js';

export interface RestorePlan {
  readonly reader: SnapshotReader;
  readonly config: MachineConfig;
  readonly kind: SavedConfig['kind'];
  readonly board: SavedPart;
  readonly lent: SavedPart;
  /** By a disk's id. */
  readonly changes: ReadonlyMap<string, NonNullable<RestoredDisk['changes']>>;
  /** The restore failed: closes the reader, and deletes what was made for its disks, which have to be closed. */
  abandon(): Promise<void>;
}

/**
 * @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION, ERR_SNAPSHOT_PARENT, ERR_SNAPSHOT_HOST (memory that this host has not),
 *   ERR_DISK_IMAGE; SystemError; TypeError or RangeError for a mistake in the options, such as an override of a device that there
 *   is not. Nothing is left then.
 */
export async function planRestore(dir: string, options: RestoreOptions): Promise<RestorePlan> {
  const reader = await SnapshotReader.open(dir);
  const made: string[] = [];
  const abandon = async (): Promise<void> => {
    await reader.close();
    await Promise.all(made.map((file) => rm(file, { force: true })));
  };
  try {
    const { saved, lent, descriptions, board } = readSaved(reader);
    await believed(reader.dir, () => checkSaved(reader, saved));
    const { overrides = {} } = options;
    requireKnown('disks', overrides.disks, saved.disks);
    requireKnown('nics', overrides.nics, saved.nics);
    requireKnown('console', overrides.console, saved.consolePorts);
    const others = await believed(reader.dir, () => otherBackends(saved, descriptions, overrides));
    const restored = await believed(reader.dir, () => {
      const disks = RestoredDisks.of(reader, saved.disks, overrides.disks);
      return disks.make({ folder: reader.dir, clone: randomUUID(), made });
    });
    const disks = (id: string) => overrides.disks?.[id] ?? restored.get(id)!.source!;
    const config = checkMachineOptions(optionsOf(saved, { ...others, disks }, options));
    const changes = new Map([...restored].flatMap(([id, disk]) => (disk.changes ? [[id, disk.changes]] : [])));
    return { reader, config, kind: saved.kind, board, lent, changes, abandon };
  } catch (error) {
    await abandon().catch(() => undefined);
    throw error;
  }
}

type Description = Readonly<Record<string, unknown>>;
type DeviceBackends = typeof STAND_INS;

/** The configuration that was saved, and what its devices stood on, by their ids. @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION */
export function readSaved(reader: SnapshotReader): {
  readonly saved: SavedConfig;
  readonly lent: SavedPart;
  readonly descriptions: ReadonlyMap<string, Description>;
  readonly board: SavedPart;
} {
  const saved = loadConfig(partOf(reader, 'machine'));
  const lent = partOf(reader, 'lent-devices');
  return { saved, lent, descriptions: descriptionsOf(lent), board: partOf(reader, 'board') };
}

function partOf({ state, dir }: SnapshotReader, type: string): SavedPart {
  const found = state.filter((each) => each.type === type);
  if (found.length === 1) return found[0]!;
  throw new VmmError(
    'ERR_SNAPSHOT',
    `${dir}: it has ${found.length} states of the type '${type}', where one is wanted`,
  );
}

function descriptionsOf(lent: SavedPart): ReadonlyMap<string, Description> {
  const { devices } = lentDevicesState.load(lent);
  return new Map(devices.flatMap(({ backends }) => backends.map(({ id, description }) => [id, description])));
}

/** What a machine of these values is made of must be as checked as what a caller writes. */
function checkSaved(reader: SnapshotReader, saved: SavedConfig): void {
  if (saved.memoryBytes !== reader.memoryBytes) {
    throw new VmmError('ERR_SNAPSHOT', `${reader.dir}: its memory is not of the machine's size`);
  }
  try {
    checkMemory(saved.memoryBytes);
  } catch (cause) {
    throw new VmmError('ERR_SNAPSHOT_HOST', (cause as Error).message, { cause });
  }
  checkMachineOptions(optionsOf(saved, STAND_INS, {}));
}

/** Of nics and console ports: each is the caller's, or made now, before anything is. @throws VmmError ERR_SNAPSHOT */
function otherBackends(
  saved: SavedConfig,
  descriptions: ReadonlyMap<string, Description>,
  { nics = {}, console = {}, entropy }: NonNullable<RestoreOptions['overrides']>,
): Omit<DeviceBackends, 'disks'> {
  const described = (id: string): Description => descriptions.get(id) ?? {};
  const networks = new Map(saved.nics.map(({ id }) => [id, nics[id] ?? netSource(id, described(id))]));
  const ports = new Map(
    saved.consolePorts.map((port) => {
      // Its other end is in this process, whatever its description says.
      const source = console[port.id] ?? (isQemuAgentPort(port) ? qemuAgentPort().backend : undefined);
      if (source === undefined) throw unnamed('console port', port.id, described(port.id)['kind'], 'console');
      return [port.id, source];
    }),
  );
  return {
    nics: (id) => networks.get(id)!,
    console: (id) => ports.get(id)!,
    entropy: () => entropy ?? hostEntropy(),
  };
}

function optionsOf(saved: SavedConfig, backends: DeviceBackends, options: RestoreOptions): MachineOptions {
  const { name = saved.name, pit = pitOf(saved) } = options;
  const { cpus, memoryBytes, memoryBacking, debugExit } = saved;
  return {
    ...{ name, cpus, memory: memoryBytes, memoryBacking, debugExit, pit },
    // Without its image a guest that resets itself can't start again.
    ...(saved.boot
      ? { boot: bootOf(saved.boot as BootImage), onReset: saved.onReset }
      : { boot: GONE[saved.kind], onReset: 'end' }),
    disks: saved.disks.map(({ id, readOnly, copyOnWriteBytes, limits }) => ({
      id,
      readOnly,
      ...(copyOnWriteBytes === undefined ? {} : { copyOnWrite: copyOnWriteBytes }),
      ...(limits ? { limits } : {}),
      backend: backends.disks(id),
    })),
    nics: saved.nics.map(({ id, mtuBytes, limits }) => ({
      id,
      ...(mtuBytes === undefined ? {} : { mtuBytes }),
      ...(limits ? { limits } : {}),
      backend: backends.nics(id),
    })),
    consolePorts: saved.consolePorts.map((port) => ({ ...port, backend: backends.console(port.id) })),
    entropy:
      saved.entropy !== undefined &&
      ({ id: saved.entropy.id, ...saved.entropy.rate, backend: backends.entropy() } as EntropyOptions),
    logger: options.logger ?? silentLogger,
    clock: options.hostClock ?? hostClock,
  };
}

/** A kernel that is unpacked at a restart is kept in this host's own cache, not in a folder that a snapshot names. */
function bootOf(image: BootImage): BootImage {
  if (!('kernel' in image)) return image;
  const { cacheDir: _named, ...rest } = image;
  return rest;
}

/** What can't be made of a snapshot's values is the snapshot's fault. @throws VmmError ERR_SNAPSHOT, or what `make` throws */
async function believed<T>(dir: string, make: () => T | Promise<T>): Promise<T> {
  try {
    return await make();
  } catch (cause) {
    if (!(cause instanceof TypeError || cause instanceof RangeError)) throw cause;
    throw new VmmError('ERR_SNAPSHOT', `${dir}: ${cause.message}`, { cause });
  }
}

/** What tells a board that it has ACPI tables and a PCI bus, where the image itself is no longer known. */
const GONE: Readonly<Record<SavedConfig['kind'], BootImage>> = {
  kernel: { kernel: '' },
  multiboot: { multiboot: '' },
  flat: { flat: new Uint8Array(1), address: 0, mode: 'real16' },
};

function requireKnown(option: string, given: object | undefined, known: readonly { readonly id: string }[]): void {
  for (const id of Object.keys(given ?? {})) {
    if (known.some((device) => device.id === id)) continue;
    const ids = known.map((device) => `'${device.id}'`).join(', ');
    throw new RangeError(`overrides.${option}: the snapshot has no '${id}'; it has ${ids === '' ? 'none' : ids}`);
  }
}
