/** What the demonstration of a guest's time makes of its samples: figures, a table, and a picture. */
import { describe, expect, it } from 'vitest';
import { greatestIn100Ms } from '../../bench/lib/tick-samples.js';
import { axisTicks, drawPicture } from '../../examples/pit-demo/picture.js';
import { rates, summarise, type PolicyRun, type Sample } from '../../examples/pit-demo/summary.js';
import { drawTable } from '../../examples/pit-demo/table.js';

/** A 100 Hz guest, sampled every 50 ms: stopped from 1 s to 2 s, then caught up at `speed` times its rate until 4 s. */
function stoppedFor1s(policy: string, speed: number): PolicyRun {
  const samples: Sample[] = [];
  let ticks = 0;
  let lagMs = 0;
  let work = 0xffff_ff00; // it wraps soon
  for (let atMs = 0; atMs <= 4000; atMs += 50) {
    samples.push({ atMs, lagMs, ticks, work });
    const stopped = atMs >= 1000 && atMs < 2000;
    const paying = lagMs > 0 ? speed : 1;
    lagMs += stopped ? 50 : 50 * (1 - paying);
    ticks += stopped ? 0 : 5 * paying;
    work = (work + (stopped ? 0 : 1000 - 100 * paying)) >>> 0;
  }
  return {
    policy,
    rateHz: 100,
    samples,
    stop: { fromMs: 1000, toMs: 2000 },
    overload: { fromMs: 3500, toMs: 3600 },
  };
}

describe('summarise', () => {
  it('tells when a guest is back, and what its work paid for that', () => {
    const summary = summarise(stoppedFor1s('catch-up', 3));
    expect(summary).toMatchObject({ policy: 'catch-up', greatestLagMs: 1000, endLagMs: 0, returnMs: 500 });
    expect(summary.greatestIn100Ms).toBe(30);
    expect(summary.workShare).toBeCloseTo(700 / 900, 5);
  });

  it('says so when a guest never comes back', () => {
    const summary = summarise(stoppedFor1s('discard', 1));
    expect(summary).toMatchObject({ returnMs: undefined, endLagMs: 1000, workShare: 1 });
  });

  it('does not take being back after the overload for being back from the stop', () => {
    expect(summarise({ ...stoppedFor1s('slow', 3), overload: { fromMs: 2400, toMs: 2450 } }).returnMs).toBeUndefined();
  });

  it('refuses a run without samples', () => {
    expect(() => summarise({ ...stoppedFor1s('none', 1), samples: [] })).toThrow(RangeError);
  });
});

describe('rates', () => {
  const sample = (atMs: number, ticks: number): Sample => ({ atMs, ticks, lagMs: 0, work: 0 });

  it('lie between neighbouring samples', () => {
    expect(rates([sample(0, 0), sample(50, 5), sample(150, 45)])).toEqual([
      { atMs: 50, rateHz: 100 },
      { atMs: 150, rateHz: 400 },
    ]);
  });

  it('are greatest in the busiest 100 ms, wherever they begin', () => {
    const samples = [sample(0, 0), sample(60, 6), sample(120, 66), sample(180, 72), sample(240, 78)];
    expect(greatestIn100Ms(samples)).toBe(55); // 66 in 120 ms
    expect(greatestIn100Ms(samples.slice(0, 2))).toBe(0);
  });
});

describe('drawTable', () => {
  it('keeps its columns', () => {
    const table = drawTable([summarise(stoppedFor1s('catch-up', 3)), summarise(stoppedFor1s('discard', 1))]);
    const [headings, first, second] = table.split('\n');
    expect(first).toMatch(/^catch-up +1000 ms +0 ms +500 ms +30 +78 %$/);
    expect(second).toMatch(/^discard +1000 ms +1000 ms +never +\d+ +100 %$/);
    expect(first!.length).toBe(headings!.length);
  });
});

describe('axisTicks', () => {
  it.each([
    [0, 3064, [0, 1000, 2000, 3000, 4000]],
    [0, 14.2, [0, 5, 10, 15]],
    [0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]],
    [0, 20_000, [0, 5000, 10_000, 15_000, 20_000]],
    [5, 5, undefined],
  ])('from %d to %d', (low, high, wanted) => {
    const ticks = axisTicks(low, high);
    if (wanted) expect(ticks).toEqual(wanted);
    expect(ticks[0]).toBeLessThanOrEqual(low);
    expect(ticks.at(-1)).toBeGreaterThanOrEqual(high);
  });
});

describe('drawPicture', () => {
  const runs = [stoppedFor1s('catch-up', 3), stoppedFor1s('reinject', 20), stoppedFor1s('discard', 1)];
  const picture = drawPicture(runs, { title: 'a < b & "c"' });

  it('has two lines for each run, in a colour of its own, and names each', () => {
    const colours = [...picture.matchAll(/<polyline class="line" stroke="(#\w+)"/g)].map((match) => match[1]);
    expect(colours).toHaveLength(6);
    expect(new Set(colours).size).toBe(3);
    for (const { policy } of runs) expect(picture).toContain(`>${policy}</text>`);
  });

  it('keeps every point inside, and writes no number that is none', () => {
    const points = [...picture.matchAll(/points="([^"]*)"/g)].flatMap((match) => match[1]!.split(' '));
    expect(points.length).toBe(3 * (81 + 80));
    for (const point of points) {
      const [x, y] = point.split(',').map(Number);
      expect(x).toBeGreaterThanOrEqual(0);
      expect(x).toBeLessThanOrEqual(860);
      expect(y).toBeGreaterThanOrEqual(0);
      expect(y).toBeLessThanOrEqual(560);
    }
    expect(picture).not.toMatch(/NaN|Infinity|undefined/);
  });

  it('escapes its texts, marks the troubles and follows light and dark', () => {
    expect(picture).toContain('a &lt; b &amp; &quot;c&quot;');
    expect(picture).toContain('>stopped</text>');
    expect(picture).toContain('>overloaded</text>');
    expect(picture).toContain('prefers-color-scheme: dark');
  });

  it('refuses nothing, and more than it has colours for', () => {
    expect(() => drawPicture([], { title: '' })).toThrow(RangeError);
    expect(() => drawPicture([...runs, ...runs], { title: '' })).toThrow(RangeError);
  });
});
