import { describe, expect, it } from 'vitest';
import { DebugExit, DelayPort, type PanicKind, Pvpanic, ResetControl } from './small-devices.js';
import { SystemControlB } from './system-control-b.js';

describe('ResetControl', () => {
  it('resets when RST_CPU is set, and keeps the other bits', () => {
    let resets = 0;
    const device = new ResetControl(() => resets++);
    device.write(0, 1, 0x02);
    expect(resets).toBe(0);
    device.write(0, 1, 0x06);
    expect(resets).toBe(1);
    expect(device.read()).toBe(0x02);
    device.reset();
    expect(device.inspect()).toEqual({ value: 0 });
  });
});

describe('Pvpanic', () => {
  it('names the events it knows and tells them apart', () => {
    const kinds: PanicKind[] = [];
    const device = new Pvpanic((kind) => kinds.push(kind));
    expect(device.read()).toBe(3);
    device.write(0, 1, 1);
    device.write(0, 1, 2);
    device.write(0, 1, 0xf0);
    expect(kinds).toEqual(['panicked', 'crash-loaded']);
    expect(device.inspect()).toEqual({ panics: 2 });
  });
});

describe('DebugExit', () => {
  it('hands on the byte', () => {
    const codes: number[] = [];
    const device = new DebugExit((code) => codes.push(code));
    device.write(0, 1, 7);
    device.write(0, 1, 255);
    expect(codes).toEqual([7, 255]);
    expect(device.read()).toBe(0);
  });
});

describe('DelayPort', () => {
  it('keeps the last byte', () => {
    const device = new DelayPort('post-code');
    device.write(0, 1, 0x55);
    expect(device.read()).toBe(0x55);
    device.reset();
    expect(device.read()).toBe(0);
  });
});

describe('SystemControlB', () => {
  it('gates channel 2, shows its output and toggles the refresh bit', () => {
    const gates: boolean[] = [];
    let output = false;
    const device = new SystemControlB({ setGate: (high) => gates.push(high), output: () => output });
    device.write(0, 1, 0xfd);
    device.write(0, 1, 0xff);
    expect(gates).toEqual([true]);
    expect(device.read()).toBe(0x1f);
    output = true;
    expect(device.read()).toBe(0x2f);
    device.reset();
    expect(gates).toEqual([true, false]);
    expect(device.inspect()).toEqual({ control: 0 });
  });
});
