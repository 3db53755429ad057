/** Which pages of a machine's memory are written, for whoever watches: a consumer of dirty epochs, over restarts. */
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
      if (now !== watched) {
        consumer.close();
        watched = now;
        consumer = now.watch();
      }
      const written = consumer.take();
      return { pages: written.count(), byGroup: written.countByGroup() };
    },
    close(): void {
      isClosed = true;
      consumer.close();
    },
  };
}
