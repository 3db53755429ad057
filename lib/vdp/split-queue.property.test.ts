/**
 * Split queues against a simple model: random chains in random interleavings of driver and device, over the wrap of the
 * indices; and, step by step, every interleaving of the two sides' accesses to the rings around notifications.
 */
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { FakeGuestMemory } from '../memory/fake.js';
import { MockDriver, type Piece } from './mock-driver.js';
import { splitQueueBytes, SplitQueue } from './split-queue.js';
import type { DescriptorChain } from './virtqueue.js';

const MEMORY_BYTES = 1 << 20;
const TABLES = 0x20000;
/** Of the queue in the model of notifications: no fewer than there are chains. */
const SIZE = 16;

type Action =
  | { readonly kind: 'add'; readonly readable: number[]; readonly writable: number[]; readonly indirect: boolean }
  | { readonly kind: 'publish' | 'collect' | 'pop' | 'tell' | 'save' }
  | { readonly kind: 'push'; readonly which: number; readonly written: number };

const lengths = fc.array(fc.integer({ min: 1, max: 4096 }), { maxLength: 4 });
const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('add' as const),
      readable: lengths,
      writable: lengths,
      indirect: fc.boolean(),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constantFrom('publish' as const, 'collect' as const, 'pop' as const, 'tell' as const, 'save' as const),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('push' as const), which: fc.nat(7), written: fc.nat(9999) }),
  },
);

describe('a split queue in random histories', () => {
  it('hands out what was made available, in order, and gives back what was pushed', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(1, 2, 4, 8, 16),
        fc.constantFrom(0, 65530, 65535, 32767),
        fc.boolean(),
        fc.array(action, { minLength: 20, maxLength: 200 }),
        (size, startIndex, eventIndex, actions) => {
          const memory = new FakeGuestMemory(MEMORY_BYTES);
          const driver = new MockDriver(memory, { size, gpa: 0x1000, startIndex, eventIndex, indirect: true });
          let queue = new SplitQueue(driver.queueOptions);
          const added: { head: number; pieces: Piece[] }[] = [];
          const available: typeof added = [];
          const inFlight: DescriptorChain[] = [];
          const again: number[] = [];
          let count = 0;
          const pushed: { head: number; length: number }[] = [];
          const used: typeof pushed = [];
          for (const step of actions) {
            switch (step.kind) {
              case 'add': {
                const gpa = 0x40000 + added.length * 16;
                const pieces: Piece[] = [
                  ...step.readable.map((length) => ({ gpa, length })),
                  ...step.writable.map((length) => ({ gpa, length, writable: true })),
                ];
                if (pieces.length === 0 || pieces.length > size) break;
                const table = TABLES + (count++ % 256) * 0x100;
                const head = step.indirect ? driver.addIndirect(pieces, table) : driver.add(pieces);
                if (head !== undefined) added.push({ head, pieces });
                break;
              }
              case 'publish':
                driver.publish();
                available.push(...added.splice(0));
                break;
              case 'pop': {
                const chain = queue.pop();
                const head = again.shift();
                if (head !== undefined) {
                  expect(chain?.head).toBe(head);
                  inFlight.push(chain!);
                  break;
                }
                const expected = available.shift();
                expect(chain?.head).toBe(expected?.head);
                if (chain === undefined || expected === undefined) break;
                const split = (writable: boolean) =>
                  expected.pieces.filter((piece) => (piece.writable ?? false) === writable);
                expect(chain.readable.lengths).toEqual(split(false).map(({ length }) => length));
                expect(chain.writable.lengths).toEqual(split(true).map(({ length }) => length));
                expect(chain.readable.gpas).toEqual(split(false).map(({ gpa }) => gpa));
                inFlight.push(chain);
                break;
              }
              case 'push': {
                const [chain] = inFlight.splice(step.which % Math.max(inFlight.length, 1), 1);
                if (chain === undefined) break;
                queue.push(chain.head, step.written);
                pushed.push({ head: chain.head, length: step.written });
                break;
              }
              case 'tell':
                queue.publish();
                used.push(...pushed.splice(0));
                break;
              case 'collect':
                expect(driver.collect()).toEqual(used.splice(0));
                break;
              case 'save': {
                queue.publish();
                used.push(...pushed.splice(0));
                const state = queue.state();
                expect([...state.inFlight].sort()).toEqual([...again, ...inFlight.map(({ head }) => head)].sort());
                queue = new SplitQueue({ ...driver.queueOptions, state: JSON.parse(JSON.stringify(state)) });
                inFlight.length = 0;
                again.splice(0, again.length, ...state.inFlight);
                break;
              }
            }
            expect(queue.broken).toBeUndefined();
            expect(queue.inFlight).toBe(inFlight.length);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

/**
 * Both sides in steps, each of one access to a word of a ring. The device is the real queue: before each of its Atomics
 * the driver may do any number of its own steps; the schedule says how many. All schedules are tried.
 */
describe('notifications in every interleaving', () => {
  const { load, store } = Atomics;
  const memory = new FakeGuestMemory(0x10000);

  afterEach(() => {
    Object.assign(Atomics, { load, store });
  });

  /** What a driver does with a queue of one chain after another; each yield is where the other side may come in. */
  function* drive(rings: Rings, chains: number, eventIndex: boolean): Generator<undefined, void> {
    const { available, used } = rings;
    const size = rings.size;
    let collected = 0;
    const collect = () => {
      while (collected !== load(used, 1)) {
        collected = (collected + 1) & 0xffff;
        rings.done++;
      }
    };
    for (let index = 0; index < chains; index++) {
      available[2 + (index % size)] = index % size;
      yield;
      store(available, 1, index + 1);
      yield;
      const wanted = eventIndex ? load(used, 2 + 4 * size) === index : (load(used, 0) & 1) === 0;
      if (wanted) rings.notifications++;
      yield;
    }
    for (;;) {
      collect();
      if (rings.done === chains) return;
      yield;
      if (eventIndex) store(available, 2 + size, collected);
      else store(available, 0, 0);
      yield;
      if (load(used, 1) !== collected) continue;
      while (rings.interrupts === 0) {
        rings.isAsleep = true;
        yield;
      }
      rings.isAsleep = false;
      rings.interrupts--;
    }
  }

  interface Rings {
    readonly size: number;
    readonly available: Uint16Array;
    readonly used: Uint16Array;
    notifications: number;
    interrupts: number;
    done: number;
    isAsleep: boolean;
  }

  /** One run under a schedule: how many steps of the driver at each access of the device. Says the choices there were. */
  function run(schedule: number[], chains: number, eventIndex: boolean): { taken: number[]; lost: string | undefined } {
    const driver = new MockDriver(memory, { size: SIZE, gpa: 0x1000, eventIndex });
    const { available, used } = driver.queueOptions;
    const bytes = splitQueueBytes(SIZE);
    const words = (gpa: number, length: number) => {
      const view = memory.view(gpa, length);
      return new Uint16Array(view.buffer, view.byteOffset, length / 2);
    };
    const rings: Rings = {
      size: SIZE,
      available: words(available, bytes.available),
      used: words(used, bytes.used),
      notifications: 0,
      interrupts: 0,
      done: 0,
      isAsleep: false,
    };
    for (let index = 0; index < SIZE; index++) driver.writeDescriptor(index, { gpa: 0x4000, length: 1 });
    const queue = new SplitQueue(driver.queueOptions);
    const steps = drive(rings, chains, eventIndex);
    let isOver = false;
    const taken: number[] = [];
    const choose = () => {
      const wanted = schedule[taken.length] ?? 0;
      let did = 0;
      while (did < wanted && !isOver && !(rings.isAsleep && rings.interrupts === 0)) {
        isOver = steps.next().done === true;
        did++;
      }
      taken.push(did);
    };
    Object.assign(Atomics, {
      load: (array: Uint16Array, at: number) => {
        choose();
        return load(array, at);
      },
      store: (array: Uint16Array, at: number, value: number) => {
        choose();
        return store(array, at, value);
      },
    });
    /** As a device does at a notification. */
    const device = () => {
      queue.disableNotifications();
      do {
        for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
          queue.push(chain.head, 0);
          if (queue.publish()) rings.interrupts++;
        }
      } while (queue.enableNotifications());
    };
    for (;;) {
      if (rings.notifications > 0) {
        rings.notifications = 0;
        device();
      } else if (isOver || (rings.isAsleep && rings.interrupts === 0)) {
        break;
      } else {
        isOver = steps.next().done === true;
      }
    }
    Object.assign(Atomics, { load, store });
    const lost = isOver ? undefined : `${rings.done} of ${chains} done, used ${rings.used[1]}, all asleep`;
    return { taken, lost: lost ?? queue.broken };
  }

  it.each([
    [1, true],
    [2, true],
    [1, false],
    [2, false],
  ])('none is lost: %d chains, event index %s, all schedules', (chains, eventIndex) => {
    let runs = 0;
    const check = (schedule: number[]) => {
      const { taken, lost } = run(schedule, chains, eventIndex);
      if (lost !== undefined) expect.fail(`${lost} under the schedule ${JSON.stringify(taken)}`);
      runs++;
      return taken;
    };
    // Depth first: the last choice that can be one step longer is made so.
    let taken = check([]);
    for (let at = taken.length - 1; at >= 0;) {
      const longer = [...taken.slice(0, at), taken[at]! + 1];
      const result = check(longer);
      if (result[at] === longer[at]) {
        taken = result;
        at = taken.length - 1;
      } else {
        at--;
      }
    }
    expect(runs).toBeGreaterThan(chains * 10);
  });

  it.each([true, false])('none is lost: many chains, event index %s, random schedules', (eventIndex) => {
    fc.assert(
      fc.property(
        fc.integer({ min: 3, max: 12 }),
        fc.array(fc.constantFrom(0, 0, 0, 1, 1, 2, 3, 9), { maxLength: 60 }),
        (chains, schedule) => {
          expect(run(schedule, chains, eventIndex).lost).toBeUndefined();
        },
      ),
      { numRuns: 2000 },
    );
  });
});
