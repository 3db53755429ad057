import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { randomNumbers } from '../block/disk-model.js';
import { FairQueue } from './fair-queue.js';

interface Demand {
  readonly weight: number;
  /** Requests that it keeps waiting or in service: more than its share ever takes, or few. */
  readonly outstanding: number;
  readonly minBytes: number;
  readonly maxBytes: number;
  /** It asks again after this time, in ns. Default at once. */
  readonly restNs?: bigint;
}

/** A device of 1 byte/ns with `depth` places serves flows with these demands for a while: bytes and operations of each. */
function serve(demands: readonly Demand[], depth: number, seed: number): { bytes: number; operations: number }[] {
  const clock = new ManualClock();
  const queue = new FairQueue(depth);
  const random = randomNumbers(seed);
  const served = demands.map(() => ({ bytes: 0, operations: 0 }));
  // The device: one byte after the other, whatever is in service in turn.
  let freeNs = 0n;
  demands.forEach((demand, index) => {
    const flow = queue.flow(demand.weight);
    const ask = (): void => {
      const bytes = demand.minBytes + random(demand.maxBytes - demand.minBytes + 1);
      flow.submit(bytes, () => {
        const nowNs = clock.nowNs();
        freeNs = (freeNs > nowNs ? freeNs : nowNs) + BigInt(bytes);
        clock.setTimer(freeNs - nowNs, () => {
          served[index]!.bytes += bytes;
          served[index]!.operations++;
          flow.ended();
          if (demand.restNs === undefined) ask();
          else clock.setTimer(demand.restNs, ask);
        });
      });
    };
    for (let each = 0; each < demand.outstanding; each++) ask();
  });
  clock.advance(100_000_000n);
  return served;
}

const shares = (amounts: readonly number[]) => amounts.map((each) => each / amounts.reduce((sum, more) => sum + more));

describe('guests that want more than there is', () => {
  it.each([1, 2, 3, 4])('get their shares of operations and of bytes, whatever they keep waiting (seed %i)', (seed) => {
    const same = { minBytes: 4096, maxBytes: 4096 };
    const served = serve(
      [
        { weight: 1, outstanding: 64, ...same },
        { weight: 2, outstanding: 12, ...same },
        { weight: 3, outstanding: 200, ...same },
      ],
      8,
      seed,
    );
    for (const amounts of [served.map(({ bytes }) => bytes), served.map(({ operations }) => operations)]) {
      shares(amounts).forEach((share, index) => {
        expect(Math.abs(share / ((index + 1) / 6) - 1)).toBeLessThan(0.1);
      });
    }
  });

  it.each([1, 2, 3, 4])('get their shares of bytes with requests of all sizes (seed %i)', (seed) => {
    const served = serve(
      [
        { weight: 1, outstanding: 64, minBytes: 512, maxBytes: 4096 },
        { weight: 1, outstanding: 64, minBytes: 4096, maxBytes: 131_072 },
        { weight: 2, outstanding: 64, minBytes: 512, maxBytes: 65_536 },
      ],
      8,
      seed,
    );
    shares(served.map(({ bytes }) => bytes)).forEach((share, index) => {
      expect(Math.abs(share / [0.25, 0.25, 0.5][index]! - 1)).toBeLessThan(0.1);
    });
  });

  it('divide what one with little demand leaves, which gets all that it asks for', () => {
    const large = { weight: 1, outstanding: 64, minBytes: 4096, maxBytes: 4096 };
    // 4096 bytes every 100 us at most: 41 MB/s of 1000.
    const served = serve([{ ...large, outstanding: 1, restNs: 100_000n }, large, large], 4, 1);
    // Once it asks it waits for what is in service, and for one of each of the others.
    expect(served[0]!.operations).toBeGreaterThan(100_000_000 / (100_000 + 7 * 4096));
    expect(Math.abs(served[1]!.bytes / served[2]!.bytes - 1)).toBeLessThan(0.1);
  });

  it('has saved nothing up after a rest', () => {
    const queue = new FairQueue(1);
    const [one, other] = [queue.flow(), queue.flow()];
    const order: string[] = [];
    const ask = (flow: typeof one, name: string) => flow.submit(100, () => order.push(name));
    for (let each = 0; each < 20; each++) ask(one, 'one');
    for (let each = 0; each < 10; each++) one.ended();
    for (let each = 0; each < 5; each++) ask(other, 'other');
    for (let each = 0; each < 8; each++) one.ended();
    expect(order.slice(11).filter((name) => name === 'other').length).toBe(4);
  });
});

it('keeps no more in service than its depth, in order within a flow, also where requests end at once', () => {
  const queue = new FairQueue(3);
  const flow = queue.flow();
  const started: number[] = [];
  for (let each = 0; each < 3000; each++) {
    flow.submit(1, () => {
      started.push(each);
      expect(queue.inService).toBeLessThanOrEqual(3);
      if (each % 2 === 0) flow.ended();
    });
  }
  while (started.length < 3000 || queue.inService > 0) flow.ended();
  expect(started).toEqual(Array.from({ length: 3000 }, (_, index) => index));
  expect([flow.waiting, queue.inService]).toEqual([0, 0]);
});

it.each([0, -1, 1e-300, 1e4, Number.NaN, Number.POSITIVE_INFINITY])('refuses a weight of %d', (weight) => {
  expect(() => new FairQueue(1).flow(weight)).toThrow(RangeError);
});
