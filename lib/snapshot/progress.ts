/** Progress of long work on snapshots, as its callers get it: bytes and rate. */
import type { Clock } from '../base/clock.js';

export interface SnapshotProgress {
  /** Of guest memory. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** Since the work began. */
  readonly ratePerSecond: number;
}

/** Makes progress out of bytes that are done. */
export function meter(
  clock: Clock,
  bytesTotal: number,
  onProgress: (progress: SnapshotProgress) => void,
): (bytesDone: number) => void {
  const startedNs = clock.nowNs();
  return (done) => {
    const bytesDone = Math.min(done, bytesTotal);
    const seconds = Number(clock.nowNs() - startedNs) / 1e9;
    onProgress({ bytesDone, bytesTotal, ratePerSecond: seconds > 0 ? bytesDone / seconds : 0 });
  };
}
