/**
 * All disks of a machine cut at one instant, so that disk and memory of a snapshot agree: prepared while the guest runs, taken at
 * rest, made durable while it runs again. What a disk that can't be cut has kept the others from is undone.
 */
import type { SavedPart } from '../../base/saved-state.js';
import { beginCut, type CutOptions, type DiskCut, diskReferenceState, type PendingCut } from '../../vsp/index.js';

type CutHost = Parameters<typeof beginCut>[0];

export class DiskCuts {
  readonly #pending: readonly PendingCut[];
  #taken: DiskCut[] | undefined;

  private constructor(pending: readonly PendingCut[]) {
    this.#pending = pending;
  }

  /** @throws VmmError ERR_SNAPSHOT_REFUSED, AbortError */
  static async begin(disks: readonly CutHost[], options: CutOptions): Promise<DiskCuts> {
    const pending: PendingCut[] = [];
    try {
      for (const disk of disks) pending.push(await beginCut(disk, options));
    } catch (error) {
      await Promise.all(pending.map((cut) => cut.cancel()));
      throw error;
    }
    return new DiskCuts(pending);
  }

  /** With all disks at rest. @throws VmmError of the disk that refused; all are as they were then. */
  async take(): Promise<void> {
    const taken: DiskCut[] = [];
    try {
      for (const cut of this.#pending) taken.push(await cut.take());
    } catch (error) {
      for (const cut of taken.reverse()) await cut.undo();
      throw error;
    }
    this.#taken = taken;
  }

  /** Still at rest: the instant is given up. */
  async undo(): Promise<void> {
    const taken = this.#taken?.splice(0) ?? [];
    for (const cut of taken.reverse()) await cut.undo();
  }

  /** When it was never taken. */
  async cancel(): Promise<void> {
    if (this.#taken === undefined) await Promise.all(this.#pending.map((cut) => cut.cancel()));
  }

  /** What the snapshot keeps of each disk, once that is durable. @throws SystemError */
  async durable(): Promise<SavedPart[]> {
    const cuts = this.#taken ?? [];
    return await Promise.all(cuts.map(async (cut) => diskReferenceState.save(await cut.durable())));
  }
}
