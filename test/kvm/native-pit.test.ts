/** The opened PIT: acknowledged ticks against the guest's own count, masks, and its end. */
import { describe, expect, it } from 'vitest';
import { Irqchip } from '../../lib/abi/kvm.js';
import { loadBinding } from '../../lib/kvm/binding.js';
import { assemble } from '../lib/assemble.js';
import { ACKED, ECHO, expecting, HALT, HOST, setChannels, SPIN, TICKS, turn } from '../lib/pit-guests.js';
import { bootPit } from '../lib/pit-rig.js';

/** Rate, reload value, and how many ticks are counted. */
const RATES: readonly [string, number, number][] = [
  ['18.2 Hz', 0xffff, 8],
  ['100 Hz', 11_932, 40],
  ['250 Hz', 4773, 100],
  ['1000 Hz', 1193, 200],
  ['4000 Hz', 298, 400],
];
const THROUGH_PINS = [0, 2].flatMap((pin) => RATES.map((rate) => [pin, ...rate] as const));

describe('delivered()', () => {
  it.each(RATES)('equals what the guest counts through the PIC at %s', async (_, count, stop) => {
    const { pit, cpu, memory } = await bootPit(assemble('pit-ticks', 0x1000, { COUNT: count, STOP: stop, PIN: 255 }));
    expect(pit.delivered()).toBe(0n);
    cpu.vcpu.resume();
    expect(await cpu.nextExit()).toMatchObject({ kind: 'port', port: 0xc1 });
    // The guest is in the tick that it has just acknowledged.
    expect([memory.getUint32(TICKS, true), memory.getUint32(ACKED, true)]).toEqual([stop, stop]);
    expect(pit.delivered()).toBe(BigInt(stop));
    cpu.vcpu.complete();
  });

  it.each(THROUGH_PINS)('equals what it counts through pin %d of the IO-APIC at %s', async (pin, _, count, stop) => {
    const guest = assemble('pit-ticks', 0x1000, { COUNT: count, STOP: stop, PIN: pin });
    const { vm, pit, cpu, memory } = await bootPit(guest);
    if (pin !== 0) vm.setGsiRouting([{ gsi: 0, chip: Irqchip.IOAPIC, pin }]);
    cpu.vcpu.resume();
    expect(await cpu.nextExit()).toMatchObject({ kind: 'port', port: 0xc1 });
    expect(memory.getUint32(ACKED, true)).toBe(stop);
    expect(pit.delivered()).toBe(BigInt(stop));
    expect(pit.irq0Masked()).toBe(false);
    cpu.vcpu.complete();
  });

  it('is between the guest ticks and their acknowledgement wherever the guest is stopped', async () => {
    const guest = assemble('pit-ticks', 0x1000, { COUNT: 600, STOP: 0, PIN: 255 });
    const { pit, cpu, memory } = await bootPit(guest);
    let last = 0n;
    for (let round = 0; round < 50; round++) {
      cpu.vcpu.resume();
      while (pit.delivered() === last) await turn();
      await cpu.vcpu.park();
      last = pit.delivered();
      const [taken, acked] = [memory.getUint32(TICKS, true), memory.getUint32(ACKED, true)];
      // Two of them differ only while the guest is inside its handler.
      expect(BigInt(acked) <= last && last <= BigInt(taken)).toBe(true);
    }
  });

  it('counts each tick once while both sides read it', async () => {
    const guest = assemble('pit-ticks', 0x1000, { COUNT: 600, STOP: 300, PIN: 255 });
    const { pit, cpu } = await bootPit(guest);
    cpu.vcpu.resume();
    let stopped = false;
    const exit = cpu.nextExit().finally(() => (stopped = true));
    const deliveries: bigint[] = [];
    while (!stopped) {
      const waiting = pit.change({ expected: expecting(pit.read()), waitForTickNs: 5_000_000n });
      let settled = false;
      void waiting.finally(() => (settled = true));
      while (!settled) {
        await turn();
        deliveries.push(pit.delivered());
      }
      const { delivered } = await waiting;
      expect(delivered <= deliveries.at(-1)!).toBe(true);
    }
    await exit;
    expect(pit.delivered()).toBe(300n);
    expect(deliveries.every((value, index) => index === 0 || value >= deliveries[index - 1]!)).toBe(true);
    cpu.vcpu.complete();
  });
});

describe('the end', () => {
  it('rejects a change that waits, whatever the vCPUs do, and leaves nothing', async () => {
    const { runtime } = loadBinding().dispatcher;
    const before = runtime.counts();
    for (const code of [SPIN, HALT, ECHO]) {
      const rig = await bootPit(code, { vcpus: 2 });
      setChannels(rig, [{ count: 4773, mode: 2, write_state: 3 }]);
      for (const { vcpu } of rig.cpus) vcpu.resume();
      const expected = expecting(rig.pit.read());
      const pending = rig.pit.change({ expected, load: HOST, waitForTickNs: 3_600_000_000_000n });
      const rejected = expect(pending).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      await turn();
      await rig.close();
      await rejected;
      await expect(rig.pit.change({ expected, waitForTickNs: 0n })).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    }
    // In the middle of a hold.
    for (let round = 0; round < 10; round++) {
      const rig = await bootPit(SPIN);
      setChannels(rig, [{ count: 4773, mode: 2, write_state: 3 }]);
      rig.cpu.vcpu.resume();
      const pending = rig.pit.change({ expected: expecting(rig.pit.read()), load: HOST, waitForTickNs: 0n });
      const settled = pending.catch((error: unknown) => error);
      await rig.close();
      expect(await settled).toSatisfy(
        (value: { result?: string; code?: string }) => value.result === 'applied' || value.code === 'ERR_CLOSED',
      );
    }
    expect({ ...runtime.counts(), threads: 0 }).toEqual({ ...before, threads: 0 });
  });
});

describe('irq0Masked()', () => {
  it('asks every pin that GSI 0 leads to', async () => {
    const { vm, pit } = await bootPit(SPIN);
    const setPic = (imr: number): void => vm.setIrqchip(Irqchip.PIC_MASTER, vm.getIrqchip(0).fill(imr, 2, 3));
    const setPin = (pin: number, masked: boolean): void => {
      const state = vm.getIrqchip(Irqchip.IOAPIC);
      new DataView(state.buffer).setUint32(24 + pin * 8, masked ? 0x1_0020 : 0x20, true);
      vm.setIrqchip(Irqchip.IOAPIC, state);
    };
    setPic(0xfe);
    for (const pin of [0, 2]) setPin(pin, true);
    expect(pit.irq0Masked()).toBe(false);
    setPic(0xff);
    expect(pit.irq0Masked()).toBe(true);
    setPin(0, false);
    expect(pit.irq0Masked()).toBe(false);
    vm.setGsiRouting([
      { gsi: 0, chip: Irqchip.PIC_MASTER, pin: 0 },
      { gsi: 0, chip: Irqchip.IOAPIC, pin: 2 },
      { gsi: 1, chip: Irqchip.IOAPIC, pin: 0 },
    ]);
    expect(pit.irq0Masked()).toBe(true);
    setPin(2, false);
    expect(pit.irq0Masked()).toBe(false);
  });
});
