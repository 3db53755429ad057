/**
 * What a machine has written since its last snapshot, so that the next one can be a difference to it. It owns the machine's dirty
 * epochs: rounds of a live snapshot and the difference to a parent are consumers of their own.
 *
 *   at the instant of a snapshot: begin()   -> what is written from here on
 *   the snapshot is whole:        adopt()   -> it is the parent that a difference can be made to
 *   it failed:                    drop()    -> the parent before it still is
 */
import { VmmError } from '../../base/errors.js';
import {
  type AddressSpace,
  DirtyBitmap,
  type DirtyConsumer,
  DirtyEpochs,
  groupCount,
  KvmDirtyLog,
  OwnDirtyLog,
} from '../../memory/index.js';
import { PAGE_SIZE } from '../../base/units.js';
import type { Vm } from '../../kvm/index.js';

/** What is written from an instant on. */
export interface Epoch {
  readonly consumer: DirtyConsumer;
  /** Taken before, by differences that were never finished. */
  readonly taken: DirtyBitmap;
}

export class DirtyLineage {
  readonly #epochs: DirtyEpochs;
  readonly #groups: number;
  #parent: { readonly id: string; readonly epoch: Epoch } | undefined;

  /** For one board and its memory. */
  constructor(vm: Vm, memory: AddressSpace) {
    this.#epochs = new DirtyEpochs(memory.sizeBytes / PAGE_SIZE);
    this.#epochs.addSource(new KvmDirtyLog(vm, memory));
    this.#epochs.addSource(new OwnDirtyLog(memory));
    this.#groups = groupCount(memory.sizeBytes);
  }

  /** Rounds of a live snapshot. */
  rounds(): DirtyConsumer {
    return this.#epochs.consumer('live snapshot');
  }

  /** For whoever only looks. */
  watch(): DirtyConsumer {
    return this.#epochs.consumer('watch');
  }

  /** With the vCPUs stopped: an epoch begins. */
  begin(): Epoch {
    return { consumer: this.#epochs.consumer('since the last snapshot'), taken: new DirtyBitmap(this.#epochs.pages) };
  }

  drop(epoch: Epoch): void {
    epoch.consumer.close();
  }

  adopt(id: string, epoch: Epoch): void {
    this.#parent?.epoch.consumer.close();
    this.#parent = { id, epoch };
  }

  /** Nothing is noted any more. */
  forget(): void {
    this.#parent?.epoch.consumer.close();
    this.#parent = undefined;
  }

  /**
   * Groups written since the snapshot of that id; they stay noted until another one takes its place.
   *
   * @throws VmmError ERR_SNAPSHOT_PARENT when it is not this machine's last.
   */
  changedSince(id: string, dir: string): Uint32Array {
    this.requireParent(id, dir);
    const { consumer, taken } = this.#parent!.epoch;
    taken.add(consumer.take());
    return groupsOf(taken, this.#groups);
  }

  /** @throws VmmError ERR_SNAPSHOT_PARENT */
  requireParent(id: string, dir: string): void {
    if (this.#parent?.id === id) return;
    const why =
      this.#parent === undefined ? 'what it has written since then was not noted' : 'it has taken another one since';
    throw new VmmError('ERR_SNAPSHOT_PARENT', `${dir} is not this machine's last snapshot: ${why}`, {
      cure: 'name its last snapshot as the parent, or none',
    });
  }
}

/** The groups with a page in it, ascending. */
export function groupsOf(pages: DirtyBitmap, groups: number): Uint32Array {
  const list: number[] = [];
  for (let group = 0; group < groups; group++) if (pages.hasGroup(group)) list.push(group);
  return Uint32Array.from(list);
}
