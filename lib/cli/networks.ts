/**
 * From the choice of a network to the network: one line for each kind. Whether what it stands on is there is found out
 * when it is opened.
 */
import type { Channel } from '../base/command-io.js';
import type * as Machines from '../machine/index.js';
import type { NetSource } from '../vsp/index.js';
import type { NetworkChoice, NicChoice } from './nic-option.js';

type Kind = NetworkChoice['kind'];
type Maker<K extends Kind> = (
  choice: Extract<NetworkChoice, { kind: K }> & { readonly mtuBytes: number | undefined },
  machines: typeof Machines,
  channels: readonly Channel[],
) => NetSource;

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
  carried: ({ channel }, { carriedNetwork }, channels) => carriedNetwork(channels[channel]!),
};

/** @throws RangeError for what only the network itself knows to be impossible, such as an MTU. */
export function networkOf(
  nic: NicChoice,
  machines: typeof Machines,
  channels: readonly Channel[] | undefined,
): NetSource {
  const make = NETWORKS[nic.network.kind] as Maker<Kind>;
  return make({ ...nic.network, mtuBytes: nic.mtuBytes }, machines, channels ?? []);
}
