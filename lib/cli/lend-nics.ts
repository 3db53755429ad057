/**
 * Networks of this machine for a guest in the embedded host: each is opened here, with an address that no other machine
 * of this user has, and its frames go over a channel of the session. So the same command reaches the same hosts. When the process inside
 * asks for another one, that is opened here too, and takes the place of the first.
 */
import type { Channel } from '../base/command-io.js';
import type { Clock } from '../base/clock.js';
import { VmmError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { NetworkBackend } from '../control/index.js';
import type { LentNetworks, NetworkLender } from '../control/network-lender.js';
import type * as Machines from '../machine/index.js';
import type { NetBackend } from '../vsp/index.js';
import { networkOf } from './networks.js';
import type { NetworkChoice, NicChoice } from './nic-option.js';
import type { LentNics } from './world.js';

/** The machine's name in defaults of addresses: that of a run is not said yet. */
const MACHINE = 'vm';

export interface LendContext {
  readonly machines: typeof Machines;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

interface Lent {
  readonly id: string;
  readonly claim: Machines.MacClaim;
  /** What it is on at the moment. */
  backend?: NetBackend;
  /** Since the process inside is there. */
  relay?: Machines.CarriedRelay;
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
  const opened: Lent[] = [];
  let lender: Promise<NetworkLender | undefined> | undefined;
  const close = async (): Promise<void> => {
    await (await lender)?.close();
    const closed = await Promise.allSettled(opened.map(async ({ backend }) => backend?.close()));
    for (const { claim } of opened) claim.release();
    const failure = closed.find((result) => result.status === 'rejected');
    if (failure !== undefined) throw failure.reason as Error;
  };
  try {
    const inside: NicChoice[] = [];
    const join: ((channel: Channel) => void)[] = [];
    for (const [channel, nic] of nics.entries()) {
      const source = networkOf(nic, machines);
      const mac = nic.mac === undefined ? undefined : parseMac(nic.mac);
      const claim = claimMac({ machine: MACHINE, id: nic.id, mac });
      const entry: Lent = { id: nic.id, claim };
      opened.push(entry);
      const backend = await source.open({ id: nic.id, mac: claim.mac, clock, logger, signal });
      entry.backend = backend;
      inside.push({ ...nic, mac: formatMac(claim.mac), network: { kind: 'carried', channel } });
      join.push((streams) => (entry.relay = carryNetwork(backend, streams, { id: nic.id, clock, logger })));
    }
    const lendOthers = (channel: Channel): void => {
      lender = lendOver(channel, new Exchange(opened, context), logger);
    };
    return { nics: inside, join, lendOthers, close };
  } catch (error) {
    // What could not be closed says less than what could not be opened.
    await close().catch((reason: unknown) =>
      logger.log('warn', 'a network does not close', { reason: String(reason) }),
    );
    throw error;
  }
}

/** Loaded while the guest boots; what is asked before waits in the channel. */
async function lendOver(channel: Channel, nics: LentNetworks, logger: Logger): Promise<NetworkLender | undefined> {
  try {
    const { NetworkLender } = await import('../control/network-lender.js');
    return new NetworkLender(channel, nics, logger);
  } catch (error) {
    logger.log('warn', 'networks can not be exchanged', { reason: String(error) });
    channel.output.end();
    return undefined;
  }
}

class Exchange implements LentNetworks {
  readonly #lent: readonly Lent[];
  readonly #context: LendContext;

  constructor(lent: readonly Lent[], context: LendContext) {
    this.#lent = lent;
    this.#context = context;
  }

  /** With the address that the nic has. */
  async open(device: string, backend: NetworkBackend, signal: AbortSignal): Promise<NetBackend> {
    const { machines, clock, logger } = this.#context;
    const { claim } = this.#lentTo(device);
    const source = networkOf({ id: device, network: choiceOf(backend), mtuBytes: undefined }, machines);
    return source.open({ id: device, mac: claim.mac, clock, logger, signal });
  }

  async exchange(device: string, backend: NetBackend, change: number): Promise<void> {
    const entry = this.#lentTo(device);
    const { relay, backend: old } = entry;
    if (relay === undefined) throw new VmmError('ERR_STATE', `network ${device}: nobody is at the other end yet`);
    relay.exchange(backend, change);
    entry.backend = backend;
    try {
      await old?.close();
    } catch (error) {
      // The new one serves already: this is no failure of the change.
      const reason = { reason: String(error) };
      this.#context.logger.log('warn', `network ${device}: the network before could not be closed`, reason);
    }
  }

  /** @throws VmmError ERR_DEVICE */
  #lentTo(device: string): Lent {
    const found = this.#lent.find(({ id }) => id === device);
    if (found === undefined) throw new VmmError('ERR_DEVICE', `no nic '${device}' is lent into the embedded host`);
    return found;
  }
}

function choiceOf(backend: NetworkBackend): NetworkChoice {
  if (backend.kind !== 'passt') return backend;
  const forwards = (backend.forwards ?? []).map(({ host, guest, protocol = 'tcp', address }) => {
    return { address, hostPort: host, guestPort: guest, protocol };
  });
  return { kind: 'passt', forwards };
}
