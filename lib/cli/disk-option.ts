/**
 * `--disk PATH[,ro][,id=NAME][,format=raw|qcow2][,bps=SIZE][,iops=NUMBER]`: from the text to a checked choice, and the look at the file that is
 * taken before any machine is made. What an image holds is the backend's business. A raw image is never taken for
 * another format by its content, since a guest writes that.
 */
import { accessSync, constants, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { VmmError } from '../base/errors.js';
import { type LimitChoice, withLimit } from './limit-option.js';
import { UsageError } from './usage-error.js';

export interface DiskChoice {
  /** As the user wrote it. */
  readonly path: string;
  readonly id: string;
  readonly readOnly: boolean;
  readonly format: 'raw' | 'qcow2';
  readonly limits?: LimitChoice | undefined;
}

const ID = /^[A-Za-z0-9][\w.-]{0,19}$/;

/** @throws UsageError that names the option and what is wrong with it. */
export function parseDisks(texts: readonly string[]): DiskChoice[] {
  const disks = texts.map((text, index) => parseDisk(text, `disk${index}`));
  for (const [index, { id }] of disks.entries()) {
    if (disks.findIndex((other) => other.id === id) !== index)
      throw new UsageError(`--disk: two disks have the id '${id}'`);
  }
  return disks;
}

function parseDisk(text: string, defaultId: string): DiskChoice {
  const refuse = (what: string): never => {
    throw new UsageError(`--disk ${text}: ${what}`);
  };
  let path = text;
  let id = defaultId;
  let readOnly = false;
  let format: DiskChoice['format'] | undefined;
  let limits: LimitChoice | undefined;
  // From the end, since a path may hold a comma.
  for (let comma = path.lastIndexOf(','); comma >= 0; comma = path.lastIndexOf(',')) {
    const [name = '', value] = path.slice(comma + 1).split('=', 2);
    if (name === 'ro' && value === undefined) readOnly = true;
    else if (name === 'id' && value !== undefined) id = value;
    else if (name === 'format' && (value === 'raw' || value === 'qcow2')) format = value;
    else if (name === 'format') refuse(`the format '${value ?? ''}' is none of raw, qcow2`);
    else {
      const more = value === undefined ? undefined : withLimit(limits, name, value, refuse);
      if (more === undefined) break;
      limits = more;
    }
    path = path.slice(0, comma);
  }
  if (path === '' || path.includes('\0')) refuse('the name of a file is wanted');
  if (!ID.test(id)) refuse(`'${id}' is no id; letters, digits, '.', '_' and '-', at most 20`);
  return { path, id, readOnly, format: format ?? (path.endsWith('.qcow2') ? 'qcow2' : 'raw'), limits };
}

/**
 * Looks whether the file can be a disk.
 *
 * @param mayBeDevice whether the host's block devices can be lent here.
 * @returns its absolute path.
 * @throws VmmError ERR_DISK_IMAGE that names the option, the path as the user wrote it, and what is wrong.
 */
export function checkDisk({ path, readOnly }: DiskChoice, cwd: string, mayBeDevice: boolean): string {
  const absolute = resolve(cwd, path);
  const refuse = (what: string, cure?: string): never => {
    throw new VmmError('ERR_DISK_IMAGE', `--disk ${path}: ${what}`, cure === undefined ? {} : { cure });
  };
  try {
    const found = statSync(absolute);
    if (found.isDirectory()) refuse('is a directory, not an image');
    if (found.isBlockDevice() && !mayBeDevice) {
      refuse('a block device of this machine is not there in the embedded KVM host', 'use an image file');
    }
    if (!found.isFile() && !found.isBlockDevice()) refuse('is neither a file nor a block device');
    if (found.isFile() && found.size === 0) refuse('is empty', `truncate -s 10G ${path} gives it 10 GiB`);
    accessSync(absolute, constants.R_OK | (readOnly ? 0 : constants.W_OK));
  } catch (error) {
    if (error instanceof VmmError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      refuse('there is no such file', `truncate -s 10G ${path} makes an empty disk of 10 GiB`);
    }
    if (code === 'EROFS') refuse('lies on a read-only file system', `--disk ${path},ro lends it read-only`);
    if (code === 'EACCES') {
      refuse(
        readOnly ? 'may not be read' : 'may not be written',
        readOnly ? 'run as its owner' : `--disk ${path},ro lends it read-only`,
      );
    }
    refuse(`can't be opened: ${code ?? String(error)}`);
  }
  return absolute;
}
