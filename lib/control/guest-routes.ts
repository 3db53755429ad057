/** What can be asked of the guest itself over the control socket: its files and ports. All of it is done by the agent in the guest. */
import { Readable } from 'node:stream';
import {
  listGuestFolder,
  MAX_GUEST_FILE_BYTES,
  readGuestFile,
  writeGuestFile,
  type GuestEntry,
  type GuestPath,
} from '../agent/guest-files.js';
import { waitForGuestPort } from '../agent/guest-port.js';
import { Listening, ListQuery, Listing, PortQuery, ReadQuery, WriteQuery } from './guest-schemas.js';
import { readBounded } from './output-streams.js';
import { route, type Route } from './route.js';
import { Nothing } from './schemas.js';

export const GUEST_ROUTES: readonly Route[] = [
  route(
    {
      method: 'GET',
      path: '/v1/files',
      summary: 'the bytes of a file in the guest',
      query: ReadQuery,
      answer: 'bytes',
    },
    async ({ target: { agents }, query, signal }) => {
      const { place, options } = placeIn(query);
      return Readable.from([await readGuestFile(agents, place, { ...options, signal })]);
    },
  ),
  route(
    {
      method: 'PUT',
      path: '/v1/files',
      summary: 'makes a file in the guest of the bytes that are sent',
      query: WriteQuery,
      body: 'bytes',
      readsWhole: true,
      answer: Nothing,
    },
    async ({ target: { agents }, query, stream, signal }) => {
      const bytes = await readBounded(stream, MAX_GUEST_FILE_BYTES);
      const { place, options } = placeIn(query);
      const { mode, ...more } = options;
      const how = mode === undefined ? more : { ...more, mode: parseInt(mode, 8) };
      await writeGuestFile(agents, place, bytes, { ...how, signal });
      return {};
    },
  ),
  route(
    {
      method: 'GET',
      path: '/v1/files/list',
      summary: 'what is in a folder of the guest',
      query: ListQuery,
      answer: Listing,
    },
    async ({ target: { agents }, query, signal }): Promise<Listing> => {
      const { place, options } = placeIn(query);
      const entries = await listGuestFolder(agents, place, { ...options, signal });
      return { entries: entries.map(entryOf) };
    },
  ),
  route(
    {
      method: 'GET',
      path: '/v1/wait/port',
      summary: 'answers when something in the guest listens on a TCP port',
      query: PortQuery,
      answer: Listening,
    },
    async ({ target: { agents, clock }, query: { port, timeoutMs }, signal }): Promise<Listening> => {
      const limit = timeoutMs === undefined ? {} : { timeoutMs };
      const { addresses } = await waitForGuestPort(agents, clock, port, { ...limit, signal });
      return { port, addresses: [...addresses] };
    },
  ),
];

/** The place and the rest of a query. @throws TypeError */
function placeIn<Q extends { readonly path?: string; readonly pathBase64?: string }>(
  query: Q,
): { place: GuestPath; options: Omit<Q, 'path' | 'pathBase64'> } {
  const { path, pathBase64, ...options } = query;
  if ((path === undefined) === (pathBase64 === undefined))
    throw new TypeError('querystring: one of path, pathBase64 is wanted');
  return { place: path ?? Buffer.from(pathBase64!, 'base64'), options };
}

function entryOf({ nameBytes, ...entry }: GuestEntry): Listing['entries'][number] {
  return nameBytes === undefined ? entry : { ...entry, nameBase64: Buffer.from(nameBytes).toString('base64') };
}
