/** Ten snapshots of a guest at work; `npm test` takes five, with less work beside them. */
import { it } from 'vitest';
import { expectSeries } from '../lib/snapshot-series.js';

it('ten snapshots in a row are each one that goes on', { timeout: 2_300_000 }, () =>
  expectSeries(
    Array.from({ length: 10 }, (_, index) => ['instant', 'live', 'paused'][index % 3]!),
    2200,
  ),
);
