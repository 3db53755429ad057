/** Files in the guest of another process's machine, over its control socket. */
import { guestPath, requireFileMode, type GuestEntry, type GuestPath } from '../agent/guest-files.js';
import { checkOptionNames } from '../base/options.js';
import type { CallOptions } from '../machine/index.js';
import type { ControlClient } from './client.js';
import type { Listing } from './guest-schemas.js';

export interface GuestCallOptions extends CallOptions {
  /** For the agent in the guest. Default 30 000. */
  readonly waitMs?: number;
}

export interface ReadFileOptions extends GuestCallOptions {
  /** A file that is longer is refused. Default, and at most, 16 MiB. */
  readonly maxBytes?: number;
}

export interface WriteFileOptions extends GuestCallOptions {
  /** Its permissions, such as 0o600. Default: a new file has 0o644, one that is there keeps its own. */
  readonly mode?: number;
  /** Behind what is there, rather than in its place. Default false. */
  readonly append?: boolean;
}

/** As readGuestFile() of guest-files.ts. */
export async function readRemoteFile(
  client: ControlClient,
  path: GuestPath,
  options: ReadFileOptions,
): Promise<Uint8Array> {
  checkOptionNames('readFile', options, ['signal', 'waitMs', 'maxBytes']);
  const { signal, ...query } = options;
  return client.bytes('GET', '/v1/files', { query: { ...placeOf(path), ...query }, signal });
}

/** As writeGuestFile() of guest-files.ts. */
export async function writeRemoteFile(
  client: ControlClient,
  path: GuestPath,
  data: Uint8Array | string,
  options: WriteFileOptions,
): Promise<void> {
  checkOptionNames('writeFile', options, ['signal', 'waitMs', 'mode', 'append']);
  const { signal, mode, ...more } = options;
  requireFileMode(mode);
  const query = { ...placeOf(path), ...more, mode: mode?.toString(8) };
  await client.bytes('PUT', '/v1/files', { query, signal, bytes: Buffer.from(data) });
}

/** As listGuestFolder() of guest-files.ts. */
export async function listRemoteFolder(
  client: ControlClient,
  path: GuestPath,
  options: GuestCallOptions,
): Promise<GuestEntry[]> {
  checkOptionNames('list', options, ['signal', 'waitMs']);
  const { signal, ...query } = options;
  const { entries } = await client.request<Listing>('GET', '/v1/files/list', {
    query: { ...placeOf(path), ...query },
    signal,
  });
  return entries.map(({ nameBase64, ...entry }) =>
    nameBase64 === undefined ? entry : { ...entry, nameBytes: Uint8Array.from(Buffer.from(nameBase64, 'base64')) },
  );
}

/** @throws TypeError, RangeError for what is no path */
function placeOf(path: GuestPath): { path: string } | { pathBase64: string } {
  const place = guestPath(path);
  return typeof place === 'string' ? { path: place } : { pathBase64: Buffer.from(place).toString('base64') };
}
