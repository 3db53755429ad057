/** What the machine of a snapshot is and stands on, for whoever gets that ready in one process to restore it in another. */
import { SnapshotReader } from '../../snapshot/index.js';
import { diskReferenceState } from '../../vsp/index.js';
import { savedBoardHasAgent } from '../state/board-state.js';
import { innermost } from './restored-sources.js';
import { readSaved } from './restore-plan.js';
import type { SavedConfig } from './saved-config.js';

export interface DescribedSnapshot {
  /** Of its folder. */
  readonly dir: string;
  /** Folders of it and of the snapshots that it is a difference to, which are all read. */
  readonly chain: readonly string[];
  readonly name: string;
  readonly kind: SavedConfig['kind'];
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Files that its disks' data is in, as the saved machine named them; they are only read. Beside those with `isCut` a clone makes images of its own. */
  readonly images: readonly {
    readonly id: string;
    readonly path: string;
    readonly format: 'raw' | 'qcow2';
    readonly isCut: boolean;
  }[];
  /** Files that its guest is started from again where it may reset itself. Not to be believed either. */
  readonly bootFiles: readonly string[];
  /** What each nic stood on in the end, behind what recorded or carried it. Not to be believed: anybody may have written it. */
  readonly nics: readonly { readonly id: string; readonly backend: Readonly<Record<string, unknown>> }[];
  readonly consolePorts: readonly string[];
  /** vivarium's agent had answered in the guest. */
  readonly hasAgent: boolean;
}

/** @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION, ERR_SNAPSHOT_PARENT; SystemError */
export async function describeSnapshot(dir: string): Promise<DescribedSnapshot> {
  const reader = await SnapshotReader.open(dir);
  try {
    const { saved, descriptions, board } = readSaved(reader);
    const { name, kind, cpus, memoryBytes, nics, consolePorts } = saved;
    return {
      ...{ dir: reader.dir, chain: reader.chain, name, kind, cpus, memoryBytes },
      images: reader.state.filter(({ type }) => type === diskReferenceState.type).flatMap(imageOf),
      bootFiles: saved.onReset === 'restart' && saved.boot ? bootFilesOf(saved.boot) : [],
      nics: nics.map(({ id }) => ({ id, backend: innermost(descriptions.get(id) ?? {}) })),
      consolePorts: consolePorts.map(({ id }) => id),
      hasAgent: savedBoardHasAgent(board),
    };
  } finally {
    await reader.close();
  }
}

function imageOf(part: Parameters<typeof diskReferenceState.load>[0]): DescribedSnapshot['images'] {
  const reference = diskReferenceState.load(part);
  const { id } = reference;
  if (reference.kind === 'frozen')
    return [{ id, path: reference.frozen.path, format: reference.frozen.format, isCut: true }];
  const { path, description } = reference.base ?? {};
  if (path === undefined) return [];
  return [{ id, path, format: description?.['kind'] === 'qcow2' ? 'qcow2' : 'raw', isCut: false }];
}

function bootFilesOf(boot: NonNullable<SavedConfig['boot']>): string[] {
  const pieces =
    'kernel' in boot
      ? [boot.kernel, boot.initrd].flat()
      : 'flat' in boot
        ? [boot.flat]
        : [
            boot.multiboot,
            ...(boot.modules ?? []).map((module) => (typeof module === 'string' ? module : module.path)),
          ];
  return pieces.filter((piece) => typeof piece === 'string');
}
