/**
 * HAL: a network whose backend is in another process, at the other end of two byte streams: carryNetwork() stands beside
 * the backend, carriedNetwork() is what the machine has. What the backend lacks is done beside it, so that few and large
 * packets go over the streams, and all that is to be done to them on the faster side: the machine's may be emulated. The
 * streams hold up whoever sends too much; a backend that can't be held up loses frames, as ever.
 *
 *     machine -> carriedNetwork() -> output ~~> input  -> carryNetwork() -> backend
 *     machine <- carriedNetwork() <- input  <~~ output <- carryNetwork() <- backend
 *
 * The other end can stand on another network later, over the same streams. To the machine that is another backend, a successor: whoever
 * asks the other end for it makes one, the device is rebound to it, and with its start the other end is to change over.
 */
import { VmmError } from '../../base/errors.js';
import { type CarriedSuccessor, CarriedWire, gone } from './carried-wire.js';
import type { CarriedStreams } from './carry-network.js';
import type { NetBackend } from './contract.js';
import type { NetSource } from './source.js';

export type { CarriedSuccessor } from './carried-wire.js';

/** The network at the other end of the streams, and those that follow it there. */
export interface CarriedNetwork extends NetSource {
  /**
   * A backend for the same device, over the same streams. Closed without a start it is dropped; the one that was before it closes
   * when the other end has changed over.
   *
   * @throws VmmError ERR_DEVICE where these are not open, or not any more, or for an MTU that is none.
   */
  successor(next: CarriedSuccessor): NetBackend;
}

/** It can be opened once. */
export function carriedNetwork(streams: CarriedStreams): CarriedNetwork {
  let wasOpened = false;
  let wire: CarriedWire | undefined;
  return {
    class: 'network',
    describe: () => ({ kind: 'carried' }),
    open: async ({ signal }) => {
      if (wasOpened) throw new VmmError('ERR_STATE', 'a carried network can be opened once');
      wasOpened = true;
      const opening = new CarriedWire(streams);
      const backend = await opening.open(signal);
      wire = opening;
      return backend;
    },
    successor: (next) => {
      if (wire === undefined || !wire.isOpen) throw gone();
      return wire.successor(next);
    },
  };
}
