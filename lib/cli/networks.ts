/**
 * From the choice of a network to the network: one line for each kind. Whether what it stands on is there is found out
 * when it is opened.
 */
import type { Channel } from '../base/command-io.js';
import type * as Machines from '../machine/index.js';
import type { CarriedNetwork, NetSource } from '../vsp/index.js';
import type { NetworkChoice, NicChoice } from './nic-option.js';

type Kind = NetworkChoice['kind'];
type Maker<K extends Kind> = (
  choice: Extract<NetworkChoice, { kind: K }> & Pick<NicChoice, 'id' | 'mtuBytes'>,
  machines: typeof Machines,
  inside: InsideNetworks,
) => NetSource;

/** Of a process inside the embedded host. */
export interface InsideNetworks {
  readonly channels: readonly Channel[];
  /** The networks at these, by the ids of their nics: others may follow them there (lib/control/backends.ts). */
  readonly carried: Map<string, CarriedNetwork>;
}

const OUTSIDE: InsideNetworks = { channels: [], carried: new Map() };

const NETWORKS: { readonly [K in Kind]: Maker<K> } = {
  switch: ({ name, mtuBytes }, { networkSwitch }) => networkSwitch(name, mtuBytes === undefined ? {} : { mtuBytes }),
  // An MTU of its own can only be below the interface's, which the provider sees to.
  tap: ({ name }, { tap }) => tap(name),
  passt: ({ forwards, mtuBytes }, { passt }) => {
    const ports = forwards.map(({ hostPort, guestPort, protocol, address }) => {
      return { host: hostPort, guest: guestPort, protocol, ...(address === undefined ? {} : { address }) };
    });
    return passt({ forwards: ports, ...(mtuBytes === undefined ? {} : { mtuBytes }) });
  },
  carried: ({ id, channel }, { carriedNetwork }, { channels, carried }) => {
    const network = carriedNetwork(channels[channel]!);
    carried.set(id, network);
    return network;
  },
};

/** @throws RangeError for what only the network itself knows to be impossible, such as an MTU. */
export function networkOf(
  { id, network, mtuBytes }: Pick<NicChoice, 'id' | 'network' | 'mtuBytes'>,
  machines: typeof Machines,
  inside: InsideNetworks = OUTSIDE,
): NetSource {
  const make = NETWORKS[network.kind] as Maker<Kind>;
  return make({ ...network, id, mtuBytes }, machines, inside);
}
