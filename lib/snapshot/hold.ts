/**
 * Who may not go while somebody needs it: a parent while a child of it is being saved, which nobody else can see yet. Saving
 * holds the parent's `memory` with a shared lock, deleting and merging take it alone, and the loser is refused by name.
 */
import { open, stat, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { VmmError } from '../base/errors.js';
import { naming } from '../base/system-call.js';
import { lockFile } from '../memory/index.js';
import { FileName } from './format.js';

/**
 * Until `memory`, the open file of the snapshot `dir`, is closed, nobody deletes or merges that snapshot.
 *
 * @throws VmmError ERR_SNAPSHOT_PARENT where that has begun already, or is done; SystemError.
 */
export async function holdAsParent(dir: string, memory: FileHandle): Promise<void> {
  const isLocked = lockFile(memory.fd, 'shared');
  const there = await stat(path.join(dir, FileName.MEMORY)).catch(() => undefined);
  const held = await memory.stat();
  if (isLocked && there?.ino === held.ino && there.dev === held.dev) return;
  throw new VmmError('ERR_SNAPSHOT_PARENT', `${dir}: the parent is being deleted, or changed, at the moment`);
}

/**
 * Keeps a snapshot from becoming a parent until what is returned is closed; undefined where it has no memory to hold.
 *
 * @throws VmmError ERR_SNAPSHOT_REFUSED while a child of it is being saved; SystemError.
 */
export async function holdAlone(dir: string): Promise<FileHandle | undefined> {
  const file = path.join(dir, FileName.MEMORY);
  const handle = await naming(file, async () => {
    try {
      return await open(file, 'r+');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  });
  if (handle === undefined) return undefined;
  try {
    if (lockFile(handle.fd, 'exclusive')) return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
  await handle.close();
  throw new VmmError('ERR_SNAPSHOT_REFUSED', `${dir}: a snapshot that stands on it is being made`, {
    cure: 'wait for that one, or abort it',
  });
}
