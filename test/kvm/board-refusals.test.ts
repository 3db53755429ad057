/** What a board does not take: states of another host, another machine, another version; and what it takes with a mask. */
import { describe, expect, it } from 'vitest';
import type { SavedPart } from '../../lib/base/saved-state.js';
import { Irqchip } from '../../lib/abi/kvm.js';
import { BoardRig } from '../lib/board-rig.js';
import { until } from '../lib/machine.js';

const COUNTER = 0x20000;
const COM1 = 0x3f8;

interface CpuData {
  cpuid: { function: number; index: number; ebx: number }[];
  msrs: { index: number; value: bigint }[];
}
type BoardData = Record<string, SavedPart> & { cpus: SavedPart[] };

async function saved(): Promise<{ source: BoardRig; part: SavedPart; data: BoardData; cpu: CpuData }> {
  const source = await BoardRig.make({ guest: 'count', defines: { COUNTER } });
  source.run();
  await until(() => source.u64(COUNTER) > 1000n);
  await source.pause();
  const part = structuredClone(source.save());
  const data = part.data as BoardData;
  return { source, part, data, cpu: data.cpus[0]!.data as CpuData };
}

const refused = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

describe('a board refuses', () => {
  it('by name what this host lacks, and goes on without it when that is masked', async () => {
    const { source, part, cpu } = await saved();
    // SGX, which no machine is given.
    cpu.cpuid.find((row) => row.function === 7 && row.index === 0)!.ebx |= 1 << 2;
    await expect(source.clone(part)).rejects.toEqual(refused('ERR_SNAPSHOT_HOST', /lacks .*SGX/));
    const target = await source.clone(part, 'freeze', true);
    const at = target.u64(COUNTER);
    target.run();
    await until(() => target.u64(COUNTER) > at + 1000n);
  });

  it('an MSR that this KVM does not take, by its index', async () => {
    const { source, part, cpu } = await saved();
    cpu.msrs.push({ index: 0x1234_5678, value: 1n });
    await expect(source.clone(part)).rejects.toEqual(refused('ERR_SNAPSHOT_HOST', /MSR 0x12345678/));
    const target = await source.clone(part, 'freeze', true);
    expect(target.restored!.notes.join()).toMatch(/MSR 0x12345678/);
  });

  it('another vendor’s CPU, masked or not', async () => {
    const { source, part, cpu } = await saved();
    cpu.cpuid.find((row) => row.function === 0)!.ebx ^= 1;
    for (const mask of [false, true]) {
      await expect(source.clone(part, 'freeze', mask)).rejects.toEqual(refused('ERR_SNAPSHOT_HOST', /this host's by/));
    }
  });

  it('a machine of another shape, a part of another version, and what is no state', async () => {
    const { source, part, data } = await saved();
    const change = (name: string, value: unknown): SavedPart => ({ ...part, data: { ...data, [name]: value } });
    const two = [data.cpus[0], data.cpus[0]];
    await expect(source.clone(change('cpus', two))).rejects.toEqual(refused('ERR_SNAPSHOT', /2 CPUs, the machine 1/));
    for (const name of ['clock', 'vm', 'chipset', 'time']) {
      const newer = { ...data[name]!, version: 9 };
      await expect(source.clone(change(name, newer)), name).rejects.toEqual(
        refused('ERR_SNAPSHOT_VERSION', /version 9/),
      );
      const empty = { ...data[name]!, data: {} };
      await expect(source.clone(change(name, empty)), name).rejects.toEqual(refused('ERR_SNAPSHOT', /wrong/));
    }
    await expect(source.clone(change('pci', data['vm']))).rejects.toEqual(refused('ERR_SNAPSHOT', /no PCI bus/));
  });
});

describe('a board is not saved', () => {
  it('while a CPU runs', async () => {
    const { source } = await saved();
    source.run();
    expect(() => source.save()).toThrow(refused('ERR_STATE', /vCPU 0 is running/));
    await source.pause();
    expect(() => source.save()).not.toThrow();
  });
});

describe('a line that stands high', () => {
  it('stands high in the new controllers, is seen once, and falls with what raised it', async () => {
    const { source } = await saved();
    const { ports, chipset, vm } = source.board;
    // As a guest opens its port: FIFOs, DTR, RTS and OUT2, the receiver's interrupt.
    for (const [register, value] of [
      [2, 0x81],
      [4, 0x0b],
      [1, 0x01],
    ] as const) {
      await ports.write(COM1 + register, 1, value);
    }
    chipset.consoleInput(Uint8Array.of(0x41));
    const target = await source.clone(source.save());
    const state = (board: BoardRig['board']) =>
      [Irqchip.PIC_MASTER, Irqchip.PIC_SLAVE, Irqchip.IOAPIC].map((id) => board.vm.getIrqchip(id));
    expect(state(target.board)).toEqual(state(source.board));
    // struct kvm_pic_state: last_irr, irr.
    expect(vm.getIrqchip(Irqchip.PIC_MASTER)[1]! & 0x10).toBe(0x10);
    for (const { board } of [source, target]) {
      const data = new Uint8Array(1);
      await board.ports.access(COM1, 1, 1, false, data);
      expect(data[0]).toBe(0x41);
      expect(board.vm.getIrqchip(Irqchip.PIC_MASTER)[0]! & 0x10).toBe(0);
    }
    expect(state(target.board)).toEqual(state(source.board));
  });
});
