/** Makes the transport's queues: split virtqueues, as the driver's features say; see MakeQueue. */
import { VirtioTransportFeature } from '../abi/virtio-pci.js';
import { SplitQueue } from './split-queue.js';
import type { MakeQueue } from './lifecycle-contract.js';

export const makeSplitQueue: MakeQueue = ({ index, memory, size, maxSize, addresses, features, state }) => {
  const queue = new SplitQueue({
    memory,
    index,
    size,
    descriptors: addresses.descriptors,
    available: addresses.driver,
    used: addresses.device,
    indirect: (features & VirtioTransportFeature.RING_INDIRECT_DESC) !== 0n,
    eventIndex: (features & VirtioTransportFeature.RING_EVENT_IDX) !== 0n,
    maxDescriptors: maxSize,
    state,
  });
  return queue.broken === undefined ? queue : `queue ${index}: ${queue.broken}`;
};
