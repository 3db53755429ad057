/**
 * A snapshot before anything is made of it: opened, its parts told apart, held against their schemas, and the configuration of the
 * machine that it is to become. Nothing runs and no device is open yet.
 */
import { randomUUID } from 'node:crypto';
import { hostClock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { silentLogger } from '../../base/logger.js';
import type { SavedPart } from '../../base/saved-state.js';
import type { BootImage } from '../../boot/index.js';
import { SnapshotReader } from '../../snapshot/index.js';
import { diskReferenceState, restoreDisk, type RestoredDisk } from '../../vsp/index.js';
import type { EntropyOptions } from '../entropy-options.js';
import { lentDevicesState } from '../lent-devices-state.js';
import { checkMachineOptions, type MachineConfig } from '../options.js';
import type { RestoreOptions } from './options.js';
import { consoleSource, diskSource, hostEntropy, netSource } from './restored-sources.js';
import { loadConfig, pitOf, type SavedConfig } from './saved-config.js';

export interface RestorePlan {
  readonly reader: SnapshotReader;
  readonly config: MachineConfig;
  readonly kind: SavedConfig['kind'];
  readonly board: SavedPart;
  readonly lent: SavedPart;
  /** By a disk's id. */
  readonly changes: ReadonlyMap<string, NonNullable<RestoredDisk['changes']>>;
  /** There will be no machine: closes the reader, and removes the images that were made for its disks. */
  discard(): Promise<void>;
}

/**
 * @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION, ERR_SNAPSHOT_PARENT, ERR_DISK_IMAGE; SystemError; RangeError for overrides of
 *   devices that there are not, and for memory that this host has not. The reader is closed then.
 */
export async function planRestore(dir: string, options: RestoreOptions): Promise<RestorePlan> {
  const reader = await SnapshotReader.open(dir);
  const disks = new Map<string, RestoredDisk>();
  const discard = async (): Promise<void> => {
    await reader.close();
    for (const disk of disks.values()) await disk.discard?.().catch(() => undefined);
  };
  try {
    const part = (type: string): SavedPart => {
      const found = reader.state.filter((each) => each.type === type);
      if (found.length === 1) return found[0]!;
      throw new VmmError(
        'ERR_SNAPSHOT',
        `${reader.dir}: it has ${found.length} states of the type '${type}', where one is wanted`,
      );
    };
    const saved = loadConfig(part('machine'));
    if (saved.memoryBytes !== reader.memoryBytes) {
      throw new VmmError('ERR_SNAPSHOT', `${reader.dir}: its memory is not of the machine's size`);
    }
    const lent = part('lent-devices');
    await restoreDisks(reader, options, disks);
    const config = configOf(saved, descriptionsOf(lent), disks, options);
    const changes = new Map([...disks].flatMap(([id, disk]) => (disk.changes ? [[id, disk.changes]] : [])));
    return { reader, config, kind: saved.kind, board: part('board'), lent, changes, discard };
  } catch (error) {
    await discard();
    throw error;
  }
}

async function restoreDisks(
  reader: SnapshotReader,
  { overrides = {} }: RestoreOptions,
  disks: Map<string, RestoredDisk>,
): Promise<void> {
  const clone = randomUUID();
  for (const part of reader.state.filter(({ type }) => type === diskReferenceState.type)) {
    const reference = diskReferenceState.load(part);
    const isOverridden = overrides.disks?.[reference.id] !== undefined;
    disks.set(reference.id, await restoreDisk(reference, { folder: reader.dir, clone, isOverridden }));
  }
}

type Description = Readonly<Record<string, unknown>>;

function descriptionsOf(lent: SavedPart): ReadonlyMap<string, Description> {
  const { devices } = lentDevicesState.load(lent);
  return new Map(devices.flatMap(({ backends }) => backends.map(({ id, description }) => [id, description])));
}

function configOf(
  saved: SavedConfig,
  descriptions: ReadonlyMap<string, Description>,
  restored: ReadonlyMap<string, RestoredDisk>,
  options: RestoreOptions,
): MachineConfig {
  const { overrides = {}, name = saved.name, pit = pitOf(saved) } = options;
  const described = (id: string): Description => descriptions.get(id) ?? {};
  requireKnown('disks', overrides.disks, saved.disks);
  requireKnown('nics', overrides.nics, saved.nics);
  requireKnown('console', overrides.console, saved.consolePorts);
  const { cpus, memoryBytes, memoryBacking, debugExit } = saved;
  return checkMachineOptions({
    ...{ name, cpus, memory: memoryBytes, memoryBacking, debugExit, pit },
    // Without its image a guest that resets itself can't start again.
    ...(saved.boot
      ? { boot: saved.boot as BootImage, onReset: saved.onReset }
      : { boot: GONE[saved.kind], onReset: 'end' }),
    disks: saved.disks.map(({ id, readOnly, copyOnWriteBytes, limits }) => ({
      id,
      readOnly,
      ...(copyOnWriteBytes === undefined ? {} : { copyOnWrite: copyOnWriteBytes }),
      ...(limits ? { limits } : {}),
      backend: overrides.disks?.[id] ?? restored.get(id)?.source ?? diskSource(id, described(id)),
    })),
    nics: saved.nics.map(({ id, mtuBytes, limits }) => ({
      id,
      ...(mtuBytes === undefined ? {} : { mtuBytes }),
      ...(limits ? { limits } : {}),
      backend: overrides.nics?.[id] ?? netSource(id, described(id)),
    })),
    consolePorts: saved.consolePorts.map((port) => ({
      ...port,
      backend: overrides.console?.[port.id] ?? consoleSource(port.id, described(port.id)),
    })),
    entropy:
      saved.entropy !== undefined &&
      ({
        id: saved.entropy.id,
        ...saved.entropy.rate,
        backend: overrides.entropy ?? hostEntropy(),
      } as EntropyOptions),
    logger: options.logger ?? silentLogger,
    clock: options.hostClock ?? hostClock,
  });
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
