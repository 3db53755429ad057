/**
 * Files of the guest, one at a time: read, write, list, by tools that every guest with a shell has (cat, chmod, stat), run by the
 * agent. The guest is hostile: what comes is bounded, and a listing is held against what Linux allows before anything of it is told.
 */
import { Readable } from 'node:stream';
import { parseListing, type GuestEntry } from './guest-listing.js';
import { runGuestTool, type GuestToolOptions, type GuestTools } from './guest-tool.js';

/** Where a file lies in the guest, from its / on; as bytes where it need not be UTF-8. */
export type GuestPath = string | Uint8Array;

export interface ReadGuestFileOptions extends GuestToolOptions {
  /** A file that is longer is refused. Default, and at most, 16 MiB. */
  readonly maxBytes?: number;
}

export interface WriteGuestFileOptions extends GuestToolOptions {
  /** The file's permissions, such as 0o600. Default: a new one has 0o644, one that is there keeps its own. */
  readonly mode?: number;
  /** Behind what is there, rather than in its place. Default false. */
  readonly append?: boolean;
}

export const MAX_GUEST_FILE_BYTES = 16 * 1024 * 1024;
export const MAX_GUEST_PATH_BYTES = 4096;
const MAX_LISTING_BYTES = 8 * 1024 * 1024;
const DEFAULT_MODE = 0o644;
const CURE = 'cp copies files of any size';

/** PATH, MODE or nothing, UMASK, append or nothing. The mode is there before the first byte is. */
const WRITE = `umask "$3"
if [ "$4" ]; then exec >> "$1"; else exec > "$1"; fi || exit 1
if [ "$2" ]; then chmod "$2" "$1" || exit 1; fi
exec cat`;

/**
 * Each name with a / behind it, which no name holds, then what stat tells. Names are taken by the shell: its patterns take any byte.
 * A file that goes meanwhile is left out; what is said of it is no failure.
 */
const LIST = `if ! cd "$1" 2> /dev/null; then
  stat -L -c '' "$1" > /dev/null || exit
  if [ -d "$1" ]; then echo "$1: Permission denied"; else echo "$1: Not a directory"; fi >&2
  exit 1
fi
[ -r . ] || { echo "$1: Permission denied" >&2; exit 1; }
look() {
  stat -c '%n/%f %s %Y' -- "$@" 2> /dev/null
  [ $? -lt 126 ] || exit 127
}
set --
for name in * .[!.]* ..?*; do
  [ -e "$name" ] || [ -L "$name" ] || continue
  set -- "$@" "$name"
  [ $# -lt 200 ] || { look "$@"; set --; }
done
[ $# -eq 0 ] || look "$@"`;

/**
 * The bytes of a file.
 *
 * @throws TypeError or RangeError for what is no path or no bound; GuestFileError; VmmError ERR_TIMEOUT, ERR_AGENT; AbortError
 */
export async function readGuestFile(
  tools: GuestTools,
  path: GuestPath,
  options: ReadGuestFileOptions = {},
): Promise<Buffer> {
  const { maxBytes = MAX_GUEST_FILE_BYTES, ...call } = options;
  if (!Number.isInteger(maxBytes) || maxBytes < 0 || maxBytes > MAX_GUEST_FILE_BYTES)
    throw new RangeError(`maxBytes: ${maxBytes} is not between 0 and ${MAX_GUEST_FILE_BYTES}; ${CURE}`);
  const argv = ['cat', guestPath(path)] as const;
  return runGuestTool(tools, { ...call, what: wordsOf(path), argv, maxBytes, cure: CURE });
}

/** @throws RangeError */
export function requireFileMode(mode: number | undefined): void {
  if (mode !== undefined && !(Number.isInteger(mode) && mode >= 0 && mode <= 0o7777))
    throw new RangeError(`mode: ${mode} is not between 0 and 0o7777`);
}

/**
 * Makes a file of these bytes. One that is there stays the same file, with other bytes; a failure in the middle leaves it cut.
 *
 * @throws as readGuestFile
 */
export async function writeGuestFile(
  tools: GuestTools,
  path: GuestPath,
  bytes: Uint8Array,
  options: WriteGuestFileOptions = {},
): Promise<void> {
  const { mode, append = false, ...call } = options;
  requireFileMode(mode);
  if (bytes.length > MAX_GUEST_FILE_BYTES)
    throw new RangeError(`at most ${MAX_GUEST_FILE_BYTES} bytes are written at once; ${CURE}`);
  const umask = octal(0o777 & ~(mode ?? DEFAULT_MODE));
  const argv = ['sh', '-c', WRITE, 'write', guestPath(path), mode === undefined ? '' : octal(mode), umask] as const;
  const stdin = Readable.from(bytes.length === 0 ? [] : [bytes]);
  const what = wordsOf(path);
  await runGuestTool(tools, { ...call, what, argv: [...argv, append ? 'append' : ''], stdin, maxBytes: 0 });
}

/**
 * What is in a folder, without `.` and `..`, by name.
 *
 * @throws as readGuestFile; GuestFileError EFBIG for more than 100 000 entries or 8 MiB of names
 */
export async function listGuestFolder(
  tools: GuestTools,
  path: GuestPath,
  options: GuestToolOptions = {},
): Promise<GuestEntry[]> {
  const what = wordsOf(path);
  const argv = ['sh', '-c', LIST, 'list', guestPath(path)] as const;
  return parseListing(what, await runGuestTool(tools, { ...options, what, argv, maxBytes: MAX_LISTING_BYTES }));
}

/** The same path from / on. @throws TypeError, RangeError */
export function guestPath(path: GuestPath): GuestPath {
  const bytes = typeof path === 'string' ? new TextEncoder().encode(path) : path;
  if (bytes.includes(0)) throw new TypeError('a path in the guest can not hold a NUL');
  if (bytes.length > MAX_GUEST_PATH_BYTES) throw new RangeError(`a path of ${bytes.length} bytes is too long`);
  if (typeof path !== 'string') return path[0] === SLASH ? path : Uint8Array.of(SLASH, ...path);
  if (/\p{Surrogate}/u.test(path)) throw new TypeError('a path in the guest can not hold half a character');
  return path.startsWith('/') ? path : `/${path}`;
}

const SLASH = 0x2f;

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}

/** For people. */
function wordsOf(path: GuestPath): string {
  const text = typeof path === 'string' ? path : new TextDecoder().decode(path);
  return `${text.replace(/\p{Control}/gu, '?')} in the guest`;
}

export type { GuestEntry, GuestToolOptions, GuestTools };
