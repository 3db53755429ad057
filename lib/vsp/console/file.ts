/** HAL: a guest's output appended to a file, readable by its owner alone. It gives the guest nothing to read. */
import { createWriteStream, openSync } from 'node:fs';
import { VmmError } from '../../base/errors.js';
import type { BackendDescription } from '../contract.js';
import type { ConsoleBackend, ConsoleSource } from './contract.js';
import { StreamBackend } from './stream.js';

/** A port whose output is appended to `path`, which is made with mode 0600 when it is not there. */
export function fileConsole(path: string): ConsoleSource {
  if (typeof path !== 'string') throw new TypeError('fileConsole: a path is wanted');
  const description = { kind: 'file', path };
  return { class: 'console', describe: () => description, open: () => openFile(path, description) };
}

/** @throws VmmError ERR_SYSTEM, with the path, when it can't be opened. */
function openFile(path: string, description: BackendDescription): ConsoleBackend {
  let fd: number;
  try {
    fd = openSync(path, 'a', 0o600);
  } catch (cause) {
    throw new VmmError('ERR_SYSTEM', `${path} can't be opened for the console's output: ${(cause as Error).message}`, {
      cause,
      cure: 'name a file in a directory that may be written to',
    });
  }
  return new StreamBackend({ writable: createWriteStream(path, { fd }) }, description);
}
