/**
 * What the devices of a restored machine stand on where its caller does not say: networks by the names in their descriptions, as
 * far as these are enough. A snapshot may be anybody's, so no description makes a file or socket be opened: a disk stands on what
 * its reference is checked to be (restore-plan.ts), and a console port needs an override.
 */
import { VmmError } from '../../base/errors.js';
import {
  type BlockSource,
  callbackConsole,
  type ConsoleSource,
  type EntropySource,
  hostEntropy,
  memoryDisk,
  type NetSource,
  networkSwitch,
  passt,
  tap,
} from '../../vsp/index.js';

type Description = Readonly<Record<string, unknown>>;

/** Backends by the devices' ids. These are never opened: for a look at all the rest of a configuration. */
export const STAND_INS = {
  disks: (_id: string): BlockSource => memoryDisk(512),
  nics: (_id: string): NetSource => networkSwitch('none'),
  console: (_id: string): ConsoleSource => callbackConsole(() => undefined),
  entropy: (): EntropySource => hostEntropy(),
};

/**
 * The same tap, by its name, or switch, by that and its MTU; a passt without forwards, with the bounds that it had. Of a recorder what it recorded: its
 * file is the saved machine's; of a carried one what was at the other end.
 *
 * @throws VmmError ERR_SNAPSHOT naming a nic whose network the snapshot can't name; RangeError for a name that is none.
 */
export function netSource(id: string, description: Description): NetSource {
  const { kind, name, forwards, hostLoopback, mtuBytes } = innermost(description);
  if (kind === 'passt' && forwards === '' && typeof hostLoopback === 'boolean' && typeof mtuBytes === 'number') {
    return passt({ hostLoopback, mtuBytes });
  }
  if (typeof name === 'string') {
    if (kind === 'tap') return tap(name);
    if (kind === 'switch') return networkSwitch(name, typeof mtuBytes === 'number' ? { mtuBytes } : {});
  }
  throw unnamed('nic', id, kind, 'nics');
}

/** Below what merely stands around it. */
export function innermost(description: Description): Description {
  let inner = description;
  for (let depth = 0; depth < MAX_AROUND && WRAPPERS.has(inner['kind']); depth++) {
    const { around } = inner;
    if (!isDescription(around)) break;
    inner = around;
  }
  return inner;
}

const WRAPPERS: ReadonlySet<unknown> = new Set(['recorder', 'carried']);
const MAX_AROUND = 2;

/** For a device whose backend is not opened again by itself. */
export function unnamed(what: string, id: string, kind: unknown, option: string): VmmError {
  return new VmmError(
    'ERR_SNAPSHOT',
    `the ${what} '${id}' stood on '${String(kind)}', which is not opened again by itself`,
    { cure: `overrides: { ${option}: { '${id}': ... } }` },
  );
}

function isDescription(value: unknown): value is Description {
  return typeof value === 'object' && value !== null;
}
