/** What is asked of the guest itself over the control socket, as schemas. */
import { type Static, Type } from '@sinclair/typebox';
import { MAX_GUEST_FILE_BYTES, MAX_GUEST_PATH_BYTES } from '../agent/guest-files.js';
import { TYPES } from '../agent/guest-listing.js';
import { choice, Milliseconds, Path, Port } from './schemas.js';

const strict = { additionalProperties: false } as const;

export const PortQuery = Type.Object(
  {
    port: Port,
    timeoutMs: Type.Optional(
      Type.Integer({ ...Milliseconds, description: 'for the agent and the port; default never' }),
    ),
  },
  strict,
);

export const Listening = Type.Object({
  port: Port,
  addresses: Type.Array(Type.String(), { description: "the guest's, on which something listens" }),
});
export type Listening = Static<typeof Listening>;

const AGENT = { waitMs: Type.Optional(Milliseconds) };
/** One of the two. */
const PLACE = {
  path: Type.Optional(Path),
  pathBase64: Type.Optional(
    Type.String({
      maxLength: Math.ceil(MAX_GUEST_PATH_BYTES / 3) * 4,
      pattern: '^[A-Za-z0-9+/]+={0,2}$',
      description: 'in place of path, where it is no UTF-8',
    }),
  ),
};

export const ReadQuery = Type.Object(
  {
    ...PLACE,
    ...AGENT,
    maxBytes: Type.Optional(
      Type.Integer({ minimum: 0, maximum: MAX_GUEST_FILE_BYTES, description: 'a longer file is refused' }),
    ),
  },
  strict,
);

export const WriteQuery = Type.Object(
  {
    ...PLACE,
    ...AGENT,
    mode: Type.Optional(
      Type.String({ pattern: '^[0-7]{1,4}$', description: 'in octal; default 644 of a new file, else as it is' }),
    ),
    append: Type.Optional(Type.Boolean({ description: 'behind what is there; default false' })),
  },
  strict,
);

export const ListQuery = Type.Object({ ...PLACE, ...AGENT }, strict);

export const Listing = Type.Object({
  entries: Type.Array(
    Type.Object({
      name: Type.String({ description: 'bytes that are no UTF-8 are U+FFFD' }),
      nameBase64: Type.Optional(Type.String({ description: 'the bytes of a name that is no UTF-8' })),
      type: choice([...TYPES, 'other'], 'a link is not followed'),
      sizeBytes: Type.Integer(),
      mode: Type.Integer({ description: 'permissions, at most 0o7777' }),
      modifiedMs: Type.Integer({ description: 'since 1970, in whole seconds' }),
    }),
  ),
});
export type Listing = Static<typeof Listing>;
