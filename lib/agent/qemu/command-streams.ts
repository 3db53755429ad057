/** The host's streams of a command that takes all of its input at its start, and gives all of its output at its end. */
import type { Readable, Writable } from 'node:stream';
import { AbortError, VmmError } from '../../base/errors.js';

/** Of input in one request: the agent takes four times that, and the host holds it in base64 meanwhile. */
export const MAX_INPUT_BYTES = 8 * 1024 * 1024;
const PIECE_BYTES = 64 * 1024;

/**
 * Reads a stream to its end; nothing where there is none. It is left paused.
 *
 * @throws VmmError ERR_AGENT for more than one request takes; AbortError
 */
export function collectInput(stdin: Readable | undefined, signal: AbortSignal): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(new AbortError(signal));
    if (stdin === undefined) return resolve(new Uint8Array(0));
    const chunks: Uint8Array[] = [];
    let lengthBytes = 0;
    const done = (): void => {
      stdin.off('data', onData).off('end', onEnd).off('close', onEnd).off('error', onEnd).pause();
      signal.removeEventListener('abort', onAbort);
    };
    const onAbort = (): void => (done(), reject(new AbortError(signal)));
    // As for vivarium's own agent: a terminal that went away is the end of the input.
    const onEnd = (): void => (done(), resolve(Buffer.concat(chunks)));
    const onData = (chunk: Uint8Array | string): void => {
      const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
      lengthBytes += bytes.length;
      if (lengthBytes <= MAX_INPUT_BYTES) {
        chunks.push(bytes);
        return;
      }
      done();
      reject(tooMuch());
    };
    signal.addEventListener('abort', onAbort, { once: true });
    if (stdin.readableEnded || stdin.destroyed) return onEnd();
    stdin.on('data', onData).on('end', onEnd).on('close', onEnd).on('error', onEnd).resume();
  });
}

function tooMuch(): VmmError {
  return new VmmError(
    'ERR_AGENT',
    `QEMU's agent takes a command's input in one piece: more than ${MAX_INPUT_BYTES} bytes can't be streamed to it`,
    { cure: 'send less at once, or bring it in on a disk or over a network' },
  );
}

/** In pieces, each when the one before was taken; resolves with what the stream failed with. */
export async function writeAll(writable: Writable | undefined, bytes: Uint8Array): Promise<Error | undefined> {
  if (writable === undefined || bytes.length === 0) return undefined;
  let failed!: (error: Error) => void;
  const failure = new Promise<Error>((resolve) => (failed = resolve));
  writable.on('error', failed);
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
    const written = new Promise<Error | undefined>((resolve) => {
      writable.write(bytes.subarray(at, at + PIECE_BYTES), (error) => resolve(error ?? undefined));
    });
    const error = await Promise.race([written, failure]);
    // It may say so once more, and must then be listened to.
    if (error !== undefined) return error;
  }
  writable.off('error', failed);
  return undefined;
}
