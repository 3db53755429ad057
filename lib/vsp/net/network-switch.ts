/**
 * `networkSwitch(name)`: a switch that joins guests of all processes of this user that name it. It is there with the first
 * port and goes with the last. What a process has of it is a SwitchHub (switch-link-hub.ts), one for each name.
 */
import { AbortError } from '../../base/errors.js';
import { checkInteger, checkOptionNames } from '../../base/options.js';
import { runtimeFolder } from '../../base/user-folders.js';
import type { NetBackend } from './contract.js';
import type { NetOpenContext, NetSource } from './source.js';
import { SwitchHub } from './switch-link-hub.js';
import { SwitchPlace } from './switch-link-place.js';

export interface NetworkSwitchOptions {
  /** The most behind the header of a frame, 68 to 65521; all ports of a switch have the same. Default 1500, or as it is. */
  readonly mtuBytes?: number;
  /** Where its processes meet, a folder for this user alone; a parameter for tests. */
  readonly folder?: string;
}

/** Ports of one hub, whose number says when it goes. */
interface Held {
  readonly hub: SwitchHub;
  users: number;
}

const hubs = new Map<string, Held>();
/** Keeps the process alive while a port is opened, for which nothing else may. */
const NEVER_MS = 2 ** 31 - 1;

/**
 * A switch that joins guests of this user.
 *
 * @throws TypeError for what is no name (letters, digits, '.', '_' and '-', at most 63), RangeError for an MTU that is
 *   none. On opening VmmError ERR_DEVICE: it has another MTU, or the process that has it does not answer; ERR_SETUP: the
 *   runtime folder can't be used.
 * @example nics: [{ id: 'net0', backend: networkSwitch('lan') }]
 */
export function networkSwitch(name: string, options: NetworkSwitchOptions = {}): NetSource {
  if (typeof name !== 'string' || !/^[A-Za-z0-9][\w.-]{0,62}$/.test(name)) {
    throw new TypeError(
      `networkSwitch: ${JSON.stringify(name)} is no name; letters, digits, '.', '_' and '-', at most 63`,
    );
  }
  checkOptionNames('networkSwitch', options, ['mtuBytes', 'folder']);
  const { mtuBytes, folder } = options;
  if (mtuBytes !== undefined) checkInteger('networkSwitch: mtuBytes', mtuBytes, 68, 65521);
  return {
    class: 'network',
    describe: () => ({ kind: 'switch', name, ...(mtuBytes !== undefined && { mtuBytes }) }),
    open: (context) => openPort(name, mtuBytes, folder ?? runtimeFolder('switches'), context),
  };
}

async function openPort(
  name: string,
  mtuBytes: number | undefined,
  folder: string,
  { clock, logger, signal }: NetOpenContext,
): Promise<NetBackend> {
  if (signal?.aborted === true) throw new AbortError(signal);
  const key = `${folder}/${name}`;
  const place = new SwitchPlace(folder, name);
  const held = hubs.get(key) ?? { hub: new SwitchHub({ name, place, mtuBytes, clock, logger }), users: 0 };
  hubs.set(key, held);
  held.users++;
  const release = () => {
    if (--held.users > 0) return;
    if (hubs.get(key) === held) hubs.delete(key);
    held.hub.close();
  };
  const alive = setInterval(() => {}, NEVER_MS);
  try {
    const port = await unlessAborted(held.hub.port(mtuBytes), signal);
    return closing(port, release);
  } catch (error) {
    release();
    throw error;
  } finally {
    clearInterval(alive);
  }
}

/** A port that comes too late is closed. @throws AbortError */
async function unlessAborted(opening: Promise<NetBackend>, signal: AbortSignal | undefined): Promise<NetBackend> {
  if (signal === undefined) return opening;
  let onAbort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(new AbortError(signal));
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([opening, aborted]);
  } catch (error) {
    void opening.then((port) => port.close()).catch(() => {});
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** The port, with `release` called once when it is closed. */
function closing(port: NetBackend, release: () => void): NetBackend {
  const close = port.close.bind(port);
  let closed: Promise<void> | undefined;
  port.close = () => (closed ??= close().finally(release));
  return port;
}
