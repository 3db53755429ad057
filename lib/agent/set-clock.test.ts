import { expect, it } from 'vitest';
import { type ClockEnd, setGuestClock } from './set-clock.js';

/** Questions whose answers come from the guest so long after they were asked, and are so long on their way back. */
function guest(trips: readonly { readonly there: number; readonly back: number }[]) {
  // The guest's clock is 1000 ms when the host's is 5000.
  let hostMs = 5000;
  const told: [number, bigint | undefined][] = [];
  const left = [...trips];
  const end: ClockEnd = {
    ask: () => {
      const trip = left.shift();
      if (trip === undefined) return Promise.resolve(undefined);
      const monotonicNs = BigInt(hostMs + trip.there - 4000) * 1_000_000n;
      hostMs += trip.there + trip.back;
      return Promise.resolve(monotonicNs);
    },
    set: (wallMs, monotonicNs) => told.push([wallMs, monotonicNs]),
  };
  return { end, told, left, wallMs: () => hostMs };
}

const errorMs = ([wallMs, monotonicNs]: [number, bigint | undefined]) => wallMs - (Number(monotonicNs) / 1e6 + 4000);

it('sets the clock at once, and again by a quick answer, with nothing asked after it', async () => {
  const { end, told, left, wallMs } = guest([
    { there: 4, back: 4 },
    { there: 1, back: 1 },
  ]);
  await setGuestClock(end, wallMs);
  expect(told[0]).toEqual([5000, undefined]);
  expect(told).toHaveLength(2);
  expect(errorMs(told[1]!)).toBe(0);
  expect(left).toHaveLength(1);
});

it('asks again while answers are slow, and goes by the quickest', async () => {
  const { end, told, wallMs } = guest([
    { there: 2000, back: 0 },
    { there: 100, back: 40 },
    { there: 0, back: 900 },
    { there: 300, back: 300 },
  ]);
  await setGuestClock(end, wallMs);
  expect(told).toHaveLength(2);
  // Half of what the two ways differed by.
  expect(errorMs(told[1]!)).toBe(-30);
});

it('leaves it at the first time with an agent that does not know the question', async () => {
  const { end, told, wallMs } = guest([]);
  await setGuestClock(end, wallMs);
  expect(told).toEqual([[5000, undefined]]);
});
