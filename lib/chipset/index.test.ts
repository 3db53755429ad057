import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { silentLogger } from '../base/logger.js';
import { GiB, MiB } from '../base/units.js';
import { AddressBus } from '../bus/address-bus.js';
import { FakeVcpu } from '../bus/fake-vcpu.js';
import { FakeGuestMemory } from '../memory/fake.js';
import { PcChipset } from './index.js';

function rig(options: { debugExit?: boolean; timer2?: boolean } = {}) {
  const clock = new ManualClock({ wallMs: Date.UTC(2026, 0, 1) });
  const cpu = new FakeVcpu();
  const ports = new AddressBus({ space: 'port', clock, logger: silentLogger });
  const events: string[] = [];
  const lines = new Map<number, boolean>();
  const chipset = new PcChipset({
    ports,
    clock,
    logger: silentLogger,
    irqLine: (gsi) => ({ set: (high) => void lines.set(gsi, high) }),
    fast: cpu,
    memory: new FakeGuestMemory([
      { gpa: 0, sizeBytes: 3 * GiB },
      { gpa: 4 * GiB, sizeBytes: 64 * MiB },
    ]),
    debugExit: options.debugExit ?? true,
    ...(options.timer2 === true ? { timer2: { setGate: () => undefined, output: () => true } } : {}),
    listener: {
      onPowerOff: () => events.push('poweroff'),
      onReset: () => events.push('reset'),
      onPanic: (kind) => events.push(kind),
      onDebugExit: (code) => events.push(`exit ${code}`),
      onConsoleOutput: (bytes) => events.push(Buffer.from(bytes).toString()),
    },
  });
  cpu.attach(ports);
  return { clock, cpu, ports, events, lines, chipset };
}

describe('PcChipset', () => {
  it('has every device at its port', () => {
    const { cpu } = rig({ timer2: true });
    expect(cpu.inb(0x3f8 + 5)).toBe(0x60);
    expect(cpu.inb(0x2f8 + 5)).toBe(0x60);
    expect(cpu.inb(0x3e8 + 5)).toBe(0xff);
    expect(cpu.inb(0x64)).toBe(0x14);
    expect(cpu.inb(0x61) & 0x20).toBe(0x20);
    cpu.outb(0x70, 0x5b);
    expect(cpu.inb(0x71)).toBe(0);
    cpu.outb(0x70, 0x5c);
    expect(cpu.inb(0x71)).toBe(4);
    expect(cpu.inw(0x604)).toBe(1);
    expect(cpu.inl(0x620)).toBe(0);
    expect(cpu.inb(0x505)).toBe(3);
    expect(cpu.inl(0x5a0)).toBe(0x56495643);
  });

  it('drops writes to the delay ports without leaving the run loop', () => {
    const { cpu } = rig();
    cpu.outb(0x80, 1);
    cpu.outb(0xed, 1);
    expect(cpu.scriptExits).toBe(0);
  });

  it('lets the clock be read with one trip to JavaScript for a byte', () => {
    const { cpu } = rig();
    cpu.outb(0x70, 0x0d);
    expect(cpu.inb(0x71)).toBe(0x80);
    cpu.outb(0x70, 0x09);
    expect(cpu.inb(0x71)).toBe(0x26);
    expect(cpu.scriptExits).toBe(2);
  });

  it('reports what a guest does, after everything that it wrote before', () => {
    const { cpu, events } = rig();
    for (const [port, value] of [
      [0x605, 0x34],
      [0x64, 0xfe],
      [0xcf9, 0x06],
      [0x505, 1],
      [0xf4, 42],
    ] as const) {
      cpu.outb(0x3f8, 0x2e);
      cpu.outb(port, value);
    }
    expect(events).toEqual(['.', 'poweroff', '.', 'reset', '.', 'reset', '.', 'panicked', '.', 'exit 42']);
  });

  it('does not take a PCI configuration address for a reset', () => {
    const { cpu, events } = rig();
    cpu.outl(0xcf8, 0x8000_0604);
    expect(events).toEqual([]);
  });

  it('has the debug exit only when asked', () => {
    const { cpu, events } = rig({ debugExit: false });
    cpu.outb(0xf4, 1);
    expect(events).toEqual([]);
    expect(cpu.inb(0xf4)).toBe(0xff);
  });

  it('wires interrupts: console input to 4, the channel to 3, the power button to 9, the clock to 8', () => {
    const { cpu, lines, chipset, clock } = rig();
    for (const base of [0x3f8, 0x2f8]) {
      cpu.outb(base + 4, 0x0b);
      cpu.outb(base + 1, 1);
    }
    expect(chipset.consoleInput(Buffer.from('x'))).toBe(true);
    expect(lines.get(4)).toBe(true);
    expect(cpu.inl(0x5a8)).toBe(0);
    chipset.channel.send(Uint8Array.of(1));
    expect(lines.get(3)).toBe(true);
    expect(cpu.inb(0x2f8)).toBe(0x07);
    cpu.outw(0x602, 0x100);
    chipset.powerButton();
    expect(lines.get(9)).toBe(true);
    cpu.outb(0x70, 0x0b);
    cpu.outb(0x71, 0x12);
    clock.advance(1_000_000_000n);
    expect(lines.get(8)).toBe(true);
    chipset.reset();
    expect([...lines.values()].some((high) => high)).toBe(false);
  });

  it('holds and releases console output', () => {
    const { cpu, events, chipset } = rig();
    chipset.holdConsole(true);
    cpu.outb(0x3f8, 0x41);
    chipset.settle();
    expect(events).toEqual([]);
    chipset.holdConsole(false);
    expect(events).toEqual(['A']);
  });

  it('touches no interrupt line once closed, and hands on the last output', () => {
    const { cpu, events, lines, chipset, clock } = rig();
    cpu.outb(0x70, 0x0b);
    cpu.outb(0x71, 0x12);
    cpu.outb(0x3f8, 0x41);
    cpu.drain();
    chipset.close();
    clock.advance(5_000_000_000n);
    chipset.powerButton();
    expect(events).toEqual(['A']);
    expect(lines.size).toBe(0);
  });

  it('describes its devices in the DSDT, and itself as JSON', () => {
    const { chipset } = rig();
    const aml = Buffer.concat(chipset.acpi.flatMap((contributor) => contributor.dsdt()));
    for (const name of ['COM1', 'COM2', 'RTC_', 'PEVT', 'QEMU0001']) expect(aml.includes(name)).toBe(true);
    // EISAID of PNP0501 and PNP0B00; no keyboard controller.
    expect(aml.includes(Buffer.from('41d00501', 'hex'))).toBe(true);
    expect(aml.includes(Buffer.from('41d00b00', 'hex'))).toBe(true);
    expect(aml.includes(Buffer.from('41d00303', 'hex'))).toBe(false);
    const tree = JSON.parse(JSON.stringify(chipset.inspect())) as Record<string, unknown>;
    expect(Object.keys(tree)).toEqual(
      expect.arrayContaining(['com1', 'com2', 'rtc', 'i8042', 'pm-timer', 'acpi-pm', 'reset-control', 'pvpanic']),
    );
  });

  it('refuses a bus that has something at one of its ports', () => {
    const { ports, cpu, clock } = rig();
    expect(
      () =>
        new PcChipset({
          ports,
          clock,
          logger: silentLogger,
          irqLine: () => ({ set: () => undefined }),
          fast: cpu,
          memory: new FakeGuestMemory(MiB),
          debugExit: false,
          listener: {
            onPowerOff: () => undefined,
            onReset: () => undefined,
            onPanic: () => undefined,
            onDebugExit: () => undefined,
            onConsoleOutput: () => undefined,
          },
        }),
    ).toThrow(RangeError);
  });
});
