/** The UART as Linux sees it: steps of its driver, in order. */
import { describe, expect, it } from 'vitest';
import { SerialRig as Rig } from './serial-rig.js';

/** Steps of autoconfig() in drivers/tty/serial/8250/8250_port.c, Linux 6.1; returns the port type found. */
function linuxAutoconfig(rig: Rig): string {
  const scratchIer = rig.in(1);
  rig.out(1, 0);
  if ((rig.in(1) & 0x0f) !== 0) return 'none';
  rig.out(1, 0x0f);
  if ((rig.in(1) & 0x0f) !== 0x0f) return 'none';
  rig.out(1, scratchIer);
  const mcr = rig.in(4);
  const lcr = rig.in(3);
  rig.out(4, 0x10 | 0x0a);
  const modem = rig.in(6) & 0xf0;
  rig.out(4, mcr);
  if (modem !== 0x90) return 'none';
  rig.out(3, 0xbf);
  rig.out(2, 0);
  rig.out(3, 0);
  rig.out(2, 0x01);
  const type = ['8250', 'unknown', '16550', '16550A'][rig.in(2) >> 6] ?? 'none';
  // autoconfig_16550a: EFR, 64-byte FIFO and XScale's UUE must not be found.
  rig.out(3, 0x80);
  if (rig.in(2) === 0) return 'EFR';
  rig.out(3, 0);
  rig.out(2, 0x21);
  const plain = rig.in(2) >> 5;
  rig.out(3, 0x80);
  rig.out(2, 0x21);
  const sleeping = rig.in(2) >> 5;
  rig.out(3, 0);
  rig.out(2, 0x01);
  if (plain === 6 && sleeping === 7) return '16750';
  const ier = rig.in(1);
  rig.out(1, ier & ~0x40);
  rig.out(1, ier | 0x40);
  if ((rig.in(1) & 0x40) !== 0) return 'XSCALE';
  rig.out(1, ier);
  rig.out(3, lcr);
  return type;
}

/** size_fifo() of the same file: bytes through the loop, counted until the receiver is empty. */
function linuxFifoSize(rig: Rig): number {
  rig.out(2, 0x07);
  const mcr = rig.in(4);
  rig.out(4, 0x10);
  for (let byte = 0; byte < 256; byte++) rig.out(0, byte);
  let count = 0;
  while ((rig.in(5) & 1) !== 0 && count < 256) {
    expect(rig.in(0)).toBe(count);
    count++;
  }
  rig.out(4, mcr);
  return count;
}

/** serial8250_interrupt(): reads until the IIR says that nothing is pending. */
function linuxInterrupt(rig: Rig, received: number[], transmit: () => number | undefined): number {
  let passes = 0;
  for (;;) {
    const iir = rig.in(2);
    if ((iir & 1) !== 0) return passes;
    if (++passes > 512) throw new Error('PASS_LIMIT');
    let lsr = rig.in(5);
    for (let count = 0; count < 256 && (lsr & 1) !== 0; count++) {
      received.push(rig.in(0));
      lsr = rig.in(5);
    }
    rig.in(6);
    if ((lsr & 0x20) !== 0 && (rig.in(1) & 2) !== 0) {
      for (let count = 0; count < 16; count++) {
        const byte = transmit();
        if (byte === undefined) {
          rig.out(1, 0x05);
          break;
        }
        rig.out(0, byte);
      }
    }
  }
}

describe('Serial16550, as Linux sees it', () => {
  it('is found to be a 16550A with a FIFO of 16', () => {
    const rig = new Rig();
    expect(linuxAutoconfig(rig)).toBe('16550A');
    expect(linuxFifoSize(rig)).toBe(16);
    expect(rig.output).toEqual([]);
  });

  it('passes the THRE test and the TXEN test of serial8250_do_startup', () => {
    const rig = new Rig();
    expect(rig.in(5) & 0x60).toBe(0x60);
    rig.out(1, 2);
    expect(rig.in(2) & 0x0f).toBe(2);
    rig.out(1, 0);
    rig.out(1, 2);
    expect(rig.in(2) & 0x0f).toBe(2);
    expect(rig.in(2) & 0x0f).toBe(1);
    rig.out(1, 0);
  });

  it('writes a console line without JavaScript for a byte', () => {
    const rig = new Rig().open();
    const before = rig.cpu.scriptExits;
    const ier = rig.in(1);
    rig.out(1, 0);
    for (const byte of Buffer.from('Linux version 6.1.0\n')) {
      while ((rig.in(5) & 0x60) !== 0x60);
      rig.out(0, byte);
    }
    rig.out(1, ier);
    expect(rig.cpu.scriptExits - before).toBe(2);
    rig.endTurn();
    expect(rig.text).toBe('Linux version 6.1.0\n');
    expect(rig.outputPieces).toBe(1);
  });

  it('sends a tty buffer by THRE interrupts with one trip to JavaScript for 16 bytes', () => {
    const rig = new Rig().open();
    const data = [...Buffer.from('x'.repeat(4096))];
    rig.out(1, 0x07);
    expect(rig.line).toBe(true);
    const before = rig.cpu.scriptExits;
    linuxInterrupt(rig, [], () => data.shift());
    rig.endTurn();
    expect(rig.output).toHaveLength(4096);
    expect(rig.line).toBe(false);
    expect((rig.cpu.scriptExits - before) / 256).toBeLessThan(1.05);
    expect(rig.edges).toBe(1);
  });

  it('raises a new edge when the posted bytes are sent after the handler has gone', () => {
    const rig = new Rig().open();
    rig.out(1, 0x07);
    expect(rig.in(2) & 0x0f).toBe(2);
    expect(rig.line).toBe(false);
    for (let count = 0; count < 16; count++) rig.out(0, 0x2e);
    expect(rig.line).toBe(false);
    rig.endTurn();
    expect(rig.line).toBe(true);
    expect(rig.edges).toBe(2);
  });

  it('gives input with two trips to JavaScript for 512 bytes', () => {
    const rig = new Rig().open();
    const sent = Uint8Array.from({ length: 512 }, (_, index) => index * 7);
    rig.uart.receive(sent);
    const before = rig.cpu.scriptExits;
    const received: number[] = [];
    linuxInterrupt(rig, received, () => undefined);
    expect(received).toEqual([...sent]);
    expect(rig.cpu.scriptExits - before).toBe(2);
    expect(rig.uart.inspect()).toMatchObject({ receivedBytes: 512, fifoBytes: 0, interrupt: false });
  });

  it('gives up to 16 bytes to a clearing of the FIFO, and none to a divisor that is set in the middle', () => {
    const rig = new Rig().open();
    rig.uart.receive(Uint8Array.from({ length: 40 }, (_, index) => index));
    expect(rig.in(0)).toBe(0);
    rig.out(3, 0x93);
    expect(rig.in(0)).toBe(0x0c); // the divisor, not a byte that waits
    rig.out(3, 0x13);
    expect(rig.in(0)).toBe(1);
    rig.out(2, 0x83);
    expect(rig.in(0)).toBe(18);
    const received: number[] = [];
    linuxInterrupt(rig, received, () => undefined);
    expect(received).toEqual(Array.from({ length: 21 }, (_, index) => index + 19));
    rig.uart.reset();
    expect(rig.in(0)).toBe(0);
  });

  it('takes 1 MB unharmed, pausing after each burst for a part of the time that the guest took', () => {
    const rig = new Rig({ highWaterBytes: 1024 }).open();
    const sent = Uint8Array.from({ length: 1 << 20 }, (_, index) => (index * 31) ^ (index >> 8));
    let drains = 0;
    rig.uart.onDrain = () => drains++;
    expect(rig.uart.receive(sent)).toBe(false);
    const received: number[] = [];
    let longest = 0;
    while (received.length < sent.length) {
      expect(rig.line).toBe(true);
      const before = received.length;
      linuxInterrupt(rig, received, () => undefined);
      longest = Math.max(longest, received.length - before);
      rig.clock.advance(50_000_000n);
    }
    expect(longest).toBe(1024);
    expect(Buffer.compare(Buffer.from(received), sent)).toBe(0);
    expect(drains).toBe(1);
    expect(rig.uart.pendingInputBytes).toBe(0);
  });

  it('holds input back while the port is closed, so that opening it loses none', () => {
    const rig = new Rig();
    rig.uart.receive(Buffer.from('hello'));
    rig.out(2, 0x81);
    rig.out(2, 0x87);
    rig.in(5);
    rig.in(0);
    rig.in(2);
    rig.in(6);
    rig.open();
    const received: number[] = [];
    linuxInterrupt(rig, received, () => undefined);
    expect(Buffer.from(received).toString()).toBe('hello');
  });

  it('gives input to a guest that polls without interrupts', () => {
    const rig = new Rig();
    rig.uart.receive(Buffer.from('hi'));
    let polls = 0;
    while ((rig.in(5) & 1) === 0) expect(++polls).toBeLessThan(32);
    expect(rig.in(0)).toBe(0x68);
    expect(rig.in(5) & 1).toBe(1);
    expect(rig.in(0)).toBe(0x69);
    expect(rig.in(5) & 1).toBe(0);
    rig.uart.receive(Buffer.from('!'));
    expect(rig.in(5) & 1).toBe(1);
  });

  it('gives a polling guest no pauses', () => {
    const rig = new Rig();
    rig.uart.receive(new Uint8Array(5000).fill(0x55));
    for (let polls = 0; polls < 20; polls++) rig.in(5);
    let count = 0;
    while ((rig.in(5) & 1) !== 0) {
      expect(rig.in(0)).toBe(0x55);
      count++;
    }
    expect(count).toBe(5000);
  });

  it('stops input while RTS is off (crtscts)', () => {
    const rig = new Rig().open();
    rig.out(4, 0x09);
    rig.uart.receive(Buffer.from('abc'));
    expect(rig.in(5) & 1).toBe(0);
    rig.out(4, 0x0b);
    expect(rig.in(5) & 1).toBe(1);
    expect(rig.line).toBe(true);
  });
});
