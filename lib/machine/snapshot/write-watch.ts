/** Which pages of a machine's memory are written, for whoever watches: a consumer of dirty epochs, over restarts. */
import { VmmError } from '../../base/errors.js';
import { groupCount, type DirtyConsumer } from '../../memory/index.js';
import type { WrittenPages, WriteWatch } from '../call-options.js';
import type { DirtyLineage } from './dirty-lineage.js';

/** Noting begins now. `lineage` gives that of the memory that the machine has now: a restart gets another one. */
export function watchWrites(lineage: () => DirtyLineage, sizeBytes: number): WriteWatch {
  let watched = lineage();
  let consumer: DirtyConsumer = watched.watch();
  let isClosed = false;
  return {
    take(): WrittenPages {
      if (isClosed) return { pages: 0, byGroup: new Uint8Array(groupCount(sizeBytes)) };
      const now = lineage();
      // The one before went with its board.
      if (now !== watched) {
        watched = now;
        consumer = now.watch();
      }
      const written = consumer.take();
      return { pages: written.count(), byGroup: written.countByGroup() };
    },
    close(): void {
      if (isClosed) return;
      isClosed = true;
      try {
        consumer.close();
      } catch (error) {
        // Its board has gone, and nothing is noted any more.
        if (!(error instanceof VmmError && error.code === 'ERR_CLOSED')) throw error;
      }
    },
  };
}
