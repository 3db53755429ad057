import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { AddressBus, type BusDevice } from '../../bus/index.js';
import { FakeVcpu } from '../../bus/fake-vcpu.js';
import { ConfigSpace } from './config-space.js';
import type { PciFunction } from './function.js';
import { PCI_MEMORY_WINDOW, PciHostBridge } from './host-bridge.js';

function rig(functions = 2) {
  const clock = new ManualClock();
  const ports = new AddressBus({ space: 'port', clock, logger: silentLogger });
  const mmio = new AddressBus({ space: 'mmio', clock, logger: silentLogger });
  const vcpu = new FakeVcpu();
  vcpu.attach(ports);
  const lines: string[] = [];
  const bridge = new PciHostBridge({
    ports,
    mmio,
    irqLine: (gsi) => ({ set: (high) => void lines.push(`${gsi}:${high ? 'high' : 'low'}`) }),
  });
  const placed: (number | undefined)[][] = [];
  const intx: { set(high: boolean): void }[] = [];
  for (let i = 0; i < functions; i++) {
    const moves: (number | undefined)[] = [];
    placed.push(moves);
    bridge.add((line) => {
      intx.push(line);
      return makeFunction(`f${i}`, i, moves);
    });
  }
  const select = (slot: number, register: number, bus = 0, fn = 0): void =>
    vcpu.outl(0xcf8, 0x8000_0000 + bus * 0x1_0000 + slot * 0x800 + fn * 0x100 + (register & 0xfc));
  return {
    bridge,
    ports,
    vcpu,
    lines,
    placed,
    intx,
    select,
    get: (slot: number, register: number): number => (select(slot, register), vcpu.inl(0xcfc)),
    set: (slot: number, register: number, value: number): void => {
      select(slot, register);
      vcpu.outl(0xcfc, value);
    },
    /** A byte of memory-mapped space. */
    peek: (gpa: number): number => {
      const data = new Uint8Array(1);
      expect(mmio.access(gpa, 1, 1, false, data)).toBeUndefined();
      return data[0]!;
    },
  };
}

/** BAR 0 of 16 KiB and BAR 2 of 4 KiB, whose bytes are the function's number and the BAR's. */
function makeFunction(name: string, number: number, moves: (number | undefined)[]): PciFunction {
  const config = new ConfigSpace({
    vendorId: 0x1af4,
    deviceId: 0x1040 + number,
    revision: 1,
    classCode: 0x010000,
    subsystemVendorId: 0x1af4,
    subsystemId: 0x1100,
  });
  config.addBar(0, 0x4000);
  config.addBar(2, 0x1000);
  const bar = (index: number): BusDevice => ({
    name: `${name}:${index}`,
    read: () => number * 16 + index,
    write: () => undefined,
    reset: () => undefined,
    inspect: () => ({}),
  });
  return {
    name,
    config,
    bars: [
      { index: 0, device: bar(0), onPlaced: (gpa) => moves.push(gpa) },
      { index: 2, device: bar(2) },
    ],
    reset: () => undefined,
    inspect: () => ({}),
  };
}

const BASE = PCI_MEMORY_WINDOW.first;

describe('configuration mechanism 1', () => {
  it('is found as Linux looks for it', () => {
    const { vcpu } = rig();
    vcpu.outb(0xcfb, 0x01);
    vcpu.outl(0xcf8, 0x8000_0000);
    expect(vcpu.inl(0xcf8)).toBe(0x8000_0000);
    expect(vcpu.inl(0xcfc)).toBe(0x0008_1b36);
    vcpu.outl(0xcf8, 0x8000_0008);
    expect(vcpu.inw(0xcfe)).toBe(0x0600);
  });

  it('takes bytes, words and words at odd places of the data port', () => {
    const { vcpu, select } = rig();
    select(1, 0);
    expect(vcpu.inb(0xcfc)).toBe(0xf4);
    expect(vcpu.inb(0xcfd)).toBe(0x1a);
    expect(vcpu.inw(0xcfd)).toBe(0x401a);
    expect(vcpu.inw(0xcfe)).toBe(0x1040);
    select(1, 0x3c);
    vcpu.outb(0xcfc, 11);
    expect(vcpu.inl(0xcfc)).toBe(0x010b);
  });

  it('reads all ones for absent slots, functions, buses, and while it is off', () => {
    const { vcpu, get, select } = rig();
    expect(get(5, 0)).toBe(0xffff_ffff);
    select(1, 0, 0, 1);
    expect(vcpu.inl(0xcfc)).toBe(0xffff_ffff);
    select(1, 0, 3);
    expect(vcpu.inl(0xcfc)).toBe(0xffff_ffff);
    vcpu.outl(0xcf8, 0);
    expect(vcpu.inl(0xcfc)).toBe(0xffff_ffff);
    expect(vcpu.inb(0xcf8)).toBe(0xff);
    vcpu.outl(0xcfc, 0x1234_5678);
  });

  it('lets the reset register at 0xcf9 go first', () => {
    const { ports, vcpu } = rig();
    const written: unknown[] = [];
    const reset: BusDevice = {
      name: 'reset',
      maxSize: 1,
      read: () => 0,
      write: (_offset, _size, value) => void written.push(value),
      reset: () => undefined,
      inspect: () => ({}),
    };
    ports.add({ first: 0xcf9, length: 1 }, reset, { wholeAccessOnly: true });
    vcpu.outl(0xcf8, 0x8000_0800);
    vcpu.outb(0xcf9, 6);
    expect(vcpu.inl(0xcf8)).toBe(0x8000_0800);
    expect(written).toEqual([6]);
  });

  it('has 31 slots for devices', () => {
    const { bridge } = rig(31);
    expect(() => bridge.add(() => makeFunction('one-more', 0, []))).toThrow(RangeError);
  });
});

describe('base addresses', () => {
  it('are placed one behind the other, decoded, and sized without harm', () => {
    const { get, set, peek, placed } = rig();
    expect([get(1, 0x10), get(1, 0x18), get(2, 0x10), get(2, 0x18)]).toEqual([
      BASE,
      BASE + 0x4000,
      BASE + 0x8000,
      BASE + 0xc000,
    ]);
    expect([peek(BASE), peek(BASE + 0x4fff), peek(BASE + 0x8000), peek(BASE + 0x5000)]).toEqual([0, 2, 16, 0xff]);
    // As __pci_read_base does it: decoding off, all ones, read, the old value, decoding on.
    const command = get(1, 4) & 0xffff;
    set(1, 4, command & ~3);
    const sizes: number[] = [];
    for (let bar = 0; bar < 6; bar++) {
      const before = get(1, 0x10 + 4 * bar);
      set(1, 0x10 + 4 * bar, 0xffff_ffff);
      const mask = get(1, 0x10 + 4 * bar);
      set(1, 0x10 + 4 * bar, before);
      sizes.push(mask === 0 ? 0 : (~(mask & ~0xf) >>> 0) + 1);
    }
    set(1, 0x30, 0xffff_fffe);
    expect(get(1, 0x30)).toBe(0);
    set(1, 4, command);
    expect(sizes).toEqual([0x4000, 0, 0x1000, 0, 0, 0]);
    expect(placed[0]).toEqual([BASE, undefined, BASE]);
    expect(peek(BASE)).toBe(0);
  });

  it('move with what is behind them', () => {
    const { set, peek, placed } = rig();
    set(2, 0x10, BASE + 0x10_0000);
    expect([peek(BASE + 0x8000), peek(BASE + 0x10_0000)]).toEqual([0xff, 16]);
    expect(placed[1]).toEqual([BASE + 0x8000, BASE + 0x10_0000]);
  });

  it('are not decoded outside the window: in RAM, at the interrupt controllers', () => {
    const { set, peek, placed } = rig();
    for (const gpa of [0, 0x10_0000, BASE - 0x4000, 0xfec0_0000, 0xfee0_0000, 0xffff_c000]) {
      set(1, 0x10, gpa);
      expect(peek(gpa)).toBe(0xff);
    }
    expect(placed[0]).toEqual([BASE, undefined]);
    set(1, 0x10, 0xfebf_c000);
    expect(peek(0xfebf_ffff)).toBe(0);
  });

  it('that overlap go to the lower slot, and come back when they part', () => {
    const { set, peek, bridge } = rig();
    set(2, 0x10, BASE);
    expect(peek(BASE)).toBe(0);
    set(1, 0x10, BASE + 0x20_0000);
    expect([peek(BASE), peek(BASE + 0x20_0000)]).toEqual([16, 0]);
    expect(JSON.stringify(bridge.inspect())).toContain('"decoded":true');
  });

  it('stand where firmware put them after a reset', () => {
    const { set, get, peek, bridge } = rig();
    set(1, 0x10, BASE + 0x20_0000);
    set(1, 4, 0);
    bridge.reset();
    expect(get(1, 0x10)).toBe(BASE);
    expect(peek(BASE)).toBe(0);
  });
});

describe('INTx', () => {
  it('leads each slot to a GSI from 16 on, and joins slots that share one', () => {
    const { get, intx, lines, bridge } = rig(10);
    expect(get(1, 0x3c) & 0xffff).toBe(0x0100 + 17);
    expect(get(10, 0x3c) & 0xffff).toBe(0x0100 + 18);
    // Slots 2 and 10.
    intx[1]!.set(true);
    intx[9]!.set(true);
    intx[1]!.set(false);
    expect(lines).toEqual(['18:high']);
    intx[9]!.set(false);
    expect(lines).toEqual(['18:high', '18:low']);
    bridge.close();
    intx[9]!.set(true);
    expect(lines).toHaveLength(2);
  });

  it('is told to ACPI', () => {
    const text = Buffer.concat(rig(2).bridge.acpi.dsdt()).toString('latin1');
    for (const name of ['PCI0', '_HID', '_CRS', '_PRT']) expect(text).toContain(name);
    // Package () {0x1ffff, 0, 0, 17}: slot 1, INTA.
    expect(text).toContain('\x12\x0b\x04\x0c\xff\xff\x01\x00\x00\x00\x0a\x11');
  });
});
