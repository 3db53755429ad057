/**
 * From the choice of a network to the network: one line for each kind. Whether what it stands on is there is found out
 * when it is opened.
 */
import type { Channel } from '../base/command-io.js';
import { VmmError } from '../base/errors.js';
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
  tap: () => notBuilt('tap'),
  passt: () => notBuilt('passt'),
  carried: ({ channel }, { carriedNetwork }, channels) => carriedNetwork(channels[channel]!),
};

/** @throws VmmError ERR_DEVICE for a kind that this build has not. */
export function networkOf(
  nic: NicChoice,
  machines: typeof Machines,
  channels: readonly Channel[] | undefined,
): NetSource {
  const make = NETWORKS[nic.network.kind] as Maker<Kind>;
  return make({ ...nic.network, mtuBytes: nic.mtuBytes }, machines, channels ?? []);
}

function notBuilt(kind: Kind): never {
  throw new VmmError('ERR_DEVICE', `--nic ${kind}: not built`);
}
