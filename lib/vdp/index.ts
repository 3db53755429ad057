/** The guest's side of lent devices: the PCI bus, the virtio transport, and what a virtio device is to it. */
export { PciHostBridge, PCI_MEMORY_WINDOW } from './pci/host-bridge.js';
export type { InterruptVector, MsiMessage } from './pci/msix.js';
export type { VirtioActivation, VirtioConfigSpace, VirtioDevice } from './virtio-device.js';
export { makeSplitQueue } from './queue-factory.js';
export type { MakeQueue, QueueOptions } from './lifecycle-contract.js';
export { type Doorbell, VirtioPciFunction } from './virtio-pci.js';
export type { DescriptorChain, Virtqueue } from './virtqueue.js';
export { BlockDevice, type BlockDeviceOptions } from './block.js';
export { ConsoleDevice } from './console.js';
export { EntropyDevice } from './entropy.js';
export { NetDevice } from './net.js';
