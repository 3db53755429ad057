/**
 * The control socket. Flat: calls on machines whose guests sleep, each in a process of its own; scrapes of twenty of them, and what it
 * costs to watch them. Embedded: a command in a stock Linux guest against a round trip of its console.
 */
import type { Bench } from './lib/bench.js';
import { measureEmbedded } from './lib/control-embedded.js';
import { measureFlat } from './lib/control-flat.js';

const DEFAULT_RUNS = { flat: 5, embedded: 3 };
const DEFAULT_SECONDS = 3;

export const bench: Bench = {
  name: 'control',
  stage: 'flat+embedded',
  about: 'calls; to reach: 5 ms of an idle machine, 20 ms for a scrape of 20, 10 % of a core for 20 streams at 10 Hz',
  async run({ runs, seconds = DEFAULT_SECONDS, stages, progress }) {
    const none = { metrics: {}, peers: {} };
    const flat = stages.includes('flat')
      ? await measureFlat({ runs: runs ?? DEFAULT_RUNS.flat, seconds, progress })
      : none;
    const embedded = stages.includes('embedded')
      ? await measureEmbedded(runs ?? DEFAULT_RUNS.embedded, progress)
      : none;
    return {
      metrics: { ...flat.metrics, ...embedded.metrics },
      peers: { ...flat.peers, ...embedded.peers },
      runs: runs ?? (stages.includes('flat') ? DEFAULT_RUNS.flat : DEFAULT_RUNS.embedded),
    };
  },
};
