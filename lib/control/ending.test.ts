import { describe, expect, it } from 'vitest';
import { Ending } from './ending.js';

describe('Ending', () => {
  it('tells all who wait, and who comes later, once', async () => {
    const ending = new Ending();
    const told: string[] = [];
    ending.on(({ reason }) => told.push(reason));
    const waited = ending.until(new AbortController().signal);
    expect([ending.status, told]).toEqual([undefined, []]);
    ending.settle({ reason: 'poweroff', status: 3 });
    ending.settle({ reason: 'killed' });
    ending.on(({ reason }) => told.push(`late ${reason}`));
    expect(told).toEqual(['poweroff', 'late poweroff']);
    expect(await waited).toEqual({ reason: 'poweroff', status: 3 });
    expect(await ending.until(new AbortController().signal)).toBe(ending.status);
    expect(ending.size).toBe(0);
  });

  it('keeps nothing of who left', async () => {
    const ending = new Ending();
    ending.on(() => expect.unreachable())();
    const stop = new AbortController();
    const waited = ending.until(stop.signal);
    expect(ending.size).toBe(1);
    stop.abort(new Error('enough'));
    await expect(waited).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: { message: 'enough' } });
    expect(ending.size).toBe(0);
    await expect(ending.until(stop.signal)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(ending.size).toBe(0);
    ending.settle({ reason: 'poweroff' });
  });
});
