import { getEventListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import { ManualClock } from './clock.js';
import { sleep } from './sleep.js';

describe('sleep', () => {
  it('is over when the time is, and not before', async () => {
    const clock = new ManualClock();
    const stop = new AbortController();
    let isOver = false;
    const slept = sleep(clock, 1.5, stop.signal).then(() => (isOver = true));
    clock.advance(1_999_999n);
    await Promise.resolve();
    expect(isOver).toBe(false);
    clock.advance(1n);
    expect(await slept).toBe(true);
    expect(getEventListeners(stop.signal, 'abort')).toEqual([]);
  });

  it('is given up at once, also before it began', async () => {
    const clock = new ManualClock();
    const stop = new AbortController();
    const slept = sleep(clock, 10, stop.signal);
    stop.abort();
    await expect(slept).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(sleep(clock, 10, stop.signal)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });
});
