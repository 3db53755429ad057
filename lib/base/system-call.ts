/** System calls that Node makes for us: what they fail with, as an error of ours that names the file; writes that end short. */
import type { FileHandle } from 'node:fs/promises';
import { errnoName, SystemError } from './errors.js';

/** Node's error of a system call as ours, naming the file. Others are as they were. */
export function systemError(error: unknown, file: string): unknown {
  const { errno, syscall } = error as NodeJS.ErrnoException;
  if (!(error instanceof Error) || typeof errno !== 'number' || typeof syscall !== 'string') return error;
  // Not `code`, which is no name for what Node does not know, such as EDQUOT.
  return new SystemError(syscall, errnoName(-errno), -errno, file);
}

/** @throws SystemError naming `file` for what a system call refused in `work`. */
export async function naming<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw systemError(error, file);
  }
}

/** All of these bytes, however many calls it takes. @throws what the write fails with */
export async function writeAt(handle: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    done += (await handle.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
  }
}
