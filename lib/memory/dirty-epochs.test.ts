/** Whatever consumers come, take, give up and go: none misses a page that was written in its life. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DirtyBitmap } from './dirty-bitmap.js';
import { DirtyEpochs, type AddBits, type DirtyConsumer, type DirtySource } from './dirty-epochs.js';

const PAGES = 200;

/** A log in which each page's bit is gone when it was read, as KVM's. */
class FakeLog implements DirtySource {
  logging = false;
  readonly #written = new Set<number>();
  readonly #firstPage: number;

  constructor(firstPage = 0) {
    this.#firstPage = firstPage;
  }

  write(page: number): void {
    if (this.logging) this.#written.add(page);
  }

  setLogging(on: boolean): void {
    this.logging = on;
    if (!on) this.#written.clear();
  }

  harvest(add: AddBits): void {
    const bits = new Uint32Array(Math.ceil(PAGES / 32));
    for (const page of this.#written) {
      const at = page - this.#firstPage;
      bits[at >>> 5] = bits[at >>> 5]! | (1 << (at % 32));
    }
    this.#written.clear();
    add(this.#firstPage, bits);
  }
}

describe('DirtyEpochs', () => {
  it('hands every consumer what was written in its life, whatever the others do', () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('write' as const), page: fc.nat(PAGES - 1) }),
      fc.record({ do: fc.constant('take' as const), who: fc.nat(3) }),
      fc.record({ do: fc.constant('join' as const), who: fc.nat(3) }),
      fc.record({ do: fc.constant('leave' as const), who: fc.nat(3) }),
      fc.record({ do: fc.constant('swap' as const) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const epochs = new DirtyEpochs(PAGES);
        let log = new FakeLog();
        epochs.addSource(log);
        const consumers = new Map<number, { consumer: DirtyConsumer; owed: Set<number> }>();
        for (const one of steps) {
          if (one.do === 'write') {
            log.write(one.page);
            for (const { owed } of consumers.values()) owed.add(one.page);
          } else if (one.do === 'swap') {
            epochs.removeSource(log);
            log = new FakeLog();
            epochs.addSource(log);
          } else if (one.do === 'join') {
            if (!consumers.has(one.who)) {
              consumers.set(one.who, { consumer: epochs.consumer(`c${one.who}`), owed: new Set() });
            }
          } else if (one.do === 'leave') {
            consumers.get(one.who)?.consumer.close();
            consumers.delete(one.who);
          } else {
            const taker = consumers.get(one.who);
            if (taker === undefined) continue;
            expect(new Set(taker.consumer.take())).toEqual(taker.owed);
            taker.owed.clear();
          }
        }
        for (const { consumer, owed } of consumers.values()) expect(new Set(consumer.take())).toEqual(owed);
      }),
    );
  });

  it('logs only while somebody takes', () => {
    const log = new FakeLog();
    const epochs = new DirtyEpochs(PAGES);
    epochs.addSource(log);
    expect(log.logging).toBe(false);
    const first = epochs.consumer('first');
    const second = epochs.consumer('second');
    expect([log.logging, epochs.consumers]).toEqual([true, ['first', 'second']]);
    first.close();
    first.close();
    expect(log.logging).toBe(true);
    second.close();
    expect(log.logging).toBe(false);
    expect(() => second.take()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
  });

  it('leaves no source logging when one refuses', () => {
    const log = new FakeLog();
    const epochs = new DirtyEpochs(PAGES);
    epochs.addSource(log);
    epochs.addSource({
      setLogging: () => {
        throw new Error('refused');
      },
      harvest: () => {},
    });
    expect(() => epochs.consumer('one')).toThrow('refused');
    expect([log.logging, epochs.consumers]).toEqual([false, []]);
  });

  it('takes the bits of a source that starts anywhere in the mapping', () => {
    const log = new FakeLog(37);
    const epochs = new DirtyEpochs(PAGES);
    epochs.addSource(log);
    const one = epochs.consumer('one');
    for (const page of [37, 68, 69, 101, 199]) log.write(page);
    expect([...one.take()]).toEqual([37, 68, 69, 101, 199]);
  });
});

describe('DirtyBitmap', () => {
  it('counts, joins and tells groups', () => {
    const one = new DirtyBitmap(PAGES);
    one.addPages(15, 2);
    one.addPages(198, 9);
    const other = new DirtyBitmap(PAGES);
    other.addBits(96, Uint32Array.of(1));
    other.add(one);
    expect([...other]).toEqual([15, 16, 96, 198, 199]);
    expect(other.count()).toBe(5);
    expect([other.has(96), other.has(97), other.hasGroup(6), other.hasGroup(5)]).toEqual([true, false, true, false]);
    expect([...other.groupRuns()]).toEqual([0, 2, 6, 1, 12, 1]);
    expect(other.groupBytes()).toBe(4 * 65_536);
  });

  it('ignores bits past its end, and refuses another size', () => {
    const one = new DirtyBitmap(40);
    one.addBits(32, Uint32Array.of(0xffff_ffff, 0xffff_ffff));
    expect(one.count()).toBe(8);
    expect(() => one.add(new DirtyBitmap(41))).toThrow(RangeError);
    expect(() => new DirtyBitmap(-1)).toThrow(RangeError);
  });
});
