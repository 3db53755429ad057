import { describe, expect, it } from 'vitest';
import { decideLiveRound, type LiveDecision, type LiveRound } from './live-policy.js';

const plain = { fixedStopMs: 2, copiedGroupsPerMs: 64, bufferGroups: 4096, maxPauseMs: 20 };

/** Rounds of a machine of `groups` groups whose guest dirties and whose disk takes so many groups a ms. */
function converge(groups: number, dirtied: number, written: number, bounds: Partial<LiveRound> = {}) {
  const history: number[] = [];
  let left = groups;
  for (let round = 1; ; round++) {
    // Never more than there are.
    left = Math.min(groups, Math.round((left / written) * dirtied));
    const decision: LiveDecision = decideLiveRound({ ...plain, ...bounds, round, dirtyGroups: left, history });
    if (decision.action !== 'round') return { decision, rounds: round, left };
    history.push(left);
  }
}

describe('a live snapshot', () => {
  it('stops at once for a guest that writes nothing', () => {
    expect(converge(16_384, 0, 16)).toEqual({ decision: { action: 'stop', expectedMs: 2 }, rounds: 1, left: 0 });
  });

  it.each([0.1, 1, 4, 8, 14])('of 1 GiB converges with %d groups a ms dirtied and 16 written', (dirtied) => {
    const { decision, rounds } = converge(16_384, dirtied, 16);
    expect(decision.action).toBe('stop');
    expect((decision as { expectedMs: number }).expectedMs).toBeLessThanOrEqual(20);
    expect(rounds).toBeLessThanOrEqual(30);
  });

  it('says what it would take where the guest is as fast as the disk', () => {
    const { decision, rounds } = converge(16_384, 16, 16);
    expect(decision).toMatchObject({ action: 'refuse' });
    const { neededMs } = decision as { neededMs: number };
    expect(rounds).toBeLessThan(10);
    // A promise of that length can be kept, if there is memory for the copies.
    expect(converge(16_384, 16, 16, { maxPauseMs: neededMs, bufferGroups: 16_384 }).decision.action).toBe('stop');
  });

  it('does not stop for what has no room in the buffer, and says so', () => {
    const { decision } = converge(16_384, 16, 16, { maxPauseMs: 10_000, bufferGroups: 100 });
    expect(decision).toMatchObject({ action: 'refuse', why: expect.stringContaining('100 fit') as string });
  });

  it('takes the last bit of the promise when rounds gain nothing more', () => {
    // 18 of 20 ms: beyond the margin, within the promise.
    const { decision } = converge(1024, 16, 16, { copiedGroupsPerMs: 64 });
    expect(decision).toEqual({ action: 'stop', expectedMs: 18 });
  });

  it('makes a stop shorter than was allowed as long as rounds gain, and no longer', () => {
    const gaining = converge(16_384, 4, 16, { maxPauseMs: 1000 });
    expect((gaining.decision as { expectedMs: number }).expectedMs).toBeLessThanOrEqual(10);
    const { decision, rounds } = converge(4096, 16, 16, { maxPauseMs: 1000 });
    expect(decision).toEqual({ action: 'stop', expectedMs: 66 });
    expect(rounds).toBe(2);
  });

  it('refuses a promise shorter than a stop without any copying', () => {
    expect(converge(16_384, 0, 16, { maxPauseMs: 1 }).decision).toMatchObject({ action: 'refuse', neededMs: 3 });
  });
});
