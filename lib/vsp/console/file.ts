/** HAL: a guest's output appended to a file, readable by its owner alone. It gives the guest nothing to read. */
import { createWriteStream, openSync } from 'node:fs';
import { VmmError } from '../../base/errors.js';
import type { ConsoleBackend } from './contract.js';
import { streamConsole } from './stream.js';

/**
 * A port whose output is appended to `path`, which is made with mode 0600 when it is not there.
 *
 * @throws VmmError ERR_SYSTEM, with the path, when it can't be opened.
 */
export function fileConsole(path: string): ConsoleBackend {
  let fd: number;
  try {
    fd = openSync(path, 'a', 0o600);
  } catch (cause) {
    throw new VmmError('ERR_SYSTEM', `${path} can't be opened for the console's output: ${(cause as Error).message}`, {
      cause,
      cure: 'name a file in a directory that may be written to',
    });
  }
  const backend = streamConsole({ writable: createWriteStream(path, { fd }) });
  backend.describe = () => ({ kind: 'file', path });
  return backend;
}
