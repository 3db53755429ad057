/**
 * Writes cpio archives in the "newc" format, the kernel's initramfs (Documentation/driver-api/early-userspace/
 * buffer-format.rst). The same tree gives the same bytes: owners are root, times are one fixed number.
 *
 * | offset | 13 fields of 8 hexadecimal digits after the magic "070701"                                         |
 * | 6      | ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check         |
 * | 110    | name with its NUL, padded with zeros to 4 bytes; then the data, padded to 4 bytes                  |
 */

export type CpioEntry = { readonly path: string; readonly mode?: number } & (
  | { readonly type: 'file'; readonly data: Uint8Array }
  | { readonly type: 'directory' }
  | { readonly type: 'symlink'; readonly target: string }
  | { readonly type: 'character'; readonly major: number; readonly minor: number }
);

const S_IFCHR = 0o020000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
/** 2000-01-01, so that a guest whose clock stands at its start does not see files of the future. */
const MTIME_SECONDS = 946_684_800;
/** What the kernel takes at most: its name buffer (PATH_MAX). */
const MAX_PATH_BYTES = 4096;

/**
 * The archive of `entries`, in their order; folders that are not named are made before what lies in them.
 *
 * @throws RangeError for a path that is empty, absolute, holds '..' or a NUL, is too long, or stands there twice.
 */
export function cpioArchive(entries: readonly CpioEntry[]): Uint8Array {
  const parts: Uint8Array[] = [];
  const written = new Set<string>();
  let inode = 1;
  const write = (entry: CpioEntry): void => {
    const data = dataOf(entry);
    const name = Buffer.from(`${entry.path}\0`);
    parts.push(header(entry, inode++, data.length, name.length), name, padding(110 + name.length));
    parts.push(data, padding(data.length));
    written.add(entry.path);
  };
  for (const entry of entries) {
    checkPath(entry.path);
    if (written.has(entry.path)) throw new RangeError(`${entry.path} stands twice in the archive`);
    const components = entry.path.split('/');
    for (let depth = 1; depth < components.length; depth++) {
      const folder = components.slice(0, depth).join('/');
      if (!written.has(folder)) write({ path: folder, type: 'directory' });
    }
    write(entry);
  }
  const trailer = Buffer.from('TRAILER!!!\0');
  parts.push(headerText([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, trailer.length, 0]), trailer, padding(110 + trailer.length));
  return Buffer.concat(parts);
}

function header(entry: CpioEntry, inode: number, sizeBytes: number, nameSizeBytes: number): Uint8Array {
  const [major, minor] = entry.type === 'character' ? [entry.major, entry.minor] : [0, 0];
  const links = entry.type === 'directory' ? 2 : 1;
  return headerText([
    ...[inode, modeOf(entry), 0, 0, links, MTIME_SECONDS, sizeBytes],
    ...[0, 0, major, minor, nameSizeBytes, 0],
  ]);
}

function headerText(fields: readonly number[]): Uint8Array {
  return Buffer.from('070701' + fields.map((field) => field.toString(16).toUpperCase().padStart(8, '0')).join(''));
}

function modeOf(entry: CpioEntry): number {
  switch (entry.type) {
    case 'file':
      return S_IFREG | (entry.mode ?? 0o644);
    case 'directory':
      return S_IFDIR | (entry.mode ?? 0o755);
    case 'symlink':
      return S_IFLNK | 0o777;
    case 'character':
      return S_IFCHR | (entry.mode ?? 0o600);
  }
}

function dataOf(entry: CpioEntry): Uint8Array {
  if (entry.type === 'file') return entry.data;
  return entry.type === 'symlink' ? Buffer.from(entry.target) : new Uint8Array(0);
}

function padding(lengthBytes: number): Uint8Array {
  return new Uint8Array((4 - (lengthBytes % 4)) % 4);
}

function checkPath(path: string): void {
  const bad =
    path === '' ||
    path.startsWith('/') ||
    path.endsWith('/') ||
    path.includes('\0') ||
    path.split('/').some((component) => component === '' || component === '.' || component === '..') ||
    Buffer.byteLength(path) >= MAX_PATH_BYTES;
  if (bad) throw new RangeError(`'${path}' is no path for an archive`);
}
