/** Guest memory: the interface that devices take, and the address space that machines stand on. */
export type { GuestMemory, MemoryRange } from './guest-memory.js';
export { AddressSpace, type AddressSpaceOptions } from './address-space.js';
