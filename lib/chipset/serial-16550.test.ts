/** The UART's registers. Linux's driver on it: serial-16550.linux.test.ts. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SerialRig as Rig } from './serial-rig.js';

describe('Serial16550, registers', () => {
  it('shows DR and raises the line the moment input arrives', () => {
    const rig = new Rig().open();
    rig.uart.receive(Uint8Array.of(0x41));
    expect(rig.in(5)).toBe(0x61);
    expect(rig.line).toBe(true);
    expect(rig.in(2)).toBe(0xcc);
    expect(rig.in(0)).toBe(0x41);
    expect(rig.in(5)).toBe(0x60);
    expect(rig.line).toBe(false);
  });

  it('tells the trigger level from the timeout', () => {
    const rig = new Rig().open();
    rig.uart.receive(new Uint8Array(7));
    expect(rig.in(2)).toBe(0xcc);
    rig.uart.receive(new Uint8Array(1));
    expect(rig.in(2)).toBe(0xc4);
    rig.out(2, 0xc1);
    expect(rig.in(2)).toBe(0xcc);
    rig.uart.receive(new Uint8Array(6));
    expect(rig.in(2)).toBe(0xc4);
  });

  it('has a receiver of one byte while the FIFOs are off', () => {
    const rig = new Rig();
    rig.out(4, 0x0b);
    rig.out(1, 1);
    rig.uart.receive(Uint8Array.of(1, 2));
    expect(rig.in(2)).toBe(0x04);
    expect([rig.in(0), rig.in(0), rig.in(0)]).toEqual([1, 2, 0]);
  });

  it('keeps the divisor behind DLAB and posts nothing there', () => {
    const rig = new Rig();
    rig.out(3, 0x83);
    rig.out(0, 1);
    rig.out(1, 2);
    expect([rig.in(0), rig.in(1), rig.in(3)]).toEqual([1, 2, 0x83]);
    rig.out(3, 0x03);
    expect(rig.in(1)).toBe(0);
    rig.out(0, 0x41);
    rig.endTurn();
    expect(rig.output).toEqual([0x41]);
  });

  it('reports an overrun in loop mode once', () => {
    const rig = new Rig();
    rig.out(2, 1);
    rig.out(4, 0x10);
    for (let count = 0; count < 17; count++) rig.out(0, count);
    expect(rig.in(5)).toBe(0x63);
    expect(rig.in(5)).toBe(0x61);
    rig.out(2, 0x03);
    expect(rig.in(5)).toBe(0x60);
  });

  it('loops the modem lines, latches their changes, and gates the interrupt by OUT2', () => {
    const rig = new Rig();
    expect(rig.in(6)).toBe(0xb0);
    rig.out(1, 0x08);
    rig.out(4, 0x10 | 0x04);
    expect(rig.line).toBe(false);
    expect(rig.in(6)).toBe(0x40 | 0x0b);
    expect(rig.in(6)).toBe(0x40);
    rig.out(4, 0x08);
    expect(rig.line).toBe(true);
    expect(rig.in(2)).toBe(0x00);
    expect(rig.in(6)).toBe(0xb0 | 0x0f);
    expect(rig.line).toBe(false);
    rig.uart.receive(Uint8Array.of(1));
    rig.out(1, 0x01);
    expect(rig.line).toBe(true);
    rig.out(4, 0);
    expect(rig.line).toBe(false);
  });

  it('makes the guest wait while the host can not take output, and goes on after it', () => {
    const rig = new Rig().open();
    rig.uart.pauseOutput();
    expect(rig.in(5) & 0x20).toBe(0x20);
    rig.out(0, 1);
    expect(rig.in(5) & 0x60).toBe(0);
    rig.out(1, 0x07);
    rig.endTurn();
    expect(rig.line).toBe(false);
    for (let count = 0; count < 20_000; count++) rig.out(0, 2);
    expect(rig.output).toEqual([]);
    rig.uart.resumeOutput();
    expect(rig.output).toHaveLength(16_384);
    expect(rig.uart.inspect()).toMatchObject({ lostBytes: 20_001 - 16_384, heldBytes: 0 });
    expect(rig.line).toBe(true);
    expect(rig.in(5) & 0x60).toBe(0x60);
  });

  it('hands output on when its buffer is full, before the turn ends', () => {
    const rig = new Rig();
    for (let count = 0; count < 40_000; count++) rig.out(0, count & 0xff);
    rig.endTurn();
    expect(rig.output).toHaveLength(40_000);
    expect(rig.output.every((byte, index) => byte === (index & 0xff))).toBe(true);
  });

  it('is as after power-on when reset, input kept', () => {
    const rig = new Rig().open();
    rig.out(3, 0x83);
    rig.uart.receive(Uint8Array.of(1));
    rig.uart.reset();
    expect(rig.line).toBe(false);
    expect([rig.in(1), rig.in(3), rig.in(4), rig.in(5), rig.in(6)]).toEqual([0, 0, 0, 0x60, 0xb0]);
  });

  it('takes any sequence of accesses without throwing, and publishes what a read would answer', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('out' as const), register: fc.nat(7), value: fc.nat(255) }),
      fc.record({ kind: fc.constant('in' as const), register: fc.nat(7), value: fc.constant(0) }),
      fc.record({ kind: fc.constant('receive' as const), register: fc.constant(0), value: fc.nat(40) }),
      fc.record({ kind: fc.constant('turn' as const), register: fc.constant(0), value: fc.nat(1000) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const rig = new Rig();
        for (const { kind, register, value } of steps) {
          if (kind === 'out') rig.out(register, value);
          else if (kind === 'receive') rig.uart.receive(new Uint8Array(value).fill(value));
          else if (kind === 'turn') {
            rig.endTurn();
            rig.clock.advance(BigInt(value) * 1000n);
          } else {
            rig.cpu.drain();
            const native = rig.cpu.nativeExits;
            const answer = rig.in(register);
            expect(answer).toBeGreaterThanOrEqual(0);
            expect(answer).toBeLessThanOrEqual(255);
            // A published register reads the same in the model, and reading it there changes nothing.
            if (rig.cpu.nativeExits > native) expect(rig.uart.read(register)).toBe(answer);
          }
        }
      }),
    );
  });
});
