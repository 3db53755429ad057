import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RangeEntry, RangeLock } from './range-lock.js';

class Entry extends RangeEntry {
  state: 'waiting' | 'running' | 'over' = 'waiting';
  override granted(): void {
    this.state = 'running';
  }
}

const overlaps = (a: Entry, b: Entry) => a.from < b.to && b.from < a.to && (a.exclusive || b.exclusive);

describe('RangeLock', () => {
  it('lets an entry run exactly when no earlier one that excludes it is left', () => {
    const KiB64 = 64 * 1024;
    const range = fc.record({
      // Near the borders of granules, wide ones, and such as share a slot of the table.
      at: fc.constantFrom(0, 512, KiB64 - 512, KiB64, KiB64 * 1024, 2 ** 46),
      length: fc.constantFrom(512, 1024, KiB64, KiB64 * 20),
      exclusive: fc.boolean(),
      leave: fc.option(fc.nat()),
    });
    fc.assert(
      fc.property(fc.array(range, { maxLength: 60 }), (steps) => {
        const lock = new RangeLock();
        const alive: Entry[] = [];
        const check = (): void => {
          alive.forEach((entry, index) => {
            const blocked = alive.slice(0, index).some((other) => overlaps(entry, other));
            expect(entry.state).toBe(blocked ? 'waiting' : 'running');
          });
        };
        const leave = (entry: Entry): void => {
          alive.splice(alive.indexOf(entry), 1);
          entry.state = 'over';
          lock.leave(entry);
          check();
        };
        for (const { at, length, exclusive, leave: pick } of steps) {
          const entry = new Entry();
          Object.assign(entry, { from: at, to: at + length, exclusive });
          if (lock.enter(entry)) entry.granted();
          alive.push(entry);
          check();
          const running = alive.filter(({ state }) => state === 'running');
          if (pick !== null) leave(running[pick % running.length]!);
        }
        while (alive.length > 0) leave(alive.find(({ state }) => state === 'running')!);
        expect(lock.size).toBe(0);
      }),
    );
  });

  it('frees a long chain of waiting entries without a deep stack', () => {
    const lock = new RangeLock();
    let ended = 0;
    class Chained extends RangeEntry {
      override from = 0;
      override to = 512;
      override exclusive = true;
      override granted(): void {
        ended++;
        lock.leave(this);
      }
    }
    const first = new Chained();
    lock.enter(first);
    for (let i = 0; i < 3000; i++) lock.enter(new Chained());
    lock.leave(first);
    expect(ended).toBe(3000);
    expect(lock.size).toBe(0);
  });
});
