/** Every device of the chipset, saved in one machine and restored in another whose clock has begun at another moment. */
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { silentLogger } from '../base/logger.js';
import type { SavedPart } from '../base/saved-state.js';
import { MiB } from '../base/units.js';
import { AddressBus } from '../bus/address-bus.js';
import { FakeVcpu } from '../bus/fake-vcpu.js';
import { FakeGuestMemory } from '../memory/fake.js';
import { PcChipset } from './index.js';

const DATE = Date.UTC(2026, 4, 1, 10, 20, 30);
const COM1 = 0x3f8;
const MS = 1_000_000n;

function rig(options: { startNs?: bigint; wallMs?: number; timer2?: boolean; debugExit?: boolean } = {}) {
  const clock = new ManualClock({ startNs: options.startNs ?? 0n, wallMs: options.wallMs ?? DATE });
  const cpu = new FakeVcpu();
  const ports = new AddressBus({ space: 'port', clock, logger: silentLogger });
  const events: string[] = [];
  const lines = new Map<number, boolean>();
  const edges: number[] = [];
  const chipset = new PcChipset({
    ports,
    clock,
    logger: silentLogger,
    irqLine: (gsi) => ({
      set: (high) => {
        if (high) edges.push(gsi);
        lines.set(gsi, high);
      },
    }),
    fast: cpu,
    memory: new FakeGuestMemory([{ gpa: 0, sizeBytes: 64 * MiB }]),
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
  const cmos = (register: number): number => {
    cpu.outb(0x70, register);
    cpu.drain();
    return cpu.inb(0x71);
  };
  const setCmos = (register: number, value: number): void => {
    cpu.outb(0x70, register);
    cpu.drain();
    cpu.outb(0x71, value);
  };
  return { clock, cpu, ports, events, lines, edges, chipset, cmos, setCmos };
}

type Rig = ReturnType<typeof rig>;

/** As through a file; in another process, so on another clock. */
function restored(from: Rig, options: Parameters<typeof rig>[0] = {}): Rig {
  const part = structuredClone(from.chipset.saveState());
  const to = rig({ startNs: 77_000_000_000_123n, wallMs: DATE + 3_600_000, ...options });
  to.chipset.restoreState(part);
  return to;
}

function openUart({ cpu }: Rig): void {
  cpu.outb(COM1 + 2, 0x81);
  cpu.outb(COM1 + 4, 0x0b);
  cpu.outb(COM1 + 1, 0x05);
}

describe('the saved state of a chipset', () => {
  it('is the same after it was restored', () => {
    const from = rig({ timer2: true });
    openUart(from);
    from.chipset.consoleInput(Buffer.from('hello'));
    from.chipset.powerButton();
    from.cpu.outb(0x61, 1);
    from.cpu.outb(0x64, 0x20);
    const saved = from.chipset.saveState();
    const to = restored(from, { timer2: true });
    expect(to.chipset.inspect()).toMatchObject({
      ...(from.chipset.inspect() as object),
      rtc: expect.anything(),
    });
    const again = to.chipset.saveState();
    const devices = (part: SavedPart): Record<string, SavedPart> =>
      (part.data as { devices: Record<string, SavedPart> }).devices;
    expect(devices(again)).toEqual(devices(saved));
  });

  it('keeps input that the guest has not taken, in order, and the raised line', () => {
    const from = rig();
    openUart(from);
    const text = 'x'.repeat(10) + 'y'.repeat(600);
    from.chipset.consoleInput(Buffer.from(text));
    expect(from.lines.get(4)).toBe(true);
    for (let index = 0; index < 5; index++) from.cpu.inb(COM1);
    const to = restored(from);
    expect(to.lines.get(4)).toBe(true);
    let got = '';
    while ((to.cpu.inb(COM1 + 5) & 1) !== 0) got += String.fromCharCode(to.cpu.inb(COM1));
    expect(got).toBe(text.slice(5));
    expect(to.lines.get(4)).toBe(false);
  });

  it('raises no line again that stands low, and hands output on once', () => {
    const from = rig();
    openUart(from);
    from.cpu.outb(COM1, 0x41);
    from.cpu.drain();
    from.chipset.saveState();
    expect(from.events).toEqual(['A']);
    const to = restored(from);
    expect(to.edges).toEqual([]);
    expect(to.events).toEqual([]);
  });

  it('hands on what was held back from a host that could take no more', () => {
    const from = rig();
    from.chipset.holdConsole(true);
    from.cpu.outb(COM1, 0x42);
    from.cpu.drain();
    const to = restored(from);
    expect(from.events).toEqual([]);
    expect(to.events).toEqual(['B']);
  });

  it('lets the date go on where it was, and moves it by the time that has passed', () => {
    const from = rig();
    from.setCmos(0x32, 0x19);
    from.clock.advance(5_000n * MS);
    const to = restored(from);
    expect([0x32, 9, 8, 7, 4, 2, 0].map(to.cmos)).toEqual([0x19, 0x26, 5, 1, 0x10, 0x20, 0x35]);
    to.chipset.passTime(3_600_000n * MS);
    expect([4, 2, 0].map(to.cmos)).toEqual([0x11, 0x20, 0x35]);
  });

  it('arms the periodic interrupt for what was left of its period', () => {
    const from = rig();
    from.setCmos(0x0a, 0x2f); // 2 Hz
    from.setCmos(0x0b, 0x42);
    from.clock.advance(400n * MS);
    const to = restored(from);
    to.clock.advance(99n * MS);
    expect(to.lines.get(8)).toBeUndefined();
    to.clock.advance(2n * MS);
    expect(to.lines.get(8)).toBe(true);
    expect(to.cmos(0x0c) & 0xc0).toBe(0xc0);
  });

  it('rings an alarm that fell into the time between', () => {
    const from = rig();
    from.setCmos(1, 0x40);
    from.setCmos(3, 0x20);
    from.setCmos(5, 0x10);
    from.setCmos(0x0b, 0x22);
    const to = restored(from);
    expect(to.lines.get(8)).toBeUndefined();
    to.chipset.passTime(60_000n * MS);
    to.clock.advance(1_000n * MS);
    expect(to.lines.get(8)).toBe(true);
  });

  it('lets the PM timer go on, and its overflow interrupt when it falls due', () => {
    const from = rig();
    from.cpu.outb(0x602, 1);
    const halfRangeNs = ((1n << 31n) * 1_000_000_000n) / 3_579_545n;
    from.clock.advance(halfRangeNs - 10n * MS);
    const to = restored(from);
    expect(to.chipset.inspect()).toMatchObject({ 'pm-timer': (from.chipset.inspect() as never)['pm-timer'] });
    to.clock.advance(9n * MS);
    expect(to.lines.get(9)).toBeUndefined();
    to.clock.advance(2n * MS);
    expect(to.lines.get(9)).toBe(true);
  });

  it('is refused when a device is missing or too many, or a part is not what it says', () => {
    const part = rig({ debugExit: false }).chipset.saveState();
    expect(() => rig().chipset.restoreState(part)).toThrow(/none of debug-exit/);
    expect(() => rig({ debugExit: false }).chipset.restoreState(rig().chipset.saveState())).toThrow(/debug-exit too/);
    const { devices } = part.data as { devices: Record<string, SavedPart> };
    for (const name of Object.keys(devices)) {
      const spoilt = { ...part, data: { devices: { ...devices, [name]: { ...devices[name]!, data: { x: 1 } } } } };
      expect(() => rig({ debugExit: false }).chipset.restoreState(spoilt), name).toThrow(
        expect.objectContaining({ code: 'ERR_SNAPSHOT' }),
      );
      const newer = { ...part, data: { devices: { ...devices, [name]: { ...devices[name]!, version: 2 } } } };
      expect(() => rig({ debugExit: false }).chipset.restoreState(newer), name).toThrow(
        expect.objectContaining({ code: 'ERR_SNAPSHOT_VERSION' }),
      );
    }
  });
});
