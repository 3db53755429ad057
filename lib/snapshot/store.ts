/**
 * Snapshots in a folder: which there are, how they stand on each other, whether they are sound, and how one goes without
 * its children losing anything. A child is looked for in the same folder only.
 */
import { lstat, readdir, rename } from 'node:fs/promises';
import path from 'node:path';
import { VmmError } from '../base/errors.js';
import { naming } from '../base/system-call.js';
import { renameNoReplace } from '../memory/index.js';
import { readManifest } from './chain.js';
import { DISK_FILE } from './disk-files.js';
import { Draft, sweep } from './draft.js';
import { OpenFolder, removeFolder, syncFolder } from './files.js';
import { FileName } from './format.js';
import { holdAlone } from './hold.js';
import type { Manifest } from './manifest.js';
import { mergeParent } from './merge.js';
import { SnapshotReader, type ReadOptions } from './reader.js';

export interface SnapshotInfo {
  readonly name: string;
  readonly path: string;
  readonly id: string;
  readonly createdMs: number;
  readonly memoryBytes: number;
  /** Of its own files, as long as they are; images of disks that lie elsewhere are not among them. */
  readonly fileBytes: number;
  readonly parentId: string | undefined;
}

/** A folder with a manifest that can't be read as one. */
export interface BrokenSnapshot {
  readonly name: string;
  readonly path: string;
  readonly error: VmmError;
}

export interface SnapshotNode extends SnapshotInfo {
  readonly children: readonly SnapshotNode[];
  /** It has a parent, which is not in the folder. */
  readonly parentElsewhere: boolean;
}

/**
 * The snapshots of a folder by age, by their manifests alone, and what looks like one and is not.
 *
 * @throws SystemError for a folder that can't be read.
 */
export async function listSnapshots(
  folder: string,
): Promise<{ snapshots: readonly SnapshotInfo[]; broken: readonly BrokenSnapshot[] }> {
  const root = path.resolve(folder);
  const snapshots: SnapshotInfo[] = [];
  const broken: BrokenSnapshot[] = [];
  for (const name of await naming(root, () => readdir(root))) {
    if (name.startsWith('.')) continue;
    const at = path.join(root, name);
    try {
      if (!(await looksLikeOne(at))) continue;
      snapshots.push(infoOf(at, await manifestOf(at), await diskBytes(at)));
    } catch (error) {
      if (!(error instanceof VmmError)) throw error;
      broken.push({ name, path: at, error });
    }
  }
  snapshots.sort((a, b) => a.createdMs - b.createdMs || (a.name < b.name ? -1 : 1));
  return { snapshots, broken };
}

/** The sound ones of the same, each under its parent. @throws as listSnapshots. */
export async function snapshotTree(folder: string): Promise<readonly SnapshotNode[]> {
  const { snapshots } = await listSnapshots(folder);
  const ids = new Set(snapshots.map(({ id }) => id));
  const seen = new Set<string>();
  const nodeOf = (info: SnapshotInfo): SnapshotNode => {
    seen.add(info.path);
    return {
      ...info,
      parentElsewhere: info.parentId !== undefined && !ids.has(info.parentId),
      children: snapshots.filter((each) => each.parentId === info.id && !seen.has(each.path)).map(nodeOf),
    };
  };
  const roots = snapshots.filter(({ parentId }) => parentId === undefined || !ids.has(parentId)).map(nodeOf);
  // Those that stand on themselves: a damaged lot, shown all the same.
  return [...roots, ...snapshots.filter((info) => !seen.has(info.path)).map(nodeOf)];
}

/**
 * Holds every byte of a snapshot, and all it needs of its parents, against a check.
 *
 * @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION, ERR_SNAPSHOT_PARENT, naming what is wrong; SystemError; AbortError.
 */
export async function verifySnapshot(dir: string, options: ReadOptions = {}): Promise<void> {
  const reader = await SnapshotReader.open(dir);
  try {
    await reader.verify(options);
  } finally {
    await reader.close();
  }
}

export interface DeleteOptions {
  /** What becomes of snapshots that stand on it. 'merge' (the default): each gets what it needs; 'refuse'. */
  readonly children?: 'merge' | 'refuse' | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Deletes a snapshot. Snapshots of the same folder that stand on it go on working; who has it open does too. One call at a
 * time for one folder. Aborted, some children may have been made independent already, which changes nothing else.
 *
 * @throws VmmError ERR_SNAPSHOT for what is none; ERR_SNAPSHOT_REFUSED naming the children, or neighbours that can't be read, or
 *   while a child is being saved; SystemError; AbortError.
 */
export async function deleteSnapshot(
  folder: string,
  options: DeleteOptions = {},
): Promise<{ merged: readonly string[] }> {
  const dir = path.resolve(folder);
  const { id } = await manifestOf(dir);
  const alone = await holdAlone(dir);
  try {
    return await deleteHeld(dir, id, options);
  } finally {
    await alone?.close();
  }
}

async function deleteHeld(dir: string, id: string, options: DeleteOptions): Promise<{ merged: readonly string[] }> {
  const { snapshots, broken } = await listSnapshots(path.dirname(dir));
  // A copy of it serves its children as well.
  const copies = snapshots.filter((info) => info.id === id && info.path !== dir);
  const children = copies.length > 0 ? [] : snapshots.filter((info) => info.parentId === id);
  const names = children.map(({ name }) => name);
  // One that is whole, but can't be read at the moment or by this vivarium, may stand on it.
  const unknown = copies.length > 0 ? [] : broken.filter(({ error }) => error.code !== 'ERR_SNAPSHOT');
  if (unknown.length > 0) {
    const which = unknown.map(({ name, error }) => `${name} (${error.message})`).join(', ');
    throw new VmmError('ERR_SNAPSHOT_REFUSED', `${dir}: what stands on it can't be told: ${which}`, {
      cure: 'make those readable, or move those away that do not stand on it',
    });
  }
  if (children.length > 0 && options.children === 'refuse') {
    throw new VmmError(
      'ERR_SNAPSHOT_REFUSED',
      `${dir}: ${names.join(', ')} ${names.length > 1 ? 'stand' : 'stands'} on it`,
      {
        cure: 'delete them first, or let them take over what they need',
      },
    );
  }
  for (const child of children) await mergeParent(child.path, options.signal);
  await sweep(dir);
  const away = Draft.pathFor(dir);
  await naming(dir, () => rename(dir, away));
  try {
    await syncFolder(path.dirname(dir));
  } catch (error) {
    // A crash could bring it back by halves.
    renameNoReplace(away, dir);
    throw error;
  }
  await removeFolder(away);
  return { merged: names };
}

async function looksLikeOne(at: string): Promise<boolean> {
  const file = path.join(at, FileName.MANIFEST);
  return naming(file, async () => {
    try {
      await lstat(file);
      return true;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ENOTDIR') return false;
      throw error;
    }
  });
}

async function manifestOf(dir: string): Promise<Manifest> {
  const folder = await OpenFolder.open(dir);
  try {
    return await readManifest(folder);
  } finally {
    await folder.close();
  }
}

/** Of the contents of disks in a snapshot's folder. What is wrong with them is for verify to say. */
async function diskBytes(at: string): Promise<number> {
  let bytes = 0;
  for (const name of await naming(at, () => readdir(at))) {
    if (DISK_FILE.test(name)) bytes += (await naming(at, () => lstat(path.join(at, name)))).size;
  }
  return bytes;
}

function infoOf(at: string, manifest: Manifest, ofDisksBytes: number): SnapshotInfo {
  const { state, index, memory, access } = manifest.parts;
  return {
    name: path.basename(at),
    path: at,
    id: manifest.id,
    createdMs: manifest.createdMs,
    memoryBytes: manifest.memoryBytes,
    fileBytes: state.sizeBytes + index.sizeBytes + memory.sizeBytes + (access?.sizeBytes ?? 0) + ofDisksBytes,
    parentId: manifest.parent?.id,
  };
}
