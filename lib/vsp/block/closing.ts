/**
 * The end of a disk whose backend may never answer. A request that is under way in a kernel or behind a network can't be
 * taken back: its data may move long after. So nobody waits for ever, and nothing that it could touch is given back:
 *
 *   closed = true, drained, backend closed     in time: that was all
 *   CLOSE_MS pass                              requests end with 'closed' for the guest's side, close() rejects;
 *                                              backend, image lock and guest memory stay until the backend answers
 */
import type { Clock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import type { Logger } from '../../base/logger.js';
import { waitFor } from '../deadline.js';
import type { BlockBackend } from './contract.js';

/**
 * How long a close waits for the backend. As long as Linux gives a SCSI disk for a command by default (SD_TIMEOUT of
 * drivers/scsi/sd.h, 30 s): a medium that is only slow has answered by then, and the last flush has its time.
 */
export const CLOSE_MS = 30_000;

/** The provider, as far as its end needs it. */
export interface ClosingHost {
  readonly id: string;
  readonly clock: Clock;
  readonly logger: Logger;
  backend(): BlockBackend;
  /** Tells whoever asked for what is in flight that it ended; how many requests there were. */
  giveUp(): number;
}

/**
 * Waits for `closed`, the draining and closing of the backend, and gives it up after CLOSE_MS.
 *
 * @throws VmmError ERR_TIMEOUT when it was given up; what `closed` rejects with.
 */
export async function closeInTime(host: ClosingHost, closed: Promise<void>): Promise<void> {
  const { id, clock, logger } = host;
  try {
    await waitFor(closed, { clock, maxNs: BigInt(CLOSE_MS) * 1_000_000n, what: `disk ${id}: its close` });
  } catch (error) {
    if (!(error instanceof VmmError) || error.code !== 'ERR_TIMEOUT') throw error;
    const backend = host.backend().describe();
    const requests = host.giveUp();
    const message = `disk ${id}: given up after ${CLOSE_MS} ms with ${requests} requests in its backend`;
    logger.log('error', message, { backend });
    void closed.then(
      () => logger.log('info', `disk ${id}: the backend that was given up is closed`, { backend }),
      (late: unknown) => logger.log('warn', `disk ${id}: a backend failed to close`, { error: late, backend }),
    );
    throw new VmmError('ERR_TIMEOUT', message, {
      cause: error,
      cure: 'the image stays locked, and may still be written to, until its backend answers or this process ends',
    });
  }
}
