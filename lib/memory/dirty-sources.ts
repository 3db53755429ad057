/**
 * The two places where writes to guest memory are noted: KVM's log, for what vCPUs write, and the bitmap beside the
 * mapping, for what this process writes (Documentation/virt/kvm/api.rst, 4.8 KVM_GET_DIRTY_LOG, 4.117
 * KVM_CLEAR_DIRTY_LOG, 7.18 KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2).
 */
import { Cap, MemoryFlag } from '../abi/kvm.js';
import { PAGE_SIZE } from '../base/units.js';
import type { Vm } from '../kvm/index.js';
import { type AddressSpace, isAllZero } from './address-space.js';
import type { AddBits, DirtySource } from './dirty-epochs.js';

/** KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE */
const MANUAL_PROTECT_ENABLE = 1n;
/** What one KVM_CLEAR_DIRTY_LOG covers, so that the kernel's MMU lock is never held for long: 1 GiB. */
const CLEAR_PAGES = 262_144;
const WORD_PAGES = 64;

/** KVM's log of one machine over a memory that is attached to it. */
export class KvmDirtyLog implements DirtySource {
  readonly #vm: Vm;
  readonly #memory: AddressSpace;
  readonly #manual: boolean;
  #isOn: boolean;

  /** @throws KvmError when the manual protection that KVM says it has can't be turned on */
  constructor(vm: Vm, memory: AddressSpace) {
    this.#vm = vm;
    this.#memory = memory;
    this.#isOn = memory.logsDirty;
    this.#manual = vm.checkExtension(Cap.MANUAL_DIRTY_LOG_PROTECT2) > 0;
    if (this.#manual) vm.enableCap(Cap.MANUAL_DIRTY_LOG_PROTECT2, [MANUAL_PROTECT_ENABLE]);
  }

  setLogging(on: boolean): void {
    if (on === this.#isOn) return;
    this.#isOn = on;
    this.#eachSlot((slot, gpa, offset, sizeBytes) => {
      const flags = on ? MemoryFlag.LOG_DIRTY_PAGES : 0;
      this.#vm.updateMemorySlot(slot, gpa, this.#memory.native, offset, sizeBytes, flags);
    });
  }

  harvest(add: AddBits): void {
    this.#eachSlot((slot, _gpa, offset, sizeBytes) => {
      const log = this.#vm.getDirtyLog(slot, sizeBytes);
      const bits = new Uint32Array(log.buffer, log.byteOffset, log.length * 2);
      // Cleared before anybody reads a page: a write after this sets its bit again, one before it is read.
      if (this.#manual) this.#clear(slot, sizeBytes / PAGE_SIZE, log, bits);
      add(offset / PAGE_SIZE, bits);
    });
  }

  #clear(slot: number, pages: number, log: BigUint64Array, bits: Uint32Array): void {
    for (let first = 0; first < pages; first += CLEAR_PAGES) {
      const count = Math.min(CLEAR_PAGES, pages - first);
      const from = first / WORD_PAGES;
      const to = Math.ceil((first + count) / WORD_PAGES);
      if (isAllZero(bits.subarray(2 * from, 2 * to))) continue;
      this.#vm.clearDirtyLog(slot, first, count, log.subarray(from, to));
    }
  }

  #eachSlot(visit: (slot: number, gpa: number, offset: number, sizeBytes: number) => void): void {
    let offset = 0;
    this.#memory.ranges.forEach(({ gpa, sizeBytes }, slot) => {
      visit(slot, gpa, offset, sizeBytes);
      offset += sizeBytes;
    });
  }
}

/** What this process has written. It is noted always; marks are made after the data and before it is told of. */
export class OwnDirtyLog implements DirtySource {
  readonly #memory: AddressSpace;

  constructor(memory: AddressSpace) {
    this.#memory = memory;
  }

  setLogging(): void {}

  harvest(add: AddBits): void {
    add(0, this.#memory.takeDirtyBits());
  }
}
