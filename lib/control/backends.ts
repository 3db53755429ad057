/** From a backend as it is named over the control socket to the backend, on this machine's KVM and inside the embedded host. */
import type { Channel } from '../base/command-io.js';
import { type DeviceSource, fileDisk, networkSwitch, passt, qcow2Disk, tap } from '../machine/index.js';
import type { CarriedNetwork } from '../vsp/index.js';
import { NetworkBorrower } from './network-borrower.js';
import type { Backend } from './schemas.js';
import type { ControlTarget } from './target.js';

export function backendOf(choice: Backend): DeviceSource {
  switch (choice.kind) {
    case 'file':
      return fileDisk(choice.path);
    case 'qcow2':
      return qcow2Disk(choice.path);
    case 'tap':
      return tap(choice.name);
    case 'switch':
      return networkSwitch(choice.name);
    case 'passt':
      return passt({ forwards: choice.forwards ?? [] });
  }
}

/**
 * The same inside the embedded host. A network for a nic that is lent in (`carried`, by the ids of devices) is opened by the process
 * outside, which `channel` leads to.
 */
export function backendsInside(
  channel: Channel,
  carried: ReadonlyMap<string, CarriedNetwork>,
): ControlTarget['makeBackend'] {
  const borrower = new NetworkBorrower(channel);
  return (choice, device) => {
    const network = carried.get(device);
    const here = backendOf(choice);
    if ('path' in choice || network === undefined) return here;
    return {
      class: 'network',
      describe: () => ({ kind: 'carried', around: here.describe() }),
      open: ({ signal }) => borrower.open(device, choice, network, signal),
    };
  };
}
