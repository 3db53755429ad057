import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { I8042 } from './i8042.js';

class Rig {
  resets = 0;
  line = false;
  edges = 0;
  readonly device = new I8042({
    onReset: () => this.resets++,
    keyboardIrq: {
      set: (high) => {
        if (high && !this.line) this.edges++;
        this.line = high;
      },
    },
  });

  status(): number {
    return this.device.read(4);
  }

  command(command: number, ...data: number[]): void {
    this.device.write(4, 1, command);
    for (const byte of data) this.device.write(0, 1, byte);
  }

  /** i8042_wait_read() and the read: the answer must be there at once, or the driver waits half a second. */
  answer(): number {
    expect(this.status() & 1).toBe(1);
    return this.device.read(0);
  }
}

describe('I8042', () => {
  it('answers the probe of Linux at once, and has a keyboard and no auxiliary port', () => {
    const rig = new Rig();
    // i8042_controller_check and i8042_controller_selftest
    expect(rig.status() & 1).toBe(0);
    rig.command(0xaa);
    expect(rig.answer()).toBe(0x55);
    // i8042_controller_init: the command byte, twice the same; translation on; not locked
    rig.command(0x20);
    const control = rig.answer();
    rig.command(0x20);
    expect(rig.answer()).toBe(control);
    expect(control & 0x40).toBe(0x40);
    expect(rig.status() & 0x10).toBe(0x10);
    rig.command(0x60, (control | 0x10) & ~0x01);
    rig.command(0x20);
    expect(rig.answer()).toBe((control | 0x10) & ~0x01);
    // Self test and two command bytes raised IRQ 1; now its enable is off.
    expect(rig.edges).toBe(3);
    // i8042_check_aux: the loop gives the byte as the keyboard's, then the test says that nothing is there
    rig.command(0xd3, 0x5a);
    expect(rig.status() & 0x21).toBe(0x01);
    expect(rig.device.read(0)).toBe(0x5a);
    rig.command(0xa9);
    expect(rig.answer()).toBe(0x01);
  });

  it('has a keyboard that resets, names itself and takes settings', () => {
    const rig = new Rig();
    const send = (byte: number, answers: number): number[] => {
      rig.device.write(0, 1, byte);
      return Array.from({ length: answers }, () => rig.answer());
    };
    expect(send(0xff, 2)).toEqual([0xfa, 0xaa]);
    expect(send(0xf2, 3)).toEqual([0xfa, 0xab, 0x41]);
    rig.command(0x60, 0x05);
    expect(send(0xf2, 3)).toEqual([0xfa, 0xab, 0x83]);
    expect(send(0xed, 1)).toEqual([0xfa]);
    expect(send(0x07, 1)).toEqual([0xfa]);
    expect(send(0xf3, 1)).toEqual([0xfa]);
    expect(send(0x00, 1)).toEqual([0xfa]);
    expect(send(0xf0, 1)).toEqual([0xfa]);
    expect(send(0x03, 1)).toEqual([0xfa]);
    expect(send(0xf0, 1)).toEqual([0xfa]);
    expect(send(0x00, 2)).toEqual([0xfa, 0x03]);
    expect(send(0xf0, 1)).toEqual([0xfa]);
    expect(send(0x04, 1)).toEqual([0xfe]);
    expect(send(0xee, 1)).toEqual([0xee]);
    expect(send(0xf4, 1)).toEqual([0xfa]);
    expect(send(0xf5, 1)).toEqual([0xfa]);
    expect(send(0x12, 1)).toEqual([0xfe]);
    expect(rig.status() & 1).toBe(0);
  });

  it('raises IRQ 1 with an edge for each byte, while it is enabled', () => {
    const rig = new Rig();
    rig.device.write(0, 1, 0xf2);
    expect(rig.line).toBe(true);
    expect(rig.edges).toBe(1);
    rig.device.read(0);
    expect(rig.edges).toBe(2);
    rig.device.read(0);
    rig.device.read(0);
    expect(rig.edges).toBe(3);
    expect(rig.line).toBe(false);
    rig.command(0x60, 0x44);
    rig.device.write(0, 1, 0xee);
    expect(rig.line).toBe(false);
  });

  it('resets by the pulse and by the output port', () => {
    const rig = new Rig();
    rig.command(0xfe);
    expect(rig.resets).toBe(1);
    rig.command(0xff);
    expect(rig.resets).toBe(1);
    rig.command(0xd1, 0xfe);
    expect(rig.resets).toBe(2);
    rig.command(0xd1, 0xdf);
    expect(rig.resets).toBe(2);
    rig.command(0xd0);
    expect(rig.answer()).toBe(0xdf);
    rig.command(0xdd);
    rig.command(0xd0);
    expect(rig.answer() & 2).toBe(0);
  });

  it('times out what is sent to the auxiliary port', () => {
    const rig = new Rig();
    rig.command(0xd4, 0xf2);
    expect(rig.status() & 0x61).toBe(0x61);
    expect(rig.line).toBe(false);
    expect(rig.device.read(0)).toBe(0xfe);
  });

  it('takes any sequence of accesses without throwing, in bounded memory', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(3), fc.nat(255)), { maxLength: 200 }), (steps) => {
        const rig = new Rig();
        for (const [kind, byte] of steps) {
          if (kind < 2) rig.device.write(kind * 4, 1, byte);
          else expect(rig.device.read((kind - 2) * 4)).toBeLessThanOrEqual(255);
        }
        const { waitingBytes } = rig.device.inspect() as { waitingBytes: number };
        expect(waitingBytes).toBeLessThanOrEqual(16);
        rig.device.reset();
        expect(rig.status()).toBe(0x14);
      }),
    );
  });
});
