/**
 * Writes bytes to a stream of the command's at the pace it takes them. A reader that went away (EPIPE) is a result,
 * not an exception.
 */
import type { Writable } from 'node:stream';

/** Resolves when the writable takes more, or is closed or broken. */
function drained(writable: Writable): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      for (const event of ['drain', 'close', 'error'] as const) writable.off(event, done);
      resolve();
    };
    for (const event of ['drain', 'close', 'error'] as const) writable.on(event, done);
  });
}

/** Copies `source` to `target` until its end; 'broken' when the target failed before. */
export async function pumpOutput(source: AsyncIterable<Uint8Array>, target: Writable): Promise<'ended' | 'broken'> {
  let broken = false;
  const onError = (): void => void (broken = true);
  target.on('error', onError);
  for await (const chunk of source) {
    if (isBroken()) return 'broken';
    if (!target.write(chunk)) await drained(target);
  }
  // The last write may fail yet.
  if (!isBroken()) await flushed(target);
  if (isBroken()) return 'broken';
  target.off('error', onError);
  return 'ended';

  function isBroken(): boolean {
    return broken || target.destroyed || target.errored !== null;
  }
}

/** Resolves when everything written so far was handed to the system, or can't be any more. */
export function flushed(writable: Writable): Promise<void> {
  if (writable.destroyed || writable.errored !== null || !writable.writable) return Promise.resolve();
  if (writable.writableLength === 0) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      writable.off('close', done);
      writable.off('error', done);
      resolve();
    };
    writable.on('close', done);
    writable.on('error', done);
    writable.write('', done);
  });
}
