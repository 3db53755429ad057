// The other end of test/lib/disk-faults.c, for the process that runs with it: says which call fails, or lets writes wait.
import { openSync, readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import process from 'node:process';

const Mode = { OFF: 0, FAIL: 1, HOLD: 2 };
/** Offsets in the page: struct Page in disk-faults.c. */
const At = {
  MODE: 0,
  FAIL_AT: 4,
  ERRNO: 8,
  CALLS: 12,
  WAITING: 16,
  PERMITS: 20,
  READ_DELAY_US: 24,
  FAILED: 32,
  CALL: 928,
  FILE: 960,
  FOLDER: 1024,
};
const FAILED_BYTES = 896;

export class DiskFaults {
  #fd = openSync(process.env.VIVARIUM_DISK_FAULTS, 'r+');
  #folder;

  /** Of calls that change files below this folder, and the folder itself. */
  constructor(folder) {
    this.#folder = folder;
    this.#text(At.FOLDER, folder);
  }

  /**
   * The call of that number fails, the first being 1: once, and with that errno, such as 'EIO'. Only calls of that name count, and
   * for files of that pattern in the folder, which is '.', where these are given.
   */
  failAt(number, errno, call = '', file = '') {
    this.#set(At.MODE, Mode.OFF);
    this.#set(At.FAIL_AT, number);
    this.#set(At.ERRNO, constants.errno[errno]);
    this.#set(At.CALLS, 0);
    this.#text(At.FAILED, '');
    this.#text(At.CALL, call);
    this.#text(At.FILE, file);
    this.#set(At.MODE, Mode.FAIL);
  }

  /** Writes of groups wait from now on, but for so many. */
  hold(permits = 0) {
    this.#set(At.PERMITS, permits);
    this.#set(At.MODE, Mode.HOLD);
  }

  /** Writes of groups that wait. */
  get waiting() {
    return this.#get(At.WAITING);
  }

  /** So many more writes of groups go on. */
  permit(count) {
    this.#set(At.PERMITS, count);
  }

  /** Reads of groups take so much longer from now on, to the end of the process or another call. Below a second. */
  slowReads(delayMs) {
    this.#set(At.READ_DELAY_US, 1000 * delayMs);
  }

  /** Calls that change files come through from now on. What failed, if it came to that: the call, and its file below the folder. */
  end() {
    this.#set(At.MODE, Mode.OFF);
    const bytes = Buffer.alloc(FAILED_BYTES);
    readSync(this.#fd, bytes, 0, bytes.length, At.FAILED);
    const [call, file] = bytes.toString('utf8', 0, bytes.indexOf(0)).split(/ (.*)/s);
    return file === undefined ? undefined : { call, file: file.slice(this.#folder.length + 1) };
  }

  #get(at) {
    const bytes = Buffer.alloc(4);
    readSync(this.#fd, bytes, 0, 4, at);
    return bytes.readUInt32LE(0);
  }

  #set(at, value) {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    writeSync(this.#fd, bytes, 0, 4, at);
  }

  #text(at, text) {
    writeSync(this.#fd, `${text}\0`, at);
  }
}
