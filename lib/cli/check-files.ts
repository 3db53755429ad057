/**
 * Looks at the files that a user named before anything is started, so that what is wrong is said in the user's own
 * names and at once, wherever the machine will run. What is in the files is the boot loader's business.
 */
import { accessSync, constants, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { VmmError } from '../base/errors.js';
import { formatSize } from '../base/units.js';

/**
 * The absolute path of a regular, readable, non-empty file.
 *
 * @throws VmmError ERR_KERNEL_IMAGE that names the option, the path as the user wrote it, and what is wrong.
 */
export function checkImageFile(option: string, path: string, cwd: string, maxBytes: number): string {
  const absolute = resolve(cwd, path);
  const refuse = (what: string, cure?: string): never => {
    throw new VmmError('ERR_KERNEL_IMAGE', `${option} ${path}: ${what}`, cure === undefined ? {} : { cure });
  };
  let sizeBytes = 0;
  try {
    const found = statSync(absolute);
    if (found.isDirectory()) refuse('is a directory, not a file');
    if (!found.isFile()) refuse('is not a regular file');
    sizeBytes = found.size;
    accessSync(absolute, constants.R_OK);
  } catch (error) {
    if (error instanceof VmmError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') refuse('there is no such file');
    if (code === 'EACCES') refuse('may not be read', `chmod a+r ${path}, or run as its owner`);
    refuse(`can't be opened: ${code ?? String(error)}`);
  }
  if (sizeBytes === 0) refuse('is empty');
  if (sizeBytes > maxBytes) {
    refuse(
      `its ${formatSize(sizeBytes)} do not fit into the guest's memory of ${formatSize(maxBytes)}`,
      'give the guest more with --memory',
    );
  }
  return absolute;
}
