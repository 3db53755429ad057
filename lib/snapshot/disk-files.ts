/**
 * Contents of disks that lie in a snapshot's folder, `disk-ID.contents`: which there are and what each must be stands in the
 * parts of the state that tell of disks. Here they are held against that, and taken along when a snapshot is written anew.
 */
import { constants } from 'node:fs';
import { copyFile, open, type FileHandle } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import path from 'node:path';
import { AbortError } from '../base/errors.js';
import type { SavedPart } from '../base/saved-state.js';
import { naming } from '../base/system-call.js';
import { diskReferenceState } from '../vsp/block/disk-reference.js';
import { OpenFolder, readExactly } from './files.js';
import { damaged } from './format.js';

const PIECE_BYTES = 1 << 20;

export interface DiskFile {
  readonly name: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

/** The name of such a file, whoever has written it. */
export const DISK_FILE = /^disk-[A-Za-z0-9._-]+\.contents$/;

/** @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION for a part about a disk that is none. */
export function diskFilesOf(state: readonly SavedPart[]): readonly DiskFile[] {
  return state.flatMap((part) => {
    if (part.type !== diskReferenceState.type) return [];
    const reference = diskReferenceState.load(part);
    return reference.kind === 'contents'
      ? [{ name: reference.file, sizeBytes: reference.fileBytes, sha256: reference.sha256 }]
      : [];
  });
}

/** Reads all of one. @throws VmmError ERR_SNAPSHOT when it is not as it was written; SystemError; AbortError. */
export async function verifyDiskFile(folder: OpenFolder, file: DiskFile, signal?: AbortSignal): Promise<void> {
  const { handle } = await folder.openFile(file.name, file);
  try {
    await checkBytes(handle, file, folder.file(file.name), signal);
  } finally {
    await handle.close();
  }
}

/** Copies one into another folder, checked and synced. @throws as verifyDiskFile. */
export async function copyDiskFile(from: string, to: string, file: DiskFile, signal?: AbortSignal): Promise<void> {
  const copy = path.join(to, file.name);
  await naming(copy, () => copyFile(path.join(from, file.name), copy, constants.COPYFILE_FICLONE));
  const handle = await naming(copy, () => open(copy, 'r+'));
  try {
    await checkBytes(handle, file, path.join(from, file.name), signal);
    await naming(copy, () => handle.sync());
  } finally {
    await handle.close();
  }
}

async function checkBytes(handle: FileHandle, file: DiskFile, name: string, signal?: AbortSignal): Promise<void> {
  const { size } = await handle.stat();
  if (size !== file.sizeBytes) throw damaged(name, `it has ${size} bytes instead of ${file.sizeBytes}`);
  const hash = createHash('sha256');
  for (let at = 0; at < size; at += PIECE_BYTES) {
    if (signal?.aborted === true) throw new AbortError(signal);
    hash.update(await readExactly(handle, at, Math.min(PIECE_BYTES, size - at), name));
  }
  if (hash.digest('hex') !== file.sha256) throw damaged(name, 'its checksum is wrong');
}
