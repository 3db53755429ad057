/**
 * Medians, spreads and ratios of measurements. A ratio is taken pair by pair: what is compared was measured one right
 * after the other, so that a machine that speeds up or slows down during a run moves both sides.
 */

/** What was measured of one thing: the median, and the range that the middle four fifths of the samples lie in. */
export interface Summary {
  readonly median: number;
  readonly low: number;
  readonly high: number;
  readonly samples: number;
}

/**
 * The q-quantile (0 to 1) by linear interpolation between the two nearest samples.
 *
 * @throws RangeError when there are no samples or q is outside 0 to 1.
 */
export function quantile(samples: readonly number[], q: number): number {
  if (samples.length === 0) throw new RangeError('no samples');
  if (!(q >= 0 && q <= 1)) throw new RangeError(`${q} is no quantile`);
  const sorted = [...samples].sort((a, b) => a - b);
  const place = (sorted.length - 1) * q;
  const below = sorted[Math.floor(place)]!;
  const above = sorted[Math.ceil(place)]!;
  return below + (above - below) * (place - Math.floor(place));
}

/** Median with the 10 and 90 per cent quantiles, rounded to four digits that mean something. */
export function summarise(samples: readonly number[]): Summary {
  return {
    median: digits(quantile(samples, 0.5)),
    low: digits(quantile(samples, 0.1)),
    high: digits(quantile(samples, 0.9)),
    samples: samples.length,
  };
}

/**
 * The ratios ours[i] / peer[i], summarised.
 *
 * @throws RangeError when the lists differ in length.
 */
export function pairedRatio(ours: readonly number[], peer: readonly number[]): Summary {
  if (ours.length !== peer.length) throw new RangeError(`${ours.length} samples against ${peer.length}`);
  return summarise(ours.map((value, index) => value / peer[index]!));
}

function digits(value: number): number {
  return Number(value.toPrecision(4));
}
