/**
 * Guest memory as devices and loaders see it: bounded, checked access by guest physical address.
 * The real one (address-space.ts) stands on mappings of the addon; the fake (fake.ts) on a plain array.
 * Every write marks the dirty bitmap of user space, since KVM's dirty log sees only what vCPUs write.
 */
import type { Gpa } from '../base/address.js';

/** A range of guest RAM: [gpa, gpa + sizeBytes). */
export interface MemoryRange {
  readonly gpa: Gpa;
  readonly sizeBytes: number;
}

export interface GuestMemory {
  /** The RAM ranges, in ascending order, never touching one another. */
  readonly ranges: readonly MemoryRange[];
  /** All RAM in bytes. */
  readonly sizeBytes: number;
  /** True when [gpa, gpa + length) lies inside one range of RAM. */
  contains(gpa: number, length: number): boolean;
  /**
   * A copy of guest memory.
   *
   * @throws VmmError ERR_GUEST_MEMORY when the range is not wholly inside one range of RAM.
   */
  read(gpa: number, length: number): Uint8Array;
  /** Copies into `target`, without an allocation. @throws VmmError ERR_GUEST_MEMORY as read. */
  readInto(gpa: number, target: Uint8Array): void;
  /** Copies `bytes` into guest memory and marks the pages dirty. @throws VmmError ERR_GUEST_MEMORY as read. */
  write(gpa: number, bytes: Uint8Array): void;
  /** Fills with one byte value and marks the pages dirty. @throws VmmError ERR_GUEST_MEMORY as read. */
  fill(gpa: number, value: number, length: number): void;
}
