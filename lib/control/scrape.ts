/** The counters of all of the user's machines in one text of Prometheus, for whoever is scraped in their place. */
import { askMachine } from './ask.js';
import { defaultPlace, listRecords, type MachinePlace } from './machine-folders.js';
import type { MetricSource } from './metrics.js';

export interface ScrapeOptions {
  readonly place?: MachinePlace;
  /** How long a machine may take to answer. Default 2000. */
  readonly answerMs?: number;
}

/**
 * All machines of this user at once, as Prometheus's text. One that does not answer in time is left out and counted in
 * `vivarium_scrape_failed`; one that is being started, or has just ended, is not there yet or any more.
 *
 * @throws VmmError ERR_SETUP when the runtime folder can't be had
 * @example
 * response.end(await scrapeMachines());
 */
export async function scrapeMachines({ place = defaultPlace(), answerMs = 2000 }: ScrapeOptions = {}): Promise<string> {
  const asked = await Promise.all(
    listRecords(place).map(async (record) => ({
      record,
      asked: await askMachine<unknown>(record, '/v1/stats', { place, answerMs }),
    })),
  );
  const { isStats, metricsText } = await import('./metrics.js');
  const sources: MetricSource[] = [];
  let failed = 0;
  for (const { record, asked: about } of asked) {
    if (about.kind === 'answered' && isStats(about.answer)) sources.push({ record, stats: about.answer });
    else if (about.kind === 'answered' || about.kind === 'unresponsive') failed++;
  }
  return metricsText(sources, failed);
}
