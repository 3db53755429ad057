/**
 * HAL: a console port on a UNIX socket that listens, for one client at a time, which may go and come again. Without a
 * client the guest's output is dropped, and the guest is told that nobody is there.
 *
 * Only its owner may connect: the socket is made in a private directory, gets mode 0600, and is then renamed to its
 * place, so that at no moment anybody else can connect.
 */
import { chmod, lstat, mkdtemp, rename, rm, unlink } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import path from 'node:path';
import { VmmError } from '../../base/errors.js';
import type { BackendDescription } from '../contract.js';
import type { ConsoleBackend, ConsoleHostEnd, ConsoleSource } from './contract.js';
import { writeTo } from './stream.js';

const PRIVATE_PREFIX = '.vv-';
const PRIVATE_NAME = 's';
/** What mkdtemp(3) adds to a prefix. */
const RANDOM_CHARS = 6;
/** sun_path without its closing zero (unix(7)), since the socket is first made in a private directory beside its place. */
const MAX_PATH_BYTES = 107 - (1 + PRIVATE_PREFIX.length + RANDOM_CHARS + 1 + PRIVATE_NAME.length);

/**
 * A port on a socket that will listen on `socketPath`. A socket that a dead process left there is replaced.
 *
 * @throws RangeError for a path that is too long.
 */
export function unixSocketConsole(socketPath: string): ConsoleSource {
  if (typeof socketPath !== 'string') throw new TypeError('unixSocketConsole: a path is wanted');
  const full = path.resolve(socketPath);
  if (Buffer.byteLength(full) > MAX_PATH_BYTES) {
    throw new RangeError(`${full}: a socket's path has at most ${MAX_PATH_BYTES} bytes`);
  }
  return { class: 'console', describe: () => ({ kind: 'unix-socket', path: full }), open: () => listen(full) };
}

/** @throws VmmError ERR_STATE when somebody listens there or it is no socket, ERR_SYSTEM for what else went wrong. */
async function listen(full: string): Promise<ConsoleBackend> {
  await checkFree(full);
  const server = createServer({ pauseOnConnect: true });
  let folder: string | undefined;
  try {
    folder = await mkdtemp(path.join(path.dirname(full), PRIVATE_PREFIX));
    const made = path.join(folder, PRIVATE_NAME);
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(made, resolve));
    await chmod(made, 0o600);
    const { ino } = await lstat(made);
    await rename(made, full);
    return new UnixSocketBackend(full, ino, server);
  } catch (cause) {
    server.close();
    throw new VmmError('ERR_SYSTEM', `${full}: can't listen there: ${(cause as Error).message}`, { cause });
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

async function checkFree(full: string): Promise<void> {
  const stats = await lstat(full).catch(() => undefined);
  if (stats === undefined) return;
  if (!stats.isSocket())
    throw new VmmError('ERR_STATE', `${full} is there, and no socket`, { cure: 'name another path' });
  const used = await new Promise<boolean>((resolve) => {
    const probe = connect(full);
    probe.once('connect', () => resolve(true)).once('error', () => resolve(false));
    probe.once('close', () => probe.removeAllListeners());
    probe.once('connect', () => probe.destroy());
  });
  if (used) throw new VmmError('ERR_STATE', `${full}: another process listens there`, { cure: 'name another path' });
}

class UnixSocketBackend implements ConsoleBackend {
  readonly #path: string;
  readonly #ino: number;
  readonly #server: Server;
  #host: ConsoleHostEnd | undefined;
  #client: Socket | undefined;
  #paused = false;
  #closed: Promise<void> | undefined;

  constructor(full: string, ino: number, server: Server) {
    this.#path = full;
    this.#ino = ino;
    this.#server = server;
    server.on('connection', (socket) => this.#connected(socket));
    server.on('error', () => {});
  }

  start(host: ConsoleHostEnd): void {
    this.#host = host;
    if (this.#client) this.#serve(this.#client);
  }

  write(bytes: Uint8Array): Promise<void> | undefined {
    return this.#client && writeTo(this.#client, bytes);
  }

  setPaused(paused: boolean): void {
    this.#paused = paused;
    if (paused) this.#client?.pause();
    else if (this.#host) this.#client?.resume();
  }

  describe(): BackendDescription {
    return { kind: 'unix-socket', path: this.#path, connected: this.#client !== undefined };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#host = undefined;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    // What the kernel has taken goes out; a client that does not read the rest is not waited for.
    this.#client?.destroy();
    const stats = await lstat(this.#path).catch(() => undefined);
    if (stats?.ino === this.#ino) await unlink(this.#path).catch(() => {});
    await closed;
  }

  #connected(socket: Socket): void {
    socket.on('error', () => {});
    if (this.#client || this.#closed) {
      socket.destroy();
      return;
    }
    this.#client = socket;
    socket.once('close', () => {
      this.#client = undefined;
      this.#host?.open(false);
    });
    // The other side has ended its half: it is gone for us.
    socket.once('end', () => socket.end());
    if (this.#host) this.#serve(socket);
  }

  #serve(socket: Socket): void {
    socket.on('data', (bytes) => this.#host?.input(bytes));
    this.#host?.open(true);
    // Listening for data has set it flowing, or it was paused when it connected.
    if (this.#paused) socket.pause();
    else socket.resume();
  }
}
