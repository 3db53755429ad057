import { describe, expect, it } from 'vitest';
import { ConfigSpace } from './config-space.js';
import { Msix } from './msix.js';

function rig(count = 3) {
  const config = new ConfigSpace({
    vendorId: 1,
    deviceId: 2,
    revision: 0,
    classCode: 0,
    subsystemVendorId: 0,
    subsystemId: 0,
  });
  const log: string[] = [];
  const vectors = Array.from({ length: count }, (_, vector) => ({
    configure: ({ address, data }: { address: bigint; data: number }) =>
      void log.push(`configure ${vector} ${address.toString(16)} ${data}`),
    signal: () => void log.push(`signal ${vector}`),
    close: () => void log.push(`close ${vector}`),
  }));
  const msix = new Msix(config, { name: 'msix', bar: 1, vectors });
  const capability = config.get(0x34, 1);
  return {
    config,
    msix,
    log,
    control: (value: number) => config.write(capability + 2, 2, value),
    capability,
    entry(vector: number, data: number, masked: boolean) {
      msix.write(16 * vector, 4, 0xfee0_0000);
      msix.write(16 * vector + 4, 4, 0);
      msix.write(16 * vector + 8, 4, data);
      msix.write(16 * vector + 12, 4, masked ? 1 : 0);
    },
    pending: () => msix.read(0x800, 4),
  };
}

const ENABLE = 0x8000;
const MASK_ALL = 0x4000;

describe('MSI-X', () => {
  it('says where table and pending bits are, and lets only its two bits be written', () => {
    const { config, capability, control } = rig();
    expect(config.get(6, 2) & 0x10).toBe(0x10);
    expect(config.read(capability, 1)).toBe(0x11);
    expect(config.read(capability + 4, 4)).toBe(1);
    expect(config.read(capability + 8, 4)).toBe(0x801);
    control(0xffff);
    expect(config.read(capability + 2, 2)).toBe(0xc002);
  });

  it('is silent while it is off, and begins masked', () => {
    const { msix, log, control, pending } = rig();
    msix.signal(0);
    expect(pending()).toBe(0);
    expect(msix.read(12, 4)).toBe(1);
    control(ENABLE);
    msix.signal(1);
    expect(pending()).toBe(2);
    expect(log).toEqual([]);
  });

  it('keeps a masked vector pending and sends it once when the mask goes', () => {
    const { msix, log, control, entry, pending } = rig();
    control(ENABLE);
    entry(0, 7, true);
    msix.signal(0);
    msix.signal(0);
    expect(pending()).toBe(1);
    expect(log).toEqual([]);
    msix.write(12, 4, 0);
    expect(log).toEqual(['configure 0 fee00000 7', 'signal 0']);
    expect(pending()).toBe(0);
    msix.write(12, 4, 1);
    msix.write(12, 4, 0);
    expect(log).toHaveLength(2);
  });

  it('obeys the mask of the whole function', () => {
    const { msix, log, control, entry, pending } = rig();
    control(ENABLE | MASK_ALL);
    entry(0, 1, false);
    entry(2, 3, false);
    msix.signal(2);
    expect(log).toEqual([]);
    expect(pending()).toBe(4);
    control(ENABLE);
    expect(log).toEqual(['configure 0 fee00000 1', 'configure 2 fee00000 3', 'signal 2']);
  });

  it('tells of another message when it has changed and may be sent', () => {
    const { log, control, entry, msix } = rig();
    control(ENABLE);
    entry(1, 5, false);
    msix.write(16 + 12, 4, 1);
    msix.write(16 + 8, 4, 6);
    expect(log).toEqual(['configure 1 fee00000 5']);
    msix.write(16 + 12, 4, 0);
    expect(log.at(-1)).toBe('configure 1 fee00000 6');
  });

  it('drops accesses that are no words, beyond the table, or to pending bits', () => {
    const { msix, control, pending, log } = rig();
    control(ENABLE);
    msix.write(0, 2, 0xffff);
    msix.write(2, 4, 0xffff_ffff);
    msix.write(48, 4, 1);
    msix.write(0x800, 4, 0xff);
    expect(msix.read(0, 8)).toBe(0n);
    expect(msix.read(0xffc, 4)).toBe(0);
    expect(pending()).toBe(0);
    msix.write(0, 8, 0x1_fee0_1000n);
    expect(msix.read(4, 4)).toBe(1);
    msix.signal(3);
    expect(log).toEqual([]);
    expect(() => rig(129)).toThrow(RangeError);
  });
});
