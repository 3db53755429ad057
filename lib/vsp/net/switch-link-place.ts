/**
 * Where the processes of one user that share a switch find each other: a lock and a socket by the switch's name in the
 * runtime folder. Whoever has the lock may listen; the kernel drops it with the process, whatever happens to that, so a
 * socket without a living process is known as one and replaced. The lock's file stays, since a lock on a file that is
 * taken away would be worth nothing.
 */
import { closeSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { VmmError } from '../../base/errors.js';
import { lockFile } from '../../memory/index.js';

/** sun_path without its closing zero (unix(7)). */
const MAX_PATH_BYTES = 107;

export class SwitchPlace {
  readonly socketPath: string;
  readonly #lockPath: string;
  #fd: number | undefined;

  /** @throws VmmError ERR_SETUP when the path is too long for a socket. */
  constructor(folder: string, name: string) {
    this.socketPath = join(folder, `${name}.sock`);
    this.#lockPath = join(folder, `${name}.lock`);
    if (Buffer.byteLength(this.socketPath) <= MAX_PATH_BYTES) return;
    throw new VmmError('ERR_SETUP', `${this.socketPath} is too long for the address of a socket`, {
      cure: 'a shorter name, or XDG_RUNTIME_DIR set to a shorter path',
    });
  }

  /**
   * Takes the lock, if nobody has it, and takes away what a dead process left. Whether it is taken.
   *
   * @throws SystemError or Error of node:fs when the folder can't be used.
   */
  tryTake(): boolean {
    const fd = openSync(this.#lockPath, 'a', 0o600);
    let isTaken = false;
    try {
      isTaken = lockFile(fd, 'exclusive');
      if (isTaken) rmSync(this.socketPath, { force: true });
    } finally {
      if (!isTaken) closeSync(fd);
    }
    if (isTaken) this.#fd = fd;
    return isTaken;
  }

  /** Lets another take it. Idempotent. */
  release(): void {
    if (this.#fd === undefined) return;
    // In this order: afterwards the socket may be another's.
    rmSync(this.socketPath, { force: true });
    closeSync(this.#fd);
    this.#fd = undefined;
  }
}
