/** Which pages of a machine's memory are written, for whoever watches: a consumer of dirty epochs, over restarts. */
import { VmmError } from '../../base/errors.js';
import { groupCount, type DirtyConsumer } from '../../memory/index.js';
import type { WrittenPages, WriteWatch } from '../call-options.js';
import type { DirtyLineage } from './dirty-lineage.js';

/**
 * Noting begins now. `lineage` gives that of the memory that the machine has now: a restart gets another one, and has none while its
 * board is being made.
 */
export function watchWrites(lineage: () => DirtyLineage | undefined, sizeBytes: number): WriteWatch {
  let watched = lineage();
  let consumer: DirtyConsumer | undefined = watched?.watch();
  let isClosed = false;
  const none = (): WrittenPages => ({ pages: 0, byGroup: new Uint8Array(groupCount(sizeBytes)) });
  return {
    take(): WrittenPages {
      const now = lineage();
      if (isClosed || now === undefined) return none();
      // The one before went with its board.
      if (now !== watched) {
        consumer = now.watch();
        watched = now;
      }
      const written = consumer!.take();
      return { pages: written.count(), byGroup: written.countByGroup() };
    },
    close(): void {
      if (isClosed) return;
      isClosed = true;
      try {
        consumer?.close();
      } catch (error) {
        // Its board has gone, and nothing is noted any more.
        if (!(error instanceof VmmError && error.code === 'ERR_CLOSED')) throw error;
      }
    },
  };
}
