/**
 * The client's way to the broker: finds the one that runs, retires one of another build, starts one where there is none.
 * Ends where a link to a broker of the right key is there; sessions are session.ts's business.
 */
import { spawn } from 'node:child_process';
import { openSync, closeSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { AbortError, VmmError } from '../base/errors.js';
import { silentLogger } from '../base/logger.js';
import type { ImageOptions } from '../images/options.js';
import type { BrokerConfiguration } from './broker.js';
import { builtFile, hostFolders, PACKAGE_ROOT, type HostFolders } from './folders.js';
import { FRAME_MESSAGE, type Frame } from './frames.js';
import { hostImage } from './image.js';
import { Link } from './link.js';
import { messageOf, ONLY_SESSION, PROTOCOL_VERSION, type HostStatus, type Message } from './messages.js';
import { locateQemu, qemuArguments } from './qemu.js';

/** How often a socket that is not there yet is tried. */
const RETRY_MS = 40;
/** A broker that neither listens nor says why by then is given up. */
const BROKER_DEADLINE_MS = 30_000;

export interface ConnectOptions extends ImageOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** A connection to the broker, with what it said at first. */
export interface HostConnection {
  readonly link: Link;
  readonly status: HostStatus;
  /** Who hears of frames and of the end from now on. */
  listen(handlers: { onFrame(frame: Frame): void; onEnd(error: Error | undefined): void }): void;
}

/** What makes a running host the right one: its image, QEMU, and the code of the broker. */
export async function hostKey(options: ConnectOptions = {}): Promise<string> {
  const image = await hostImage(options);
  const qemu = await locateQemu(options.env);
  const { size, mtimeMs } = statSync(qemu.path);
  const hash = createHash('sha256').update(JSON.stringify([PROTOCOL_VERSION, image.key, qemu, size, mtimeMs]));
  const folder = join(PACKAGE_ROOT, 'dist', 'host');
  for (const file of readdirSync(folder).sort()) {
    if (file.endsWith('.js')) hash.update(readFileSync(join(folder, file)));
  }
  return hash.digest('hex').slice(0, 16);
}

/**
 * A connection to the user's embedded host, started if need be.
 *
 * @throws VmmError ERR_SETUP when something to start it with is missing, ERR_EMBEDDED_HOST when it does not start;
 *   AbortError.
 */
export async function connectHost(options: ConnectOptions = {}): Promise<HostConnection> {
  const { signal } = options;
  const folders = hostFolders(options.env);
  const key = await hostKey(options);
  for (;;) {
    if (signal?.aborted === true) throw new AbortError(signal);
    const found = await greet(folders.socket, key, signal);
    if (found?.status.key === key && found.status.state !== 'draining') return found;
    if (found !== undefined) {
      (options.log ?? silentLogger).log(
        'info',
        'the running embedded host is of another build; it ends with its sessions',
      );
      found.link.sendMessage(ONLY_SESSION, { type: 'drain' });
      found.link.close();
      await untilGone(folders.socket, found.status.brokerPid, signal);
    }
    await startBroker(folders, key, options);
  }
}

/** A connection to whatever host runs now, undefined when none does. */
export async function connectRunning(
  options: Pick<ConnectOptions, 'env' | 'signal'> = {},
): Promise<HostConnection | undefined> {
  return greet(hostFolders(options.env).socket, '', options.signal);
}

async function startBroker(folders: HostFolders, key: string, options: ConnectOptions): Promise<void> {
  const { signal } = options;
  const env = options.env ?? process.env;
  const image = await hostImage(options);
  const qemu = await locateQemu(env);
  const configuration: BrokerConfiguration = {
    key,
    qemuPath: qemu.path,
    qemuArguments: qemuArguments(image),
    socket: folders.socket,
    lock: folders.lock,
    log: folders.log,
    idleMs: seconds(env, 'VIVARIUM_HOST_IDLE_SECONDS', 600),
    bootDeadlineMs: seconds(env, 'VIVARIUM_HOST_BOOT_SECONDS', 180),
    pingMs: 2000,
    stallPings: Math.ceil(seconds(env, 'VIVARIUM_HOST_STALL_SECONDS', 60) / 2000),
  };
  await rm(`${folders.log}.error`, { force: true });
  const words = openSync(`${folders.log}.broker`, 'w', 0o600);
  const broker = spawn(process.execPath, [builtFile('host', 'broker.js'), JSON.stringify(configuration)], {
    cwd: '/',
    detached: true,
    stdio: ['ignore', 'ignore', words],
  });
  closeSync(words);
  let exit: string | undefined;
  broker.once('error', (error) => (exit = error.message));
  broker.once('exit', (code, end) => (exit = code === 0 ? '' : `it ended with ${code ?? end ?? ''}`));
  broker.unref();
  const deadline = Date.now() + BROKER_DEADLINE_MS;
  for (;;) {
    const socket = await tryConnect(folders.socket);
    if (socket !== undefined) return void socket.destroy();
    // Another broker may be there that does not listen yet, so an orderly exit alone is no failure.
    if ((exit !== undefined && exit !== '') || Date.now() > deadline) {
      const said = await readFile(`${folders.log}.broker`, 'utf8').catch(() => '');
      throw new VmmError('ERR_EMBEDDED_HOST', `the embedded host's broker did not start: ${exit ?? ''} ${said.trim()}`);
    }
    if (exit === '' && Date.now() > deadline - BROKER_DEADLINE_MS + 3000) return;
    await pause(RETRY_MS, signal);
  }
}

async function greet(path: string, key: string, signal: AbortSignal | undefined): Promise<HostConnection | undefined> {
  const socket = await tryConnect(path);
  if (socket === undefined) return undefined;
  let handlers: Parameters<HostConnection['listen']>[0] | undefined;
  const early: Frame[] = [];
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      socket.destroy();
      reject(new AbortError(signal));
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    let greeted = false;
    const link = new Link(socket, socket, {
      onFrame: (frame) => {
        if (greeted) return handlers === undefined ? void early.push(frame) : handlers.onFrame(frame);
        const message: Message | undefined = frame.type === FRAME_MESSAGE ? messageOf(frame) : undefined;
        if (message?.type !== 'greeting') return;
        greeted = true;
        signal?.removeEventListener('abort', onAbort);
        resolve({
          link,
          status: message.status,
          listen: (next) => {
            handlers = next;
            for (const waiting of early.splice(0)) next.onFrame(waiting);
            if (link.ended) next.onEnd(undefined);
          },
        });
      },
      onEnd: (error) => {
        signal?.removeEventListener('abort', onAbort);
        if (greeted) handlers?.onEnd(error);
        else resolve(undefined); // it went while we came
      },
    });
    link.sendMessage(ONLY_SESSION, { type: 'greet', key });
  });
}

/** A connected socket, undefined when nobody listens there. */
function tryConnect(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.removeAllListeners('error');
      resolve(socket);
    });
    socket.once('error', () => resolve(undefined));
  });
}

/** Waits until the retired broker has given its socket up: it does so at once, whatever its sessions do. */
async function untilGone(path: string, brokerPid: number, signal: AbortSignal | undefined): Promise<void> {
  for (;;) {
    const socket = await tryConnect(path);
    if (socket === undefined) return;
    socket.destroy();
    const again = await greet(path, '', signal);
    again?.link.destroy();
    if (again === undefined || again.status.brokerPid !== brokerPid) return;
    await pause(RETRY_MS, signal);
  }
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await delay(ms, undefined, signal === undefined ? {} : { signal });
  } catch {
    throw new AbortError(signal);
  }
}

/** A number of seconds from the environment, in milliseconds. */
function seconds(env: Readonly<Record<string, string | undefined>>, name: string, fallback: number): number {
  const text = env[name];
  if (text === undefined || text === '') return fallback * 1000;
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0) throw new RangeError(`${name}: '${text}' is no number of seconds`);
  return value * 1000;
}
