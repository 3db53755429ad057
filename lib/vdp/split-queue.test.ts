import { describe, expect, it } from 'vitest';
import { VirtqDescFlag } from '../abi/virtio.js';
import { FakeGuestMemory } from '../memory/fake.js';
import { MockDriver, type MockDriverOptions, type RawDescriptor } from './mock-driver.js';
import { passesEvent, SplitQueue, type SplitQueueOptions } from './split-queue.js';

const { NEXT, WRITE, INDIRECT } = VirtqDescFlag;
const GiB = 2 ** 30;
const TABLE = 0x8000;

function rig(options: Partial<MockDriverOptions> = {}, queueOptions: Partial<SplitQueueOptions> = {}) {
  const memory = new FakeGuestMemory([
    { gpa: 0, sizeBytes: 3 * GiB },
    { gpa: 4 * GiB, sizeBytes: 2 * GiB },
  ]);
  const driver = new MockDriver(memory, { size: 8, gpa: 0x1000, indirect: true, ...options });
  const queue = new SplitQueue({ ...driver.queueOptions, ...queueOptions });
  return { memory, driver, queue };
}

describe('SplitQueue', () => {
  it('hands chains out in order, and gives them back in any', () => {
    const { driver, queue } = rig();
    const first = driver.add([
      { gpa: 0x4000, length: 16 },
      { gpa: 5 * GiB, length: 4096, writable: true },
      { gpa: 0x5000, length: 1, writable: true },
    ])!;
    const second = driver.add([{ gpa: 0x6000, length: 7 }])!;
    expect(queue.pop()).toBeUndefined();
    expect(driver.publish()).toBe(true);
    const chain = queue.pop()!;
    expect(chain.head).toBe(first);
    expect([chain.readable.gpas, chain.readable.lengths]).toEqual([[0x4000], [16]]);
    expect([chain.writable.gpas, chain.writable.lengths]).toEqual([
      [5 * GiB, 0x5000],
      [4096, 1],
    ]);
    expect(queue.pop()!.head).toBe(second);
    expect(queue.pop()).toBeUndefined();
    expect(queue.inFlight).toBe(2);
    queue.push(second, 0);
    queue.push(first, 4097);
    expect(driver.collect()).toEqual([]);
    expect(queue.publish()).toBe(true);
    expect(driver.collect()).toEqual([
      { head: second, length: 0 },
      { head: first, length: 4097 },
    ]);
    expect(queue.publish()).toBe(false);
    expect(driver.freeDescriptors).toBe(8);
  });

  it('reads an indirect table, also behind direct descriptors, and ignores WRITE on what refers to it', () => {
    const { driver, queue } = rig();
    const head = driver.addIndirect([{ gpa: 0x5000, length: 8, writable: true }], TABLE, [{ gpa: 0x4000, length: 4 }])!;
    driver.publish();
    const chain = queue.pop()!;
    expect(chain.head).toBe(head);
    expect(chain.readable.gpas).toEqual([0x4000]);
    expect(chain.writable.gpas).toEqual([0x5000]);
    driver.writeTable(TABLE, [{ gpa: 0x4000, length: 3 }]);
    driver.writeDescriptor(5, { gpa: TABLE, length: 16, flags: INDIRECT | WRITE });
    driver.offer(5);
    driver.publish();
    expect(queue.pop()!.readable.lengthBytes).toBe(3);
  });

  it('keeps running over the wrap of its indices at 65536', () => {
    const { driver, queue } = rig({ startIndex: 65534, eventIndex: true });
    for (let i = 0; i < 6; i++) {
      driver.add([{ gpa: 0x4000 + i, length: 1 }]);
      driver.publish();
      const chain = queue.pop()!;
      expect(chain.readable.gpas).toEqual([0x4000 + i]);
      queue.push(chain.head, i);
      queue.publish();
      expect(driver.collect()).toEqual([{ head: chain.head, length: i }]);
    }
    expect(driver.usedIndex).toBe(4);
  });

  it('drops pieces without a byte', () => {
    const { driver, queue } = rig();
    driver.add([
      { gpa: 2 ** 60, length: 0 },
      { gpa: 0x4000, length: 1 },
      { gpa: 0x5000, length: 0, writable: true },
    ]);
    driver.publish();
    const chain = queue.pop()!;
    expect(chain.readable.gpas).toEqual([0x4000]);
    expect(chain.writable.lengthBytes).toBe(0);
  });

  it('takes indirect tables up to maxDescriptors where the ring is smaller', () => {
    const { driver, queue } = rig({}, { maxDescriptors: 12 });
    driver.addIndirect(
      Array.from({ length: 12 }, () => ({ gpa: 0x4000, length: 1 })),
      TABLE,
    );
    driver.publish();
    expect(queue.pop()!.readable.lengthBytes).toBe(12);
    driver.addIndirect(
      Array.from({ length: 13 }, () => ({ gpa: 0x4000, length: 1 })),
      TABLE,
    );
    driver.publish();
    expect(queue.pop()).toBeUndefined();
    expect(queue.broken).toContain('indirect table of 13');
  });

  it('a full 4 GiB is a chain, and told as a byte less', () => {
    const { driver, queue } = rig({}, {});
    const piece = { gpa: 0, length: GiB, writable: true };
    const head = driver.add([piece, piece, piece, piece])!;
    driver.publish();
    queue.push(queue.pop()!.head, 4 * GiB);
    queue.publish();
    expect(driver.collect()).toEqual([{ head, length: 0xffffffff }]);
  });

  it('marks what it writes as dirty', () => {
    const { memory, driver, queue } = rig({ gpa: 0xfe0 });
    driver.add([{ gpa: 0x4000, length: 1 }]);
    driver.publish();
    memory.dirtyPages.clear();
    queue.push(queue.pop()!.head, 0);
    expect(memory.dirtyPages.size).toBe(0);
    queue.publish();
    expect([...memory.dirtyPages]).toEqual([1]);
  });

  it('throws for a head that is not in flight', () => {
    const { driver, queue } = rig();
    expect(() => queue.push(0, 0)).toThrow(RangeError);
    expect(() => queue.push(99, 0)).toThrow(RangeError);
    const head = driver.add([{ gpa: 0x4000, length: 1 }])!;
    driver.publish();
    queue.pop();
    queue.push(head, 0);
    expect(() => queue.push(head, 0)).toThrow(RangeError);
  });
});

describe('what a driver does wrong', () => {
  const table = (descriptors: readonly RawDescriptor[], head = 0) => {
    const { driver, queue } = rig();
    for (const [index, descriptor] of descriptors.entries()) driver.writeDescriptor(index, descriptor);
    driver.offer(head);
    driver.publish();
    return queue;
  };
  const indirect = (descriptors: readonly RawDescriptor[], lengthBytes = descriptors.length * 16) => {
    const { driver, queue } = rig();
    driver.writeTable(TABLE, descriptors);
    driver.writeDescriptor(0, { gpa: TABLE, length: lengthBytes, flags: INDIRECT });
    driver.offer(0);
    driver.publish();
    return queue;
  };
  const ok = { gpa: 0x4000, length: 1 };

  it.each<[string, () => SplitQueue, string]>([
    ['a loop of one', () => table([{ ...ok, flags: NEXT, next: 0 }]), 'loop'],
    [
      'a loop of two',
      () =>
        table([
          { ...ok, flags: NEXT, next: 1 },
          { ...ok, flags: NEXT, next: 0 },
        ]),
      'loop',
    ],
    ['a loop in an indirect table', () => indirect([{ ...ok, flags: NEXT, next: 0 }]), 'loop'],
    ['a next outside', () => table([{ ...ok, flags: NEXT, next: 8 }]), 'descriptor 8 of a table of 8'],
    ['a next outside an indirect table', () => indirect([{ ...ok, flags: NEXT, next: 1 }]), 'descriptor 1 of a table'],
    ['a head outside', () => table([], 8), 'head 8'],
    ['indirect in indirect', () => indirect([{ gpa: TABLE, length: 16, flags: INDIRECT }]), 'in an indirect table'],
    ['indirect with NEXT', () => table([{ gpa: TABLE, length: 16, flags: INDIRECT | NEXT }]), 'with a next one'],
    ['an empty indirect table', () => indirect([ok], 0), 'indirect table of 0 bytes'],
    ['a cut indirect table', () => indirect([ok, ok], 24), 'indirect table of 24 bytes'],
    ['a long indirect table', () => indirect([ok], 16 * 9), 'indirect table of 9 descriptors'],
    ['an absurd indirect table', () => indirect([ok], 0xfffffff0), 'indirect table of 268435455'],
    ['a table outside RAM', () => table([{ gpa: 3 * GiB, length: 16, flags: INDIRECT }]), 'not RAM'],
    ['a table across a hole', () => table([{ gpa: 3 * GiB - 16, length: 32, flags: INDIRECT }]), 'not RAM'],
    ['a piece outside RAM', () => table([{ gpa: 6 * GiB, length: 1 }]), 'not RAM'],
    ['a piece across a hole', () => table([{ gpa: 3 * GiB - 1, length: GiB + 2 }]), 'not RAM'],
    ['a piece that ends outside', () => table([{ gpa: 6 * GiB - 1, length: 2 }]), 'not RAM'],
    ['an address that wraps', () => table([{ gpa: 2 ** 64 - 4096, length: 8192 }]), 'not RAM'],
    ['an address beyond 2^53', () => table([{ gpa: 2 ** 63, length: 1 }]), 'not RAM'],
    ['a greatest length', () => table([{ gpa: 0x1000, length: 0xffffffff }]), 'not RAM'],
    [
      'more than 4 GiB',
      () =>
        table([
          { gpa: 0, length: 2 * GiB, flags: NEXT, next: 1 },
          { gpa: 0, length: 2 * GiB, flags: NEXT, next: 2 },
          { gpa: 0, length: 1 },
        ]),
      'more than 4 GiB',
    ],
    [
      'readable behind writable',
      () => table([{ ...ok, flags: WRITE | NEXT, next: 1 }, ok]),
      'a readable descriptor behind a writable one',
    ],
    [
      'readable behind writable, without a byte',
      () =>
        table([
          { ...ok, flags: WRITE | NEXT, next: 1 },
          { gpa: 0, length: 0 },
        ]),
      'a readable descriptor behind a writable one',
    ],
    [
      'a chain longer than the queue, by an indirect table',
      () => {
        const { driver, queue } = rig();
        const pieces = Array.from({ length: 8 }, () => ok);
        driver.addIndirect(pieces, TABLE, [ok]);
        driver.publish();
        return queue;
      },
      'a chain of more than 8 descriptors',
    ],
    [
      'an indirect descriptor that was not negotiated',
      () => {
        const { driver, queue } = rig({ indirect: false });
        driver.addIndirect([ok], TABLE);
        driver.publish();
        return queue;
      },
      'not negotiated',
    ],
    [
      'an index that jumps by more than the size',
      () => {
        const { driver, queue } = rig();
        driver.setAvailableIndex(9);
        return queue;
      },
      'went from 0 to 9 in a queue of 8',
    ],
    [
      'an index that goes back',
      () => {
        const { driver, queue } = rig();
        driver.setAvailableIndex(65535);
        return queue;
      },
      'went from 0 to 65535',
    ],
    [
      'a head that is in flight',
      () => {
        const { driver, queue } = rig();
        driver.writeDescriptor(3, ok);
        driver.offer(3);
        driver.offer(3);
        driver.publish();
        expect(queue.pop()!.head).toBe(3);
        return queue;
      },
      'head 3 was made available while it is in flight',
    ],
  ])('%s', (_name, make, reason) => {
    const queue = make();
    expect(queue.pop()).toBeUndefined();
    expect(queue.broken).toContain(reason);
    expect(queue.pop()).toBeUndefined();
    expect(queue.enableNotifications()).toBe(false);
    queue.disableNotifications();
    expect(queue.publish()).toBe(false);
  });

  it('a broken queue writes nothing any more, though chains come back', () => {
    const { memory, driver, queue } = rig();
    const head = driver.add([ok])!;
    driver.publish();
    queue.pop();
    driver.setAvailableIndex(500);
    expect(queue.pop()).toBeUndefined();
    memory.dirtyPages.clear();
    queue.push(head, 1);
    expect(queue.publish()).toBe(false);
    expect([queue.inFlight, driver.usedIndex, memory.dirtyPages.size]).toEqual([0, 0, 0]);
  });

  it.each<[string, Partial<SplitQueueOptions>, string]>([
    ['no size', { size: 0 }, 'queue size of 0'],
    ['a size that is no power of two', { size: 12 }, 'queue size of 12'],
    ['an absurd size', { size: 65536 }, 'queue size of 65536'],
    ['a misaligned table', { descriptors: 0x1008 }, 'descriptor table at 0x00001008 is not aligned to 16'],
    ['a misaligned available ring', { available: 0x1001 }, 'available ring'],
    ['a misaligned used ring', { used: 0x1002 }, 'used ring'],
    ['a table outside RAM', { descriptors: 2 ** 62 }, 'not in RAM'],
    ['a used ring across a hole', { used: 3 * GiB - 4 }, 'used ring at 0xbffffffc is not in RAM'],
    ['an available ring that ends outside', { available: 6 * GiB - 2 }, 'not in RAM'],
  ])('a queue with %s is born broken', (_name, options, reason) => {
    const { queue } = rig({}, options);
    expect(queue.broken).toContain(reason);
    expect(queue.pop()).toBeUndefined();
    expect(queue.enableNotifications()).toBe(false);
    queue.disableNotifications();
    expect(queue.publish()).toBe(false);
    expect(queue.inFlight).toBe(0);
  });
});

describe('notifications', () => {
  it('go by flags without an event index', () => {
    const { driver, queue } = rig();
    const ok = { gpa: 0x4000, length: 1 };
    queue.disableNotifications();
    driver.add([ok]);
    expect(driver.publish()).toBe(false);
    expect(queue.enableNotifications()).toBe(true);
    driver.disableInterrupts();
    queue.push(queue.pop()!.head, 0);
    expect(queue.publish()).toBe(false);
    expect(driver.enableInterrupts()).toBe(true);
    driver.collect();
    expect(driver.enableInterrupts()).toBe(false);
    expect(queue.enableNotifications()).toBe(false);
    driver.add([ok]);
    expect(driver.publish()).toBe(true);
    queue.push(queue.pop()!.head, 0);
    expect(queue.publish()).toBe(true);
  });

  it('go by the event index: one at the crossing, none before and after it', () => {
    const { driver, queue } = rig({ eventIndex: true });
    const ok = { gpa: 0x4000, length: 1 };
    driver.add([ok]);
    expect(driver.publish()).toBe(true);
    driver.add([ok]);
    expect(driver.publish()).toBe(false);
    queue.push(queue.pop()!.head, 0);
    expect(queue.publish()).toBe(true);
    queue.push(queue.pop()!.head, 0);
    expect(queue.publish()).toBe(false);
    driver.collect();
    expect(queue.enableNotifications()).toBe(false);
    expect(driver.enableInterrupts()).toBe(false);
    driver.add([ok]);
    driver.add([ok]);
    expect(driver.publish()).toBe(true);
    queue.push(queue.pop()!.head, 0);
    queue.push(queue.pop()!.head, 0);
    expect(queue.publish()).toBe(true);
  });

  it('are not wanted for what a driver found by itself after it was exposed', () => {
    const { driver, queue } = rig({ eventIndex: true });
    const ok = { gpa: 0x4000, length: 1 };
    driver.add([ok]);
    driver.add([ok]);
    driver.publish();
    queue.push(queue.pop()!.head, 0);
    queue.expose();
    expect(driver.collect().length).toBe(1);
    expect(driver.enableInterrupts()).toBe(false);
    expect(queue.publish()).toBe(false);
    queue.push(queue.pop()!.head, 0);
    queue.expose();
    expect(queue.publish()).toBe(true);
    expect(queue.publish()).toBe(false);
  });

  it('passesEvent is the arithmetic of 16 bits', () => {
    for (const event of [0, 1, 5, 32767, 32768, 65534, 65535]) {
      for (let step = 1; step <= 4; step++) {
        for (let before = 0; before < 65536; before += 1) {
          const now = (before + step) & 0xffff;
          let passes = false;
          for (let index = before, left = step; left > 0; left--, index = (index + 1) & 0xffff) {
            if (index === event) passes = true;
          }
          if (passesEvent(event, now, before) !== passes) expect.fail(`${event} ${now} ${before}`);
        }
      }
    }
  });
});

describe('state', () => {
  it('goes on where it was, with the chains in flight popped again', () => {
    const { driver, queue } = rig({ eventIndex: true });
    const heads = [1, 2, 3, 4].map((length) => driver.add([{ gpa: 0x4000, length }])!);
    driver.publish();
    const [first, second, third] = [queue.pop()!, queue.pop()!, queue.pop()!];
    queue.push(second.head, 0);
    expect(() => queue.state()).toThrow('not published');
    queue.publish();
    const state = structuredClone(queue.state());
    expect(state).toEqual({ availableIndex: 3, usedIndex: 1, inFlight: [first.head, third.head] });
    const again = new SplitQueue({ ...driver.queueOptions, state });
    expect(again.state()).toEqual(state);
    expect([again.pop(), again.pop(), again.pop()].map((chain) => chain!.readable.lengthBytes)).toEqual([1, 3, 4]);
    expect(again.pop()).toBeUndefined();
    for (const head of [first.head, third.head, heads[3]!]) again.push(head, 0);
    again.publish();
    expect(driver.collect()).toHaveLength(4);
  });

  it('of which heads are wrong breaks the queue', () => {
    const { queue } = rig({}, { state: { availableIndex: 0, usedIndex: 0, inFlight: [99] } });
    expect(queue.pop()).toBeUndefined();
    expect(queue.broken).toContain('head 99');
  });
});
