/** Whether passt can be had here, for tests of it: a host may lack the program, or a network that it could use. */
import { hostClock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { silentLogger } from '../../base/logger.js';
import { passt } from './passt.js';

/** In passt's own words: no interface has an address and a route to elsewhere. */
const NO_NETWORK = /external( routable)? interface/i;

/** Why a passt that did not open for `error` can't be had here; undefined for what is a failure of it, or of ours. */
export function passtLackOf(error: unknown): string | undefined {
  if (!(error instanceof VmmError)) return undefined;
  const isLack = error.code === 'ERR_SETUP' || (error.code === 'ERR_DEVICE' && NO_NETWORK.test(error.message));
  return isLack ? error.message : undefined;
}

/** Opens one and closes it: why it can't be had, or nothing. @throws what it failed with, if that is no lack of the host. */
export async function whyNoPasst(): Promise<string | undefined> {
  try {
    const context = { id: 'net0', mac: 0x020000000042, logger: silentLogger, clock: hostClock };
    await (await passt().open(context)).close();
    return undefined;
  } catch (error) {
    const lack = passtLackOf(error);
    if (lack === undefined) throw error;
    return lack;
  }
}
