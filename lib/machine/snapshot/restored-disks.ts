/**
 * The disks of a machine that is to be restored, by what the snapshot refers to: each has one reference, or an override, and of a
 * kind that its disk can have. So a disk that is written to stands on an image of its own or on memory, never on a file that a
 * snapshot merely names. Nothing is opened here but what a reference is checked against.
 */
import { VmmError } from '../../base/errors.js';
import type { SnapshotReader } from '../../snapshot/index.js';
import {
  type BlockSource,
  type DiskReference,
  diskReferenceState,
  restoreDisk,
  type RestoredDisk,
} from '../../vsp/index.js';
import { unnamed } from './restored-sources.js';
import type { SavedConfig } from './saved-config.js';

type SavedDisk = SavedConfig['disks'][number];

interface MakeOptions {
  /** The snapshot's. */
  readonly folder: string;
  /** Names this restore: a UUID. */
  readonly clone: string;
  /** Gets the name of each file as it is made. */
  readonly made: string[];
}

export class RestoredDisks {
  readonly #references: ReadonlyMap<string, DiskReference>;
  readonly #overrides: Readonly<Record<string, BlockSource>>;

  private constructor(
    references: ReadonlyMap<string, DiskReference>,
    overrides: Readonly<Record<string, BlockSource>>,
  ) {
    this.#references = references;
    this.#overrides = overrides;
  }

  /** @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION: references that are not those of these disks. */
  static of(
    { dir, state }: Pick<SnapshotReader, 'dir' | 'state'>,
    disks: readonly SavedDisk[],
    overrides: Readonly<Record<string, BlockSource>> = {},
  ): RestoredDisks {
    const wrong = (why: string): VmmError => new VmmError('ERR_SNAPSHOT', `${dir}: ${why}`);
    const references = new Map<string, DiskReference>();
    for (const part of state.filter(({ type }) => type === diskReferenceState.type)) {
      const reference = diskReferenceState.load(part);
      const { id, kind } = reference;
      const disk = disks.find((each) => each.id === id);
      if (disk === undefined) throw wrong(`it refers to the data of a disk '${id}', which its machine has not`);
      if (references.has(id)) throw wrong(`it refers twice to the data of the disk '${id}'`);
      if (!fits(reference, disk)) throw wrong(`the disk '${id}' can't have data of the kind '${kind}'`);
      references.set(id, reference);
    }
    for (const { id } of disks) {
      if (references.has(id) || overrides[id] !== undefined) continue;
      throw wrong(`it has nothing of the disk '${id}', and no override does`);
    }
    return new RestoredDisks(references, overrides);
  }

  /** @throws VmmError ERR_SNAPSHOT, ERR_DISK_IMAGE; SystemError */
  async make({ folder, clone, made }: MakeOptions): Promise<ReadonlyMap<string, RestoredDisk>> {
    const disks = new Map<string, RestoredDisk>();
    for (const [id, reference] of this.#references) {
      const isOverridden = this.#overrides[id] !== undefined;
      const disk = await restoreDisk(reference, { folder, clone, isOverridden });
      if (disk.made !== undefined) made.push(disk.made);
      if (disk.source === undefined && !isOverridden) throw unnamed('disk', id, kindOf(reference), 'disks');
      disks.set(id, disk);
    }
    return disks;
  }
}

/** A base is a file that is only read; an image of its own is for a disk whose guest writes to it. */
function fits(reference: DiskReference, { readOnly, copyOnWriteBytes }: SavedDisk): boolean {
  switch (reference.kind) {
    case 'frozen':
      return !readOnly && copyOnWriteBytes === undefined;
    case 'contents':
      return reference.base === undefined || copyOnWriteBytes !== undefined;
    case 'base':
      return readOnly;
  }
}

function kindOf(reference: DiskReference): unknown {
  return 'base' in reference ? reference.base?.description['kind'] : reference.kind;
}
