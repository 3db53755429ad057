/**
 * Guest memory as queue code and I/O engines take it: the checked copies of GuestMemory, and views for what two sides
 * change at once (rings). A view is dead after the memory is closed; the guest may change what it shows at any moment,
 * so everything that is decided on is copied first. Users never get one.
 */
import type { GuestMemory } from './guest-memory.js';

export interface DeviceMemory extends GuestMemory {
  /**
   * A lasting view of [gpa, gpa + length), which lies inside one range of RAM. Each call makes a new one: keep it.
   * What is written through it must be followed by `markDirty`.
   *
   * @throws VmmError ERR_GUEST_MEMORY when the range is not wholly inside one range of RAM.
   */
  view(gpa: number, length: number): Uint8Array;
  /** Marks the pages of [gpa, gpa + length) in user space's dirty bitmap: after the data is written, before it is told. */
  markDirty(gpa: number, length: number): void;
}
