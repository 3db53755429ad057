import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { type LogLevel, silentLogger } from '../base/logger.js';
import { AddressBus } from './address-bus.js';
import type { AccessSize, BusDevice } from './device.js';

/** A device of plain bytes that remembers how it was accessed. */
class Bytes implements BusDevice {
  readonly name: string;
  readonly maxSize?: AccessSize;
  readonly log: string[] = [];
  readonly bytes = new Uint8Array(64);
  resets = 0;

  constructor(name: string, maxSize?: AccessSize) {
    this.name = name;
    if (maxSize !== undefined) this.maxSize = maxSize;
  }

  read(offset: number, size: AccessSize): number | bigint {
    this.log.push(`r${size}@${offset}`);
    const view = new DataView(this.bytes.buffer);
    if (size === 8) return view.getBigUint64(offset, true);
    return size === 4
      ? view.getUint32(offset, true)
      : size === 2
        ? view.getUint16(offset, true)
        : view.getUint8(offset);
  }

  write(offset: number, size: AccessSize, value: number | bigint): void {
    this.log.push(`w${size}@${offset}=${value.toString(16)}`);
    for (let index = 0; index < size; index++) {
      this.bytes[offset + index] = Number((BigInt(value) >> BigInt(8 * index)) & 0xffn);
    }
  }

  reset(): void {
    this.resets++;
  }

  inspect(): unknown {
    return {};
  }
}

function bus(space: 'port' | 'mmio' = 'port', logger = silentLogger): AddressBus {
  return new AddressBus({ space, clock: new ManualClock(), logger });
}

describe('AddressBus', () => {
  it('hands an access to the device at its offset, and fills reads in, little endian', () => {
    const ports = bus();
    const device = new Bytes('a');
    ports.add({ first: 0x100, length: 8 }, device);
    expect(ports.access(0x104, 4, 1, true, Uint8Array.of(1, 2, 3, 0x84))).toBeUndefined();
    const data = new Uint8Array(2);
    expect(ports.access(0x106, 2, 1, false, data)).toBeUndefined();
    expect([...data]).toEqual([3, 0x84]);
    expect(device.log).toEqual(['w4@4=84030201', 'r2@6']);
  });

  it('takes 8 bytes as a bigint', () => {
    const mmio = bus('mmio');
    const device = new Bytes('a');
    mmio.add({ first: 0xfed0_0000, length: 64 }, device);
    void mmio.access(0xfed0_0008, 8, 1, true, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0xff));
    expect(device.log).toEqual(['w8@8=ff00000000000001']);
    const data = new Uint8Array(8);
    void mmio.access(0xfed0_0008, 8, 1, false, data);
    expect([...data]).toEqual([1, 0, 0, 0, 0, 0, 0, 0xff]);
  });

  it('refuses ranges that overlap, are empty, or end beyond the space', () => {
    const ports = bus();
    ports.add({ first: 0x3f8, length: 8 }, new Bytes('com1'));
    expect(() => ports.add({ first: 0x3ff, length: 1 }, new Bytes('b'))).toThrow(/b at port 0x3ff-0x3ff overlaps com1/);
    expect(() => ports.add({ first: 0x3f0, length: 9 }, new Bytes('b'))).toThrow(RangeError);
    expect(() => ports.add({ first: 0, length: 0x1_0000 }, new Bytes('b'))).toThrow(RangeError);
    ports.add({ first: 0x3f0, length: 8 }, new Bytes('b'));
    ports.add({ first: 0xffff, length: 1 }, new Bytes('c'));
    for (const range of [
      { first: 0x10, length: 0 },
      { first: -1, length: 4 },
      { first: 0xffff, length: 2 },
      { first: 1.5, length: 1 },
      { first: NaN, length: 1 },
    ]) {
      expect(() => ports.add(range, new Bytes('d'))).toThrow(RangeError);
    }
  });

  it('answers unclaimed reads with all ones, drops writes, and counts both in bounded memory', () => {
    const messages: LogLevel[] = [];
    const ports = bus('port', { log: (level) => messages.push(level) });
    const data = new Uint8Array(4);
    expect(ports.access(0x80, 4, 1, false, data)).toBeUndefined();
    expect([...data]).toEqual([0xff, 0xff, 0xff, 0xff]);
    expect(ports.access(0x80, 1, 1, true, Uint8Array.of(1))).toBeUndefined();
    for (let port = 0x1000; port < 0x3000; port++) void ports.access(port, 1, 1, true, Uint8Array.of(1));
    const { unclaimed } = ports.inspect() as { unclaimed: { addresses: Record<string, unknown>; others: number } };
    expect(unclaimed.addresses['0x80']).toEqual({ reads: 1, writes: 1 });
    expect(Object.keys(unclaimed.addresses)).toHaveLength(256);
    expect(unclaimed.others).toBe(0x2000 - 255);
    expect(messages).toHaveLength(32);
    expect(new Set(messages)).toEqual(new Set(['debug']));
  });

  it('splits an access over two ranges, and one wider than the device takes', () => {
    const ports = bus();
    const a = new Bytes('a', 1);
    const b = new Bytes('b');
    ports.add({ first: 0x70, length: 2 }, a);
    ports.add({ first: 0x73, length: 4 }, b);
    a.bytes.set([0x11, 0x22]);
    b.bytes.set([0x44]);
    const data = new Uint8Array(4);
    void ports.access(0x70, 4, 1, false, data);
    expect([...data]).toEqual([0x11, 0x22, 0xff, 0x44]);
    expect(a.log).toEqual(['r1@0', 'r1@1']);
    void ports.access(0x70, 2, 1, true, Uint8Array.of(5, 6));
    expect(a.log.slice(2)).toEqual(['w1@0=5', 'w1@1=6']);
    const top = new Uint8Array(4);
    void ports.access(0xfffe, 4, 1, false, top);
    expect([...top]).toEqual([0xff, 0xff, 0xff, 0xff]);
  });

  it('splits an odd MMIO length into natural parts', () => {
    const mmio = bus('mmio');
    const device = new Bytes('a');
    mmio.add({ first: 0x1000, length: 64 }, device);
    void mmio.access(0x1001, 7, 1, true, Uint8Array.of(1, 2, 3, 4, 5, 6, 7));
    expect(device.log).toEqual(['w1@1=1', 'w2@2=302', 'w4@4=7060504']);
  });

  it('gives a whole-access range only accesses of its own', () => {
    const ports = bus();
    const reset = new Bytes('reset', 1);
    const pci = new Bytes('pci');
    ports.add({ first: 0xcf9, length: 1 }, reset, { wholeAccessOnly: true });
    void ports.access(0xcf8, 4, 1, true, Uint8Array.of(0, 6, 0, 0x80));
    expect(reset.log).toEqual([]);
    ports.add({ first: 0xcf8, length: 8 }, pci);
    void ports.access(0xcf8, 4, 1, true, Uint8Array.of(0, 6, 0, 0x80));
    void ports.access(0xcf9, 1, 1, true, Uint8Array.of(6));
    expect(pci.log).toEqual(['w4@0=80000600']);
    expect(reset.log).toEqual(['w1@0=6']);
  });

  it('does string I/O by blocks where the device can, else element by element', () => {
    const ports = bus();
    const device = new Bytes('a');
    ports.add({ first: 0x10, length: 4 }, device);
    void ports.access(0x10, 2, 3, true, Uint8Array.of(1, 0, 2, 0, 3, 0));
    expect(device.log).toEqual(['w2@0=1', 'w2@0=2', 'w2@0=3']);
    const blocks = Object.assign(new Bytes('b'), {
      readBlock: (_offset: number, _size: AccessSize, data: Uint8Array) => void data.fill(7),
    });
    ports.add({ first: 0x20, length: 4 }, blocks);
    const data = new Uint8Array(512);
    void ports.access(0x20, 4, 128, false, data);
    expect(data.every((byte) => byte === 7)).toBe(true);
    expect(blocks.log).toEqual([]);
    const none = new Uint8Array(6);
    void ports.access(0x40, 2, 3, false, none);
    expect([...none]).toEqual([255, 255, 255, 255, 255, 255]);
  });

  it('waits for a device that answers later, in string I/O too', async () => {
    const ports = bus();
    let next = 1;
    const device: BusDevice = {
      name: 'late',
      read: async () => next++,
      write: async () => undefined,
      reset: () => undefined,
      inspect: () => ({}),
    };
    ports.add({ first: 0x10, length: 4 }, device);
    const data = new Uint8Array(3);
    const result = ports.access(0x10, 1, 3, false, data);
    expect(result).toBeInstanceOf(Promise);
    expect(await result).toBeUndefined();
    expect([...data]).toEqual([1, 2, 3]);
    expect(await ports.access(0x10, 1, 1, true, Uint8Array.of(1))).toBeUndefined();
  });

  it('makes a fault of a device that throws or rejects, at once or in the middle', async () => {
    const ports = bus();
    const cause = new Error('a bug of ours');
    let calls = 0;
    const device: BusDevice = {
      name: 'broken',
      read: (offset) => {
        if (offset === 0) throw cause;
        if (offset === 1) return Promise.reject(cause);
        if (++calls === 2) throw cause;
        return Promise.resolve(1);
      },
      write: () => Promise.reject(cause),
      reset: () => undefined,
      inspect: () => ({}),
    };
    ports.add({ first: 0x10, length: 4 }, device);
    const fault = { kind: 'fault', device: 'broken', cause, isWrite: false };
    expect(ports.access(0x10, 1, 1, false, new Uint8Array(1))).toEqual({ ...fault, address: 0x10 });
    expect(await ports.access(0x11, 1, 1, false, new Uint8Array(1))).toEqual({ ...fault, address: 0x11 });
    expect(await ports.access(0x12, 1, 4, false, new Uint8Array(4))).toEqual({ ...fault, address: 0x12 });
    expect(await ports.write(0x10, 1, 4)).toEqual({ ...fault, address: 0x10, isWrite: true });
    expect(ports.access(0x0f, 2, 1, false, new Uint8Array(2))).toEqual({ ...fault, address: 0x10 });
    expect(ports.inspect()).toMatchObject({ faults: 5 });
  });

  it('writes posted entries as it does exits', () => {
    const ports = bus();
    const device = new Bytes('a', 1);
    ports.add({ first: 0x3f8, length: 8 }, device);
    expect(ports.write(0x3f8, 1, 0x41)).toBeUndefined();
    expect(ports.write(0x3fe, 4, 0x04030201)).toBeUndefined();
    expect(device.log).toEqual(['w1@0=41', 'w1@6=1', 'w1@7=2']);
  });

  it('resets each device once, and takes one away from all its ranges', () => {
    const ports = bus();
    const device = new Bytes('a');
    ports.add({ first: 0x60, length: 1 }, device);
    ports.add({ first: 0x64, length: 1 }, device);
    ports.reset();
    expect(device.resets).toBe(1);
    void ports.access(0x64, 1, 1, false, new Uint8Array(1));
    ports.remove(device);
    const data = new Uint8Array(1);
    void ports.access(0x64, 1, 1, false, data);
    expect(data[0]).toBe(0xff);
    expect(device.log).toHaveLength(1);
  });

  it('counts offsets of a further range from where it is told', () => {
    const ports = bus();
    const device = new Bytes('a');
    ports.add({ first: 0x60, length: 1 }, device);
    ports.add({ first: 0x64, length: 1 }, device, { firstOffset: 4 });
    void ports.access(0x64, 1, 1, true, Uint8Array.of(9));
    void ports.access(0x60, 1, 1, true, Uint8Array.of(8));
    expect(device.log).toEqual(['w1@4=9', 'w1@0=8']);
  });

  it('never throws and always fills a read, whatever the access', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ first: fc.nat(70), length: fc.nat(9), width: fc.constantFrom(1, 2, 4, 8) })),
        fc.array(fc.record({ address: fc.nat(80), size: fc.integer({ min: 1, max: 8 }), isWrite: fc.boolean() })),
        (ranges, accesses) => {
          const mmio = bus('mmio');
          for (const { first, length, width } of ranges) {
            try {
              mmio.add({ first, length }, new Bytes('x', width));
            } catch (error) {
              expect(error).toBeInstanceOf(RangeError);
            }
          }
          for (const { address, size, isWrite } of accesses) {
            expect(mmio.access(address, size, 1, isWrite, new Uint8Array(size).fill(0xaa))).toBeUndefined();
          }
        },
      ),
    );
  });
});
