/**
 * The folder beside a snapshot in which it is written, until a rename makes it the snapshot: `.NAME.partial-PID-START-NS-BOOT-N`.
 * Whose it is can be told when its writer is gone: by process number and start time where numbers mean the same (the
 * process-number namespace and the host's boot are part of the name: the first namespace has one number on every host),
 * elsewhere, and where that process lives, by the lock on its `memory`, which dies with the process or Worker.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { lstat, open, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { SystemError, VmmError } from '../base/errors.js';
import { naming } from '../base/system-call.js';
import { renameNoReplace, lockFile } from '../memory/index.js';
import { FileName } from './format.js';
import { makeFolder, removeFolder, syncFolder } from './files.js';

/** A draft without a lock may be one that is just begun. */
const UNLOCKED_AGE_MS = 60_000;

let count = 0;

/** Field 22 of /proc/PID/stat; the command's name before it may hold anything. */
function startOf(statLine: string): string {
  return statLine.slice(statLine.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

function namespace(): string {
  return /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? '0';
}

/** Of this boot of this host alone: 12 hexadecimal digits. */
function boot(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').replaceAll('-', '').slice(0, 12);
}

function draftName(name: string): string {
  const start = startOf(readFileSync('/proc/self/stat', 'latin1'));
  return `.${name}.partial-${process.pid}-${start}-${namespace()}-${boot()}-${count++}`;
}

const DRAFT = /^\.(.+)\.partial-(\d+)-(\d+)-(\d+)-([0-9a-f]{12})-\d+$/;

/** The folder in which the snapshot `dir` is made. */
export class Draft {
  readonly folder: string;
  /** What it is to become. */
  readonly dir: string;
  #moved = false;

  private constructor(dir: string, folder: string) {
    this.dir = dir;
    this.folder = folder;
  }

  /** Sweeps what dead writers of `dir` have left, and makes the folder. @throws SystemError naming it. */
  static async make(dir: string): Promise<Draft> {
    await sweep(dir);
    const draft = new Draft(dir, Draft.pathFor(dir));
    await makeFolder(draft.folder);
    return draft;
  }

  /** A name beside `dir` that a sweep will know. */
  static pathFor(dir: string): string {
    return path.join(path.dirname(dir), draftName(path.basename(dir)));
  }

  file(name: string): string {
    return path.join(this.folder, name);
  }

  /**
   * The files are synced: the draft becomes the snapshot, for good once this resolves.
   *
   * @throws SystemError EEXIST or ENOTEMPTY where there is one by now. The draft is still there then.
   */
  async publish(): Promise<void> {
    await syncFolder(this.folder);
    renameNoReplace(this.folder, this.dir);
    this.#moved = true;
    try {
      await syncFolder(path.dirname(this.dir));
    } catch (error) {
      renameNoReplace(this.dir, this.folder);
      this.#moved = false;
      throw error;
    }
  }

  async remove(): Promise<void> {
    if (!this.#moved) await removeFolder(this.folder);
  }
}

/**
 * Removes what dead writers of `dir` have left beside it.
 *
 * @throws VmmError ERR_SNAPSHOT where there is no folder for it; SystemError naming one that can't be read.
 */
export async function sweep(dir: string): Promise<void> {
  const parent = path.dirname(dir);
  const names = await naming(parent, () => readdir(parent)).catch((error: unknown) => {
    if (!(error instanceof SystemError) || error.errno !== 'ENOENT') throw error;
    const message = `${dir} can't be made: there is no folder ${parent}`;
    throw new VmmError('ERR_SNAPSHOT', message, { cause: error, cure: `mkdir -p ${parent}` });
  });
  for (const name of names) {
    const match = DRAFT.exec(name);
    if (match?.[1] !== path.basename(dir)) continue;
    const folder = path.join(parent, name);
    if (await isAbandoned(folder, match[2]!, match[3]!, match[4]!, match[5]!)) await removeFolder(folder);
  }
}

async function isAbandoned(folder: string, pid: string, start: string, ns: string, ofBoot: string): Promise<boolean> {
  if (ns === namespace() && ofBoot === boot()) {
    const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
    // A process that lives may have had a Worker that does not.
    if (startOf(stat) !== start) return true;
  }
  try {
    if (Date.now() - (await lstat(folder)).mtimeMs < UNLOCKED_AGE_MS) return false;
    const handle = await open(path.join(folder, FileName.MEMORY), 'r+');
    try {
      return lockFile(handle.fd, 'exclusive');
    } finally {
      await handle.close();
    }
  } catch {
    return false;
  }
}
