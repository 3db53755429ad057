/** A machine that something is asked of: one that does not answer is not waited for without end. */
import { VmmError } from '../base/errors.js';
import type { RemoteMachine } from '../control/index.js';
import type { DashboardWorld } from './world.js';

const ANSWER_NS = 10_000_000_000n;

/** @throws as DashboardWorld.connect; VmmError ERR_TIMEOUT when it does not answer in 10 s */
export async function reach(
  name: string,
  { connect, clock }: Pick<DashboardWorld, 'connect' | 'clock'>,
  signal: AbortSignal,
): Promise<RemoteMachine> {
  const late = new AbortController();
  const timer = clock.setTimer(ANSWER_NS, () => late.abort());
  try {
    return await connect(name, AbortSignal.any([signal, late.signal]));
  } catch (error) {
    if (!late.signal.aborted) throw error;
    throw new VmmError('ERR_TIMEOUT', `${name} does not answer`, { cure: `end its process: vivarium ps tells which` });
  } finally {
    timer.cancel();
  }
}
