/**
 * Networks of this machine for a guest in the embedded host: each is opened here, with an address that no other machine
 * of this user has, and its frames go over a channel of the session. So the same command reaches the same hosts.
 */
import type { Channel } from '../base/command-io.js';
import type { Clock } from '../base/clock.js';
import type { Logger } from '../base/logger.js';
import type * as Machines from '../machine/index.js';
import type { NetBackend } from '../vsp/index.js';
import { networkOf } from './networks.js';
import type { NicChoice } from './nic-option.js';
import type { LentNics } from './world.js';

/** The machine's name in defaults of addresses: that of a run is not said yet. */
const MACHINE = 'vm';

export interface LendContext {
  readonly machines: typeof Machines;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/**
 * Opens the networks of `nics`; the choices that it gives are for the command inside, which finds them at its channels.
 *
 * @throws VmmError ERR_DEVICE, ERR_STATE and what a network throws; AbortError. Nothing is open then. `close` of what it
 *   gives closes all networks and lets all addresses go, then throws the first failure of a network.
 */
export async function lendNics(nics: readonly NicChoice[], context: LendContext): Promise<LentNics> {
  const { machines, clock, logger, signal } = context;
  const { carryNetwork, claimMac, formatMac, parseMac } = machines;
  const opened: { claim: Machines.MacClaim; backend?: NetBackend }[] = [];
  const close = async (): Promise<void> => {
    const closed = await Promise.allSettled(opened.map(async ({ backend }) => backend?.close()));
    for (const { claim } of opened) claim.release();
    const failure = closed.find((result) => result.status === 'rejected');
    if (failure !== undefined) throw failure.reason as Error;
  };
  try {
    const inside: NicChoice[] = [];
    const join: ((channel: Channel) => void)[] = [];
    for (const [channel, nic] of nics.entries()) {
      const source = networkOf(nic, machines, undefined);
      const mac = nic.mac === undefined ? undefined : parseMac(nic.mac);
      const claim = claimMac({ machine: MACHINE, id: nic.id, mac });
      const entry: (typeof opened)[number] = { claim };
      opened.push(entry);
      const backend = await source.open({ id: nic.id, mac: claim.mac, clock, logger, signal });
      entry.backend = backend;
      inside.push({ ...nic, mac: formatMac(claim.mac), network: { kind: 'carried', channel } });
      join.push((streams) => carryNetwork(backend, streams, { id: nic.id, clock, logger }));
    }
    return { nics: inside, join, close };
  } catch (error) {
    // What could not be closed says less than what could not be opened.
    await close().catch((reason: unknown) =>
      logger.log('warn', 'a network does not close', { reason: String(reason) }),
    );
    throw error;
  }
}
