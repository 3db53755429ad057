import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { silentLogger } from '../base/logger.js';
import { AddressBus } from '../bus/address-bus.js';
import { FakeVcpu } from '../bus/fake-vcpu.js';
import { PmTimer } from './pm-timer.js';
import { GPE0_OFFSET, PM1A_PORT_COUNT, PowerManagement } from './power-management.js';

const SECOND = 1_000_000_000n;

class Rig {
  readonly clock = new ManualClock({ startNs: 5n * SECOND });
  readonly cpu = new FakeVcpu();
  sci = false;
  powerOffs = 0;
  readonly timer = new PmTimer(this.clock);
  readonly power = new PowerManagement({
    timer: this.timer,
    sci: { set: (high) => (this.sci = high) },
    onPowerOff: () => this.powerOffs++,
  });

  constructor() {
    const bus = new AddressBus({ space: 'port', clock: this.clock, logger: silentLogger });
    bus.add({ first: 0x600, length: PM1A_PORT_COUNT }, this.power);
    bus.add({ first: 0x608, length: 4 }, this.timer);
    bus.add({ first: 0x620, length: 8 }, this.power, { firstOffset: GPE0_OFFSET });
    this.cpu.attach(bus);
  }
}

describe('PowerManagement', () => {
  it('tells the power button by a level SCI until its status is cleared', () => {
    const rig = new Rig();
    rig.power.powerButton();
    expect(rig.sci).toBe(false);
    rig.cpu.outw(0x602, 0x0100);
    expect(rig.sci).toBe(true);
    expect(rig.cpu.inw(0x600)).toBe(0x0100);
    rig.cpu.outw(0x600, 0x8021);
    expect(rig.sci).toBe(true);
    rig.cpu.outw(0x600, 0x0100);
    expect(rig.sci).toBe(false);
    expect(rig.cpu.inw(0x600)).toBe(0);
    rig.power.powerButton();
    expect(rig.sci).toBe(true);
    expect(rig.power.inspect()).toMatchObject({ powerButtonPresses: 2 });
    rig.power.reset();
    expect(rig.sci).toBe(false);
  });

  it('keeps the enables that ACPICA reads back', () => {
    const rig = new Rig();
    for (const bit of [0x0001, 0x0020, 0x0100, 0x0200, 0x0400]) {
      rig.cpu.outw(0x602, bit);
      expect(rig.cpu.inw(0x602)).toBe(bit);
    }
  });

  it('is in ACPI mode and powers off on S5 with SLP_EN, by words and by bytes', () => {
    const rig = new Rig();
    expect(rig.cpu.inw(0x604)).toBe(1);
    rig.cpu.outw(0x604, 5 << 10);
    expect(rig.powerOffs).toBe(0);
    rig.cpu.outw(0x604, (5 << 10) | 0x2000);
    expect(rig.powerOffs).toBe(1);
    expect(rig.cpu.inw(0x604)).toBe((5 << 10) | 1);
    rig.cpu.outw(0x604, (3 << 10) | 0x2000);
    expect(rig.powerOffs).toBe(1);
    rig.cpu.outb(0x605, 0x34);
    expect(rig.powerOffs).toBe(2);
  });

  it('has general purpose events', () => {
    const rig = new Rig();
    rig.power.raiseGpe(9);
    expect(rig.cpu.inl(0x620)).toBe(0x200);
    expect(rig.sci).toBe(false);
    rig.cpu.outb(0x625, 0x02);
    expect(rig.sci).toBe(true);
    rig.cpu.outb(0x621, 0x02);
    expect(rig.sci).toBe(false);
    expect(() => rig.power.raiseGpe(32)).toThrow(RangeError);
    expect(() => rig.power.raiseGpe(-1)).toThrow(RangeError);
  });

  it('takes any sequence of accesses without throwing', () => {
    const access = fc.tuple(fc.boolean(), fc.integer({ min: 0x600, max: 0x627 }), fc.constantFrom(1, 2, 4), fc.nat());
    fc.assert(
      fc.property(fc.array(access), (accesses) => {
        const rig = new Rig();
        for (const [isWrite, port, size, value] of accesses) {
          if (isWrite) rig.cpu[size === 1 ? 'outb' : size === 2 ? 'outw' : 'outl'](port, value);
          else rig.cpu[size === 1 ? 'inb' : size === 2 ? 'inw' : 'inl'](port);
          rig.clock.advance(BigInt(value) * 100n);
        }
      }),
    );
  });
});

describe('PmTimer', () => {
  it('counts at 3.579545 MHz in 32 bits', () => {
    const rig = new Rig();
    expect(rig.cpu.inl(0x608)).toBe(0);
    rig.clock.advance(SECOND);
    expect(rig.cpu.inl(0x608)).toBe(3_579_545);
    expect(rig.cpu.inw(0x608)).toBe(3_579_545 & 0xffff);
    expect(rig.cpu.inb(0x60a)).toBe((3_579_545 >> 16) & 0xff);
    rig.cpu.outl(0x608, 0);
    expect(rig.cpu.inl(0x608)).toBe(3_579_545);
    rig.clock.advance(1200n * SECOND);
    expect(rig.cpu.inl(0x608)).toBe((1201 * 3_579_545) % 2 ** 32);
  });

  it('sets TMR_STS when its top bit changes, and interrupts when that is enabled', () => {
    const rig = new Rig();
    rig.clock.advance(599n * SECOND);
    expect(rig.cpu.inw(0x600)).toBe(0);
    rig.clock.advance(SECOND);
    expect(rig.cpu.inw(0x600)).toBe(1);
    rig.cpu.outw(0x600, 1);
    expect(rig.cpu.inw(0x600)).toBe(0);
    rig.cpu.outw(0x602, 1);
    rig.clock.advance(599n * SECOND);
    expect(rig.sci).toBe(false);
    rig.clock.advance(SECOND);
    expect(rig.sci).toBe(true);
    rig.cpu.outw(0x600, 1);
    expect(rig.sci).toBe(false);
    rig.clock.advance(600n * SECOND);
    expect(rig.sci).toBe(true);
    rig.cpu.outw(0x602, 0);
    expect(rig.sci).toBe(false);
  });
});
