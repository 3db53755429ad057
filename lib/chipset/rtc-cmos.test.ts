import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { GiB, MiB } from '../base/units.js';
import { noFastRegisters } from '../bus/device.js';
import { newRtcBattery, RtcCmos } from './rtc-cmos.js';

const NOON = Date.UTC(2026, 6, 4, 12, 34, 56);
const SECOND = 1_000_000_000n;

class Rig {
  readonly clock: ManualClock;
  line = false;
  edges = 0;
  readonly rtc: RtcCmos;

  constructor(wallMs = NOON, memory = { belowFourGiBBytes: 256 * MiB, aboveFourGiBBytes: 0 }) {
    this.clock = new ManualClock({ wallMs });
    this.rtc = new RtcCmos({
      clock: this.clock,
      fast: noFastRegisters,
      memory,
      irq: {
        set: (high) => {
          if (high && !this.line) this.edges++;
          this.line = high;
        },
      },
    });
  }

  get(register: number): number {
    this.rtc.write(0, 1, register);
    return this.rtc.read(1);
  }

  put(register: number, value: number): void {
    this.rtc.write(0, 1, register | 0x80);
    this.rtc.write(1, 1, value);
  }

  /** mc146818_get_time() of Linux: waits for UIP to go, reads, and reads again when an update came between. */
  linuxTime(): number[] {
    for (let attempt = 0; attempt < 10; attempt++) {
      const seconds = this.get(0);
      if ((this.get(0x0a) & 0x80) !== 0) {
        this.clock.advance(1_000_000n);
        continue;
      }
      const rest = [this.get(2), this.get(4), this.get(7), this.get(8), this.get(9), this.get(0x32)];
      if ((this.get(0x0a) & 0x80) !== 0 || this.get(0) !== seconds) continue;
      return [seconds, ...rest];
    }
    throw new Error('UIP stuck');
  }

  /** mc146818_set_time(): SET, divider reset, the date, and both back. */
  linuxSetTime(bytes: readonly number[]): void {
    const control = this.get(0x0b);
    this.put(0x0b, control | 0x80);
    const select = this.get(0x0a) & 0x7f;
    this.put(0x0a, select | 0x70);
    [9, 8, 7, 4, 2, 0, 0x32].forEach((register, index) => this.put(register, bytes[index]!));
    this.put(0x0b, control);
    this.put(0x0a, select);
  }
}

describe('RtcCmos: the date', () => {
  it("is the host's, in UTC, BCD and 24 hours, with the century", () => {
    const rig = new Rig();
    expect(rig.linuxTime()).toEqual([0x56, 0x34, 0x12, 0x04, 0x07, 0x26, 0x20]);
    expect(rig.get(6)).toBe(7);
    rig.clock.advance(4n * SECOND);
    expect(rig.linuxTime()).toEqual([0x00, 0x35, 0x12, 0x04, 0x07, 0x26, 0x20]);
    expect(rig.get(0x0d)).toBe(0x80);
    expect(rig.rtc.read(0)).toBe(0xff);
  });

  it.each([
    ['binary, 24 hours', 0x06, [23, 13, 0, 12]],
    ['BCD, 24 hours', 0x02, [0x23, 0x13, 0x00, 0x12]],
    ['binary, 12 hours', 0x04, [0x8b, 0x81, 0x0c, 0x8c]],
    ['BCD, 12 hours', 0x00, [0x91, 0x81, 0x12, 0x92]],
  ])('shows and takes hours in %s', (_mode, b, bytes) => {
    [23, 13, 0, 12].forEach((hour, index) => {
      const rig = new Rig(Date.UTC(2026, 0, 1, hour));
      rig.put(0x0b, b);
      expect(rig.get(4)).toBe(bytes[index]);
      const other = new Rig(Date.UTC(2026, 0, 1, 5));
      other.put(0x0b, b);
      other.put(4, bytes[index]!);
      expect(other.rtc.inspect()).toMatchObject({ date: new Date(Date.UTC(2026, 0, 1, hour)).toISOString() });
    });
  });

  it('shows the update coming', () => {
    const rig = new Rig(NOON + 998);
    expect(rig.get(0x0a)).toBe(0x26);
    rig.clock.advance(1_000_000n);
    expect(rig.get(0x0a)).toBe(0xa6);
    expect(rig.linuxTime()[0]).toBe(0x57);
  });

  it('is set as Linux sets it, and counts on from half a second before the next', () => {
    const rig = new Rig();
    rig.linuxSetTime([0x31, 0x12, 0x31, 0x23, 0x59, 0x59, 0x19]);
    expect(rig.linuxTime()).toEqual([0x59, 0x59, 0x23, 0x31, 0x12, 0x31, 0x19]);
    rig.clock.advance(SECOND / 2n);
    expect(rig.linuxTime()).toEqual([0x00, 0x00, 0x00, 0x01, 0x01, 0x32, 0x19]);
  });

  it('stands while SET is on, and goes on where nothing was written', () => {
    const rig = new Rig();
    rig.put(0x0b, 0x82);
    rig.clock.advance(10n * SECOND);
    expect(rig.get(0)).toBe(0x56);
    rig.put(0x0b, 0x02);
    expect(rig.get(0)).toBe(0x56);
    rig.clock.advance(SECOND);
    expect(rig.get(0)).toBe(0x57);
  });
});

describe('RtcCmos: interrupts', () => {
  it('raises the update interrupt each second until it is read', () => {
    const rig = new Rig(NOON + 400);
    rig.put(0x0b, 0x12);
    rig.clock.advance(599_000_000n);
    expect(rig.line).toBe(false);
    rig.clock.advance(1_000_000n);
    expect(rig.line).toBe(true);
    rig.clock.advance(5n * SECOND);
    expect(rig.edges).toBe(1);
    expect(rig.get(0x0c) & 0x90).toBe(0x90);
    expect(rig.get(0x0c)).toBe(0);
    expect(rig.line).toBe(false);
    rig.clock.advance(SECOND);
    expect(rig.edges).toBe(2);
  });

  it('raises the alarm at its time, and only then', () => {
    const rig = new Rig();
    rig.put(1, 0x10);
    rig.put(3, 0x35);
    rig.put(5, 0x12);
    rig.put(0x0b, 0x22);
    rig.clock.advance(13n * SECOND);
    expect(rig.line).toBe(false);
    rig.clock.advance(SECOND);
    expect(rig.line).toBe(true);
    expect(rig.get(0x0c) & 0xa0).toBe(0xa0);
    rig.clock.advance(86_399n * SECOND);
    expect(rig.edges).toBe(1);
    rig.clock.advance(SECOND);
    expect(rig.edges).toBe(2);
  });

  it('takes "any" and impossible alarms', () => {
    const rig = new Rig();
    rig.put(1, 0xc0);
    rig.put(3, 0xff);
    rig.put(5, 0xc0);
    rig.put(0x0b, 0x22);
    rig.clock.advance(SECOND);
    expect(rig.line).toBe(true);
    rig.get(0x0c);
    rig.put(5, 0x77);
    rig.clock.advance(200_000n * SECOND);
    expect(rig.edges).toBe(1);
  });

  it('raises the periodic interrupt at its rate, once for what was missed', () => {
    const rig = new Rig();
    rig.put(0x0a, 0x2f);
    rig.put(0x0b, 0x42);
    for (let count = 0; count < 4; count++) {
      expect(rig.line).toBe(false);
      rig.clock.advance(SECOND / 2n);
      expect(rig.get(0x0c)).toBe(count % 2 === 0 ? 0xc0 : 0xd0);
    }
    rig.clock.advance(60n * SECOND);
    expect(rig.edges).toBe(5);
    rig.put(0x0a, 0x20);
    rig.get(0x0c);
    rig.clock.advance(60n * SECOND);
    expect(rig.edges).toBe(5);
  });

  it('shows flags to those who poll without interrupts', () => {
    const rig = new Rig();
    rig.get(0x0c);
    expect(rig.get(0x0c)).toBe(0);
    rig.clock.advance(SECOND);
    expect(rig.get(0x0c)).toBe(0x50);
    expect(rig.line).toBe(false);
  });
});

describe('RtcCmos: memory', () => {
  it('holds the sizes of memory as firmware leaves them', () => {
    const rig = new Rig(NOON, { belowFourGiBBytes: 3 * GiB, aboveFourGiBBytes: 2 * GiB });
    const word = (at: number): number => rig.get(at) | (rig.get(at + 1) << 8);
    expect(word(0x15)).toBe(640);
    expect(word(0x17)).toBe(0xffff);
    expect(word(0x30)).toBe(0xffff);
    expect(word(0x34)).toBe((3 * GiB - 16 * MiB) / 65_536);
    expect(word(0x5b) | (rig.get(0x5d) << 16)).toBe((2 * GiB) / 65_536);
    let sum = 0;
    for (let at = 0x10; at < 0x2e; at++) sum += rig.get(at);
    expect((rig.get(0x2e) << 8) | rig.get(0x2f)).toBe(sum);
    const small = new Rig(NOON, { belowFourGiBBytes: MiB, aboveFourGiBBytes: 0 });
    expect(small.get(0x17) | small.get(0x18) | small.get(0x34) | small.get(0x35)).toBe(0);
  });

  it('keeps memory and date over a reset and in the battery it was given, sizes as firmware writes them', () => {
    const battery = newRtcBattery();
    const memory = { belowFourGiBBytes: 256 * MiB, aboveFourGiBBytes: 0 };
    const make = (): RtcCmos =>
      new RtcCmos({
        clock: new ManualClock({ wallMs: NOON }),
        fast: noFastRegisters,
        memory,
        irq: { set: () => undefined },
        battery,
      });
    const first = make();
    for (const register of [0x50, 0x15, 0x0b]) {
      first.write(0, 1, register);
      first.write(1, 1, 0x7a);
    }
    for (const rtc of [first, make()]) {
      rtc.reset();
      const values = [0x50, 0x15, 0x0b].map((register) => (rtc.write(0, 1, register), rtc.read(1)));
      expect(values).toEqual([0x7a, 0x80, 0x02]);
    }
    // The guest writes another year; the next power cycle has it still.
    first.write(0, 1, 0x09);
    first.write(1, 1, 0x42);
    const later = make();
    later.write(0, 1, 0x09);
    expect(later.read(1)).toBe(0x42);
  });

  it('keeps what is written to it, but not to the status registers', () => {
    const rig = new Rig();
    rig.put(0x7f, 0x5a);
    expect(rig.get(0x7f)).toBe(0x5a);
    rig.put(0x0d, 0);
    rig.put(0x0c, 0xff);
    expect(rig.get(0x0d)).toBe(0x80);
    expect(rig.get(0x0c)).toBe(0);
  });

  it('takes any sequence of accesses without throwing, and always shows a date', () => {
    const step = fc.tuple(fc.nat(2), fc.oneof(fc.nat(0x0d), fc.nat(255)), fc.nat(255));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const rig = new Rig();
        for (const [kind, register, value] of steps) {
          if (kind === 0) rig.put(register, value);
          else if (kind === 1) expect(rig.get(register)).toBeLessThanOrEqual(255);
          else rig.clock.advance(BigInt(value) * 7_000_000n);
        }
        expect(rig.rtc.inspect()).toHaveProperty('date');
      }),
    );
  });
});
