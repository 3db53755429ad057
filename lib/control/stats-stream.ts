/**
 * A machine's counters as a stream of JSON, a line at each beat: for those who draw them. Writes to memory are noted only while
 * somebody asks for them. A reader that does not keep up misses beats; nothing is kept for him.
 */
import { PassThrough, type Readable } from 'node:stream';
import type { WriteWatch } from '../machine/index.js';
import { GROUP_BYTES } from '../memory/index.js';
import type { Stats } from './schemas.js';
import { statsOf } from './stats.js';
import type { ControlTarget } from './target.js';

const DEFAULT_MS = 1000;
/** A picture of memory has at most so many parts. */
const MAX_BUCKETS = 256;

export interface StatsStreamOptions {
  readonly everyMs?: number;
  readonly writes?: boolean;
}

/** Ends with the machine, and with whoever reads. */
export function statsStream(
  target: ControlTarget,
  { everyMs = DEFAULT_MS, writes = false }: StatsStreamOptions,
  signal: AbortSignal,
): Readable {
  const output = new PassThrough();
  const counts = writes ? new WriteCounts(target.machine.memory.watchWrites()) : undefined;
  let timer: { cancel(): void } | undefined;
  let isOver = false;
  const end = (): void => {
    if (isOver) return;
    isOver = true;
    timer?.cancel();
    counts?.close();
    output.end();
  };
  const tell = (writesNow: Pick<Stats, 'writes'> | undefined): void => {
    output.write(`${JSON.stringify({ ...statsOf(target), ...writesNow })}\n`);
  };
  const beat = (): void => {
    if (!output.writable) return;
    try {
      if (!output.writableNeedDrain) tell(counts?.look());
    } catch {
      // Between two boards of a guest that restarts, or at its end, there is nothing to look at.
      if (target.machine.state === 'stopped' || target.machine.state === 'failed') return end();
    }
    timer = target.clock.setTimer(BigInt(everyMs) * 1_000_000n, beat);
  };
  output.once('close', end);
  signal.addEventListener('abort', end, { once: true });
  // The last line tells the guest's end.
  const last = (): void => {
    if (!isOver && output.writable) tell(counts?.last());
    end();
  };
  void target.machine.wait({ signal }).then(last, end);
  beat();
  return output;
}

/** Counters out of takes: pages written so far, altogether and by place. */
class WriteCounts {
  readonly #watch: WriteWatch;
  #last: NonNullable<Stats['writes']> | undefined;

  constructor(watch: WriteWatch) {
    this.#watch = watch;
  }

  look(): Pick<Stats, 'writes'> {
    const { pages, byGroup } = this.#watch.take();
    const perBucket = Math.max(1, Math.ceil(byGroup.length / MAX_BUCKETS));
    const before = this.#last;
    const buckets = before?.buckets.slice() ?? new Array<number>(Math.ceil(byGroup.length / perBucket)).fill(0);
    byGroup.forEach((count, group) => {
      const bucket = Math.floor(group / perBucket);
      buckets[bucket] = (buckets[bucket] ?? 0) + count;
    });
    this.#last = { pages: (before?.pages ?? 0) + pages, bucketBytes: perBucket * GROUP_BYTES, buckets };
    return { writes: this.#last };
  }

  /** Without another look: the machine may be closed. */
  last(): Pick<Stats, 'writes'> {
    return this.#last === undefined ? {} : { writes: this.#last };
  }

  close(): void {
    this.#watch.close();
  }
}
