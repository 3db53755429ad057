/**
 * The memory of one power cycle of a machine with what stands on it for snapshots: the pager, when there is one, and who notes
 * what was written. A restart gets another one.
 */
import type { VmmError } from '../../base/errors.js';
import type { Vm } from '../../kvm/index.js';
import { ramRanges } from '../../boot/index.js';
import { AddressSpace, GuestPager } from '../../memory/index.js';
import type { MachineMemory } from '../call-options.js';
import type { MachineConfig } from '../options.js';
import { DirtyLineage } from './dirty-lineage.js';
import { watchWrites } from './write-watch.js';

/** Memory of zeros for one power cycle. @throws VmmError ERR_GUEST_MEMORY */
export function makeSpace({ memoryBytes, memoryBacking }: MachineConfig): AddressSpace {
  return new AddressSpace({ ranges: ramRanges(memoryBytes), backing: memoryBacking });
}

/** Guest memory for users, of the power cycle that `memory` gives. */
export function memoryForUsers(sizeBytes: number, memory: () => SnapshotMemory): MachineMemory {
  return {
    sizeBytes,
    read: (gpa, length) => memory().space.read(gpa, length),
    write: (gpa, bytes) => memory().space.write(gpa, bytes),
    watchWrites: () => watchWrites(() => memory().lineageNow(), sizeBytes),
  };
}

/** A group that was used in the machine's life so far; with each further snapshot what was before counts half. */
const USED = 256;

export class SnapshotMemory {
  readonly space: AddressSpace;
  #pager: GuestPager | undefined;
  #isLazy = false;
  #isClosed = false;
  #failure: VmmError | undefined;
  #lineage: DirtyLineage | undefined;
  #vm: Vm | undefined;
  /** Of the snapshot that it came from. */
  #access: Uint16Array | undefined;
  readonly #onFailure: (error: VmmError) => void;

  constructor(space: AddressSpace, onFailure: (error: VmmError) => void) {
    this.space = space;
    this.#onFailure = onFailure;
  }

  /** The board that runs on it. */
  attach(vm: Vm): void {
    if (vm === this.#vm) return;
    this.#vm = vm;
    this.#pager?.guard(vm);
  }

  /** @throws VmmError ERR_SNAPSHOT_HOST where this host can't serve page faults */
  pager(): GuestPager {
    if (this.#pager !== undefined) return this.#pager;
    const pager = new GuestPager(this.space);
    if (this.#vm) pager.guard(this.#vm);
    this.#pager = pager;
    return pager;
  }

  /** Missing pages come from a snapshot, as long as there are any: then a failure is the machine's. */
  serveLazily(pager: GuestPager, access: Uint16Array | undefined): void {
    this.#isLazy = true;
    this.#access = access;
    const off = pager.onEvent(() => {
      const { failure } = this;
      if (failure !== undefined) this.#onFailure(failure);
    });
    // A failed machine does not keep the process alive.
    void pager.complete().then(off, off);
  }

  /** Why memory is not whole; undefined where it is, or will be. */
  get failure(): VmmError | undefined {
    // A pager that is closed says so; nobody needs its pages any more.
    if (this.#isLazy && !this.#isClosed) this.#failure ??= this.#pager?.failure;
    return this.#failure;
  }

  /** Resolves when all of it is there: at once but during a lazy restore. @throws VmmError ERR_PAGER */
  async whole(): Promise<void> {
    if (this.#isLazy) await this.#pager?.complete();
  }

  /** Undefined while there is no board. */
  lineageNow(): DirtyLineage | undefined {
    return this.#vm === undefined ? undefined : this.lineage();
  }

  lineage(): DirtyLineage {
    this.#lineage ??= new DirtyLineage(this.#vm!, this.space);
    return this.#lineage;
  }

  /**
   * How much each group is used, for whoever restores next: 256 for one that the guest has touched since a lazy restore, and half of
   * what the snapshot before had. Undefined where nobody could tell.
   */
  access(): Uint16Array | undefined {
    if (!this.#isLazy || !this.#pager) return this.#access;
    const before = this.#access;
    return Uint16Array.from(this.#pager.touchedGroups(), (touched, group) => {
      return Math.min(0xffff, touched * USED + ((before?.[group] ?? 0) >> 1));
    });
  }

  /** For inspect(): what the pager does to the memory, and what is still missing of it; what is shared with other clones. */
  inspect(): { readonly pager?: unknown; readonly clones?: unknown } {
    const pager = this.#pager?.inspect();
    const clones = this.#isClosed ? undefined : this.space.clone?.store?.status();
    return { ...(pager === undefined ? {} : { pager }), ...(clones === undefined ? {} : { clones }) };
  }

  /** No vCPU and no device touches the memory any more. Idempotent. */
  close(): void {
    this.#failure = this.failure;
    this.#isClosed = true;
    this.#pager?.close();
  }
}
