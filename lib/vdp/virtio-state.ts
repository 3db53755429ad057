/**
 * The state of a virtio function in a snapshot: what virtio-lifecycle.ts and virtio-pci.ts keep, with the device's own
 * part inside. Rings are in guest memory; of a queue only its indices and the heads of chains in flight are here. What
 * a snapshot says of a queue is checked against the rules of virtio before a queue is made of it.
 */
import * as v from 'valibot';
import { VIRTQ_MAX_SIZE } from '../abi/virtio.js';
import { listOf, savedPart } from '../base/saved-parts.js';
import { bytes, stateFormat, u16, u32, u64, u8 } from '../base/saved-state.js';
import type { VirtioDevice } from './virtio-device.js';
import type { VirtqueueState } from './virtqueue.js';

const MAX_QUEUES = 1024;

const ring = v.strictObject({
  availableIndex: u16,
  usedIndex: u16,
  inFlight: listOf(u16, VIRTQ_MAX_SIZE),
});

export const lifecycleState = stateFormat({
  type: 'virtio',
  version: 1,
  schema: v.strictObject({
    status: u8,
    /** Everything that was offered; the guest's view of the device for good. */
    offered: u64,
    accepted: u64,
    configVector: u16,
    generation: u8,
    /** The configuration space at the driver's last look at its generation. */
    configSeen: v.optional(bytes({ maxLength: 4096 })),
    /** A reset by the driver was under way: nothing of the device's is in flight any more, so it is done. */
    isResetting: v.boolean(),
    /** Queues whose driver was interrupted since DRIVER_OK, and whether it was for the configuration: it may not have been seen. */
    interrupted: listOf(u16, MAX_QUEUES),
    configInterrupted: v.boolean(),
    /** Queues that were notified before DRIVER_OK. */
    early: listOf(u16, MAX_QUEUES),
    queues: listOf(
      v.strictObject({
        size: u16,
        vector: u16,
        enabled: v.boolean(),
        descriptors: u64,
        driver: u64,
        device: u64,
        /** Where the device stands in it; only of an active one. */
        ring: v.optional(ring),
      }),
      MAX_QUEUES,
    ),
    device: savedPart,
  }),
});

export type LifecycleState = ReturnType<typeof lifecycleState.load>;

export const virtioPciState = stateFormat({
  type: 'virtio-pci',
  version: 1,
  schema: v.strictObject({
    /** device_feature_select, driver_feature_select, queue_select. */
    selects: v.strictObject({ deviceFeature: u32, driverFeature: u32, queue: u16 }),
    isr: u8,
    msix: savedPart,
    life: savedPart,
  }),
});

/** Why a state can't be this device's, or any device's, if that is so. */
export function whyOther(
  { offered, accepted, queues, isResetting }: LifecycleState,
  device: VirtioDevice,
  offeredNow: bigint,
): string | undefined {
  const { queueSizes } = device;
  if (!device.restoreState) return 'a device of its kind has no state';
  if (offered !== offeredNow) return `it was offered 0x${offered.toString(16)}, now 0x${offeredNow.toString(16)}`;
  if (queues.length !== queueSizes.length) return `it has ${queueSizes.length} queues, and had ${queues.length}`;
  if ((accepted & ~offered) !== 0n && !isResetting) return 'its driver accepted what it was not offered';
  for (const [index, { size, ring, enabled }] of queues.entries()) {
    if (size < 1 || size > queueSizes[index]! || (size & (size - 1)) !== 0)
      return `queue ${index} has a size of ${size}`;
    const reason = ring && (enabled ? whyNoRing(ring, size) : 'it is not enabled');
    if (reason !== undefined) return `queue ${index}: ${reason}`;
  }
  return undefined;
}

/** Why a queue of `size` can't stand so, if that is so. */
function whyNoRing(state: VirtqueueState, size: number): string | undefined {
  const { availableIndex, usedIndex, inFlight } = state;
  if (inFlight.some((head) => head >= size)) return `a chain in flight that a queue of ${size} can't have`;
  if (new Set(inFlight).size !== inFlight.length) return 'a chain that is in flight twice';
  // Each chain that was taken was given back or is in flight (2.7.14): the device takes and gives one at a time.
  if (((availableIndex - usedIndex) & 0xffff) !== inFlight.length) {
    return `${inFlight.length} chains in flight between the indices ${usedIndex} and ${availableIndex}`;
  }
  return undefined;
}
