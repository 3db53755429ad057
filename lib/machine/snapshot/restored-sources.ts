/**
 * What the devices of a restored machine stand on: what the caller says, else what the snapshot has of a disk, else what its
 * description names, as far as a description is enough to open it again.
 */
import { VmmError } from '../../base/errors.js';
import {
  type BlockSource,
  type ConsoleSource,
  fileConsole,
  fileDisk,
  hostEntropy,
  type NetSource,
  networkSwitch,
  passt,
  qcow2Disk,
  tap,
  unixSocketConsole,
} from '../../vsp/index.js';

type Description = Readonly<Record<string, unknown>>;

/** @throws VmmError ERR_SNAPSHOT naming a device whose backend the snapshot can't name. */
export function diskSource(id: string, { kind, path, base }: Description): BlockSource {
  // The machine lays its own memory over the disk again, as its configuration says.
  if (kind === 'copy-on-write' && typeof base === 'object') return diskSource(id, base as Description);
  if (typeof path === 'string') {
    if (kind === 'file') return fileDisk(path);
    if (kind === 'qcow2') return qcow2Disk(path);
  }
  throw unknown('disk', id, kind, 'disks');
}

/** @throws VmmError ERR_SNAPSHOT */
export function netSource(id: string, { kind, name, forwards }: Description): NetSource {
  if (kind === 'passt' && (forwards === undefined || forwards === '')) return passt();
  if (typeof name === 'string') {
    if (kind === 'tap') return tap(name);
    if (kind === 'switch') return networkSwitch(name);
  }
  throw unknown('nic', id, kind, 'nics');
}

/** @throws VmmError ERR_SNAPSHOT */
export function consoleSource(id: string, { kind, path }: Description): ConsoleSource {
  if (typeof path === 'string') {
    if (kind === 'file') return fileConsole(path);
    if (kind === 'unix-socket') return unixSocketConsole(path);
  }
  throw unknown('console port', id, kind, 'console');
}

export { hostEntropy };

function unknown(what: string, id: string, kind: unknown, option: string): VmmError {
  return new VmmError(
    'ERR_SNAPSHOT',
    `the ${what} '${id}' stood on '${String(kind)}', which can't be opened again by itself`,
    {
      cure: `overrides: { ${option}: { '${id}': ... } }`,
    },
  );
}
