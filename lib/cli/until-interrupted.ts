/** Work that Ctrl-C and the like end, with the status of the signal. */
import type { Clock } from '../base/clock.js';
import type { CommandIo } from '../base/command-io.js';
import { AbortError } from '../base/errors.js';
import { statusOfSignal } from './exit-status.js';
import { Interruption } from './interruption.js';

/** Runs `work` with a signal that Ctrl-C and the like fire. @throws what `work` does, but for the end that a signal gave it */
export async function untilInterrupted(
  { io, world }: { readonly io: CommandIo; readonly world: { readonly clock: Clock } },
  work: (signal: AbortSignal) => Promise<number>,
): Promise<number> {
  const interruption = new Interruption(io, world.clock, { timeoutMs: undefined });
  try {
    return await work(interruption.signal);
  } catch (error) {
    const { cause } = interruption;
    if (error instanceof AbortError && cause?.kind === 'signal') return statusOfSignal(cause.signal);
    throw error;
  } finally {
    interruption.dispose();
  }
}
