/**
 * Between a tar archive and the files of this machine. What is packed is what lies there, links as links. What is unpacked comes
 * from a guest and is hostile: nothing is written outside of the target, through no symbolic link, and no device, no set-user-id
 * bit and no owner comes along.
 */
import { constants, lstatSync } from 'node:fs';
import { chmod, link, lstat, mkdir, open, readdir, readlink, rm, symlink, utimes } from 'node:fs/promises';
import path from 'node:path';
import { VmmError } from '../base/errors.js';
import { BLOCK_BYTES, encodeHeader, padding } from './tar-format.js';
import { readTar, type OpenTarEntry } from './tar-reader.js';

/** What was copied, and what was left out by name. */
export interface CopyReport {
  files: number;
  bytes: number;
  /** Devices, sockets and pipes: the first 1000. */
  leftOut: string[];
}

const READ_BYTES = 256 * 1024;
const MAX_LEFT_OUT = 1000;

/**
 * The archive of a file or a folder, whose root is called `name` in it.
 *
 * @throws VmmError ERR_CONTROL when a file changes its size meanwhile; errors of node:fs
 */
export async function* packFiles(source: string, name: string, report: CopyReport): AsyncGenerator<Buffer> {
  yield* packOne(source, name, report);
  yield Buffer.alloc(2 * BLOCK_BYTES);
}

async function* packOne(source: string, name: string, report: CopyReport): AsyncGenerator<Buffer> {
  const found = await lstat(source);
  const about = { mode: found.mode & 0o777, mtimeS: Math.floor(found.mtimeMs / 1000), linkName: '', sizeBytes: 0 };
  if (found.isSymbolicLink()) {
    yield encodeHeader({ ...about, name, kind: 'symlink', linkName: await readlink(source) });
  } else if (found.isDirectory()) {
    yield encodeHeader({ ...about, name: `${name}/`, kind: 'directory' });
    for (const member of (await readdir(source)).sort())
      yield* packOne(path.join(source, member), `${name}/${member}`, report);
  } else if (found.isFile()) {
    yield* packFile(source, { ...about, name }, report);
  } else {
    leaveOut(report, source);
    return;
  }
  report.files++;
}

async function* packFile(
  source: string,
  about: { name: string; mode: number; mtimeS: number; linkName: string },
  report: CopyReport,
): AsyncGenerator<Buffer> {
  const file = await open(source, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const { size } = await file.stat();
    yield encodeHeader({ ...about, kind: 'file', sizeBytes: size });
    for (let at = 0; at < size;) {
      const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(Math.min(READ_BYTES, size - at)));
      if (bytesRead === 0) throw new VmmError('ERR_CONTROL', `${source} became shorter while it was copied`);
      at += bytesRead;
      report.bytes += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
    yield padding(size);
  } finally {
    await file.close();
  }
}

/**
 * Writes the entries of an archive, all of which lie below its one root, with `target` in that root's place. Files that are there
 * already are replaced, folders are filled.
 *
 * @param root the name of the archive's root
 * @throws VmmError ERR_CONTROL for an entry that leads elsewhere, by its name or through a link; errors of node:fs
 */
export async function unpackFiles(
  archive: AsyncIterable<Buffer>,
  root: string,
  target: string,
  report: CopyReport,
): Promise<void> {
  const modes = new Map<string, number>();
  for await (const entry of readTar(archive)) {
    const place = placeOf(entry.name, root, target);
    await refuseLinks(place, target, entry.name);
    await unpackOne(entry, { place, root, target, report, modes });
  }
  // Last, deepest first: a folder that may not be written has been filled by then.
  for (const [folder, mode] of [...modes].reverse()) await chmod(folder, mode);
}

function leaveOut({ leftOut }: CopyReport, name: string): void {
  if (leftOut.length < MAX_LEFT_OUT) leftOut.push(name);
}

interface Unpacking {
  readonly place: string;
  readonly root: string;
  readonly target: string;
  readonly report: CopyReport;
  readonly modes: Map<string, number>;
}

async function unpackOne(entry: OpenTarEntry, { place, root, target, report, modes }: Unpacking): Promise<void> {
  const { kind, name, linkName } = entry;
  switch (kind) {
    case 'directory': {
      const found = lstatSync(place, { throwIfNoEntry: false });
      if (found !== undefined && !found.isDirectory()) await rm(place);
      if (found?.isDirectory() !== true) await mkdir(place, { mode: 0o700 });
      modes.set(place, entry.mode & 0o777);
      break;
    }
    case 'file':
      await makeWay(place, name);
      report.bytes += await writeNew(place, entry);
      break;
    case 'symlink':
      await makeWay(place, name);
      await symlink(linkName, place);
      break;
    case 'hardlink': {
      const other = placeOf(linkName, root, target);
      await refuseLinks(other, target, linkName);
      if (!(await lstat(other)).isFile())
        throw refused(name, `it is a link to ${JSON.stringify(linkName)}, which is no file`);
      await makeWay(place, name);
      await link(other, place);
      break;
    }
    case 'other':
      leaveOut(report, name);
      return;
  }
  report.files++;
}

/** Where an entry goes. @throws VmmError ERR_CONTROL */
function placeOf(name: string, root: string, target: string): string {
  if (name.includes('\0')) throw refused(name, 'there is a NUL in it');
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (name.startsWith('/') || parts.includes('..')) throw refused(name, 'it leads out of what is copied');
  if (parts[0] !== root) throw refused(name, `it is not below ${JSON.stringify(root)}`);
  return path.join(target, ...parts.slice(1));
}

/** @throws VmmError ERR_CONTROL when what lies between target and place is anything but folders */
async function refuseLinks(place: string, target: string, name: string): Promise<void> {
  const between = path.relative(target, path.dirname(place)).split(path.sep);
  if (place === target) return;
  let here = target;
  for (const part of ['', ...between]) {
    here = path.join(here, part);
    const found = await lstat(here).catch(() => undefined);
    if (found?.isDirectory() !== true) throw refused(name, `${here} is no folder`);
  }
}

/** What stands there goes, unless it is a folder. */
async function makeWay(place: string, name: string): Promise<void> {
  const found = lstatSync(place, { throwIfNoEntry: false });
  if (found?.isDirectory() === true) throw refused(name, `${place} is a folder`);
  if (found !== undefined) await rm(place);
}

async function writeNew(place: string, entry: OpenTarEntry): Promise<number> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const file = await open(place, flags, 0o600);
  let bytes = 0;
  try {
    for await (const piece of entry.bytes) {
      await file.writeFile(piece);
      bytes += piece.length;
    }
    await file.chmod(entry.mode & 0o777);
  } finally {
    await file.close();
  }
  await utimes(place, entry.mtimeS, entry.mtimeS);
  return bytes;
}

function refused(name: string, why: string): VmmError {
  return new VmmError('ERR_CONTROL', `what the guest sends is refused: ${JSON.stringify(name)}: ${why}`);
}
