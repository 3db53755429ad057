/**
 * All disks of a machine cut at one instant, so that disk and memory of a snapshot agree: prepared while the guest runs, taken at
 * rest, made durable while it runs again. What a disk that can't be cut has kept the others from is undone; what a snapshot that
 * failed after its instant has left is released.
 */
import type { Clock } from '../../base/clock.js';
import type { SavedPart } from '../../base/saved-state.js';
import { beginCut, type CutOptions, type DiskCut, diskReferenceState, type PendingCut } from '../../vsp/index.js';

type CutHost = Parameters<typeof beginCut>[0];

interface Cut {
  readonly pending: PendingCut;
  /** While the disk is cut. */
  taken?: DiskCut | undefined;
}

/** A disk that does not let go of its new image by then keeps it. */
const RELEASE_NS = 10_000_000_000n;

export class DiskCuts {
  readonly #cuts: readonly Cut[];

  private constructor(pending: readonly PendingCut[]) {
    this.#cuts = pending.map((each) => ({ pending: each }));
  }

  /** @throws VmmError ERR_SNAPSHOT_REFUSED, AbortError */
  static async begin(disks: readonly CutHost[], options: CutOptions): Promise<DiskCuts> {
    const pending: PendingCut[] = [];
    try {
      for (const disk of disks) pending.push(await beginCut(disk, options));
    } catch (error) {
      await Promise.allSettled(pending.map((cut) => cut.cancel()));
      throw error;
    }
    return new DiskCuts(pending);
  }

  /**
   * With all disks at rest.
   *
   * @throws VmmError of the disk that refused; all are as they were then, but for one that can't be changed back: undo() tries it
   *   again, and it goes on in its new image.
   */
  async take(): Promise<void> {
    try {
      for (const cut of this.#cuts) cut.taken = await cut.pending.take();
    } catch (error) {
      await this.undo().catch(() => undefined);
      throw error;
    }
  }

  /** Still at rest: the instant is given up. @throws VmmError of the first disk that stays cut; the others are not. */
  async undo(): Promise<void> {
    const failures: unknown[] = [];
    for (const cut of [...this.#cuts].reverse()) {
      try {
        await cut.taken?.undo();
        cut.taken = undefined;
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }

  /** Of the disks that are not cut: what was prepared goes. */
  async cancel(): Promise<void> {
    const prepared = this.#cuts.filter((cut) => cut.taken === undefined);
    await Promise.all(prepared.map((cut) => cut.pending.cancel()));
  }

  /** What the snapshot keeps of each disk, once that is durable. @throws SystemError; nothing writes any more then. */
  async durable(): Promise<SavedPart[]> {
    const taken = this.#cuts.flatMap((cut) => cut.taken ?? []);
    const written = await Promise.allSettled(taken.map((cut) => cut.durable()));
    return written.map((each) => {
      if (each.status === 'rejected') throw each.reason;
      return diskReferenceState.save(each.value);
    });
  }

  /**
   * The snapshot failed after its instant: what was kept for it goes, while the machine runs. A disk to whose new image the guest may
   * have written goes on in it, as after a snapshot that succeeded. It ends in bounded time by the given clock. Idempotent; nothing
   * happens when the cuts were never taken, or were undone.
   *
   * @throws VmmError of the first disk that was to go back to what it was and could not; it goes on in its new image.
   */
  async release(clock: Clock): Promise<void> {
    const end = new AbortController();
    const timer = clock.setTimer(RELEASE_NS, () => end.abort(new Error('disks take too long')));
    const taken = this.#cuts.flatMap((cut) => cut.taken ?? []);
    const released = await Promise.allSettled(taken.map((cut) => cut.release(end.signal)));
    timer.cancel();
    for (const each of released) if (each.status === 'rejected') throw each.reason;
  }
}
