/**
 * The block device on a machine's PCI bus, as a driver in a flat guest finds and uses it on real KVM: configuration by
 * ports, a doorbell, interrupts by INTx and by MSI-X, bus mastering, a reset in the middle of a request.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ManualClock } from '../../lib/base/clock.js';
import type { BusDevice } from '../../lib/bus/index.js';
import type { Machine } from '../../lib/machine/index.js';
import { faultyDisk, fileDisk, type BlockSource } from '../../lib/vsp/index.js';
import { startGuest, until } from '../lib/machine.js';

const DATA = 0x60000;
const TAKEN = 0x70000;
const USED_INDEX = 0x42002;
const GATE = 0x720;
const SECTOR = 3;
const DONE = { reason: 'debug-exit', code: 0x21 };

let folder: string;
let image: string;
const content = Uint8Array.from({ length: 64 * 512 }, (_, at) => at % 251);
const wanted = content.slice(SECTOR * 512, (SECTOR + 1) * 512);

beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'vivarium-pci-'));
  image = path.join(folder, 'disk.img');
  writeFileSync(image, content);
});
afterAll(() => rmSync(folder, { recursive: true }));

interface Options {
  readonly msix?: boolean;
  readonly master?: boolean;
  readonly resets?: number;
  readonly disk?: BlockSource;
  /** What a guest waits for after each notification. */
  readonly gate?: () => Promise<number>;
}

function drive({ msix = true, master = true, resets = 0, disk = fileDisk(image), gate }: Options = {}) {
  const device: BusDevice = {
    name: 'gate',
    read: () => gate?.() ?? 0,
    write: () => undefined,
    reset: () => undefined,
    inspect: () => null,
  };
  const flags = { MSIX: Number(msix), MASTER: Number(master), GATED: Number(gate !== undefined), RESETS: resets };
  return startGuest('virtio-blk', {
    mode: 'long64',
    defines: { ...flags, SECTOR, DATA, TAKEN, GATE },
    disks: [{ id: 'disk', backend: disk }],
    portDevices: [{ firstPort: GATE, portCount: 1, device }],
  });
}

const word = (vm: Machine, gpa: number) => new DataView(vm.memory.read(gpa, 4).buffer).getUint32(0, true);

/** The function in slot 1, as inspect() shows it. */
function functionOf(vm: Machine) {
  const { pci } = vm.inspect() as unknown as {
    pci: {
      functions: {
        device: { resetting: boolean; counts: Record<string, number>; misbehaviour: Record<string, number> };
      }[];
      wiring: Record<string, number>;
    };
  };
  return { ...pci.functions[1]!.device, wiring: pci.wiring };
}

/** Requests that the disk's provider has in flight. */
function inFlight(vm: Machine): number {
  const { lent } = vm.inspect() as unknown as { lent: { devices: Record<string, { inFlight: number }> } };
  return lent.devices['disk']!.inFlight;
}

describe('a virtio block device on the PCI bus', () => {
  it.each([
    ['MSI-X', true],
    ['INTx', false],
  ])('is found, notified by a doorbell and interrupts by %s', async (_, msix) => {
    const vm = await drive({ msix });
    expect(await vm.wait()).toEqual(DONE);
    expect(vm.memory.read(DATA, 512)).toEqual(wanted);
    expect(word(vm, TAKEN)).toBe(1);
    // ISR says so only where no message does.
    expect(word(vm, TAKEN + 4)).toBe(msix ? 0 : 1);
    // The device looks by itself once it is ready, and may have seen the request before the doorbell was heard.
    await until(() => functionOf(vm).counts['notifications'] === 1);
    const { counts, misbehaviour, wiring } = functionOf(vm);
    expect(counts).toMatchObject({ activations: 1, interrupts: 1 });
    expect(misbehaviour).toEqual({});
    expect(wiring).toMatchObject({ doorbells: 1, vectors: msix ? 1 : 0, refused: 0 });
    expect(vm.device('disk').contract.functions['read']).toMatchObject({ by: 'native', calls: 1, errors: 0 });
  });

  it('touches no memory before the driver lets it be a bus master, and makes up for it then', async () => {
    let open: (value: number) => void = () => undefined;
    const asked: number[] = [];
    const vm = await drive({ master: false, gate: () => (asked.push(1), new Promise((resolve) => (open = resolve))) });
    await until(() => asked.length === 1);
    // The doorbell has long been heard when the event loop comes round again.
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(word(vm, USED_INDEX) & 0xffff).toBe(0);
    expect(vm.memory.read(DATA, 512)).toEqual(new Uint8Array(512));
    expect(vm.device('disk').contract.functions['read']!.calls).toBe(0);
    open(0);
    expect(await vm.wait()).toEqual(DONE);
    expect(vm.memory.read(DATA, 512)).toEqual(wanted);
    expect(word(vm, TAKEN)).toBe(1);
  });

  it('is reset in the middle of a request: not before the request is over, and without a trace of it', async () => {
    const clock = new ManualClock();
    const disk = faultyDisk(fileDisk(image), {
      clock,
      rules: [{ on: 'read', nth: 1, fault: { delayNs: 1000n } }],
    });
    const gates: (() => void)[] = [];
    const vm = await drive({ resets: 1, disk, gate: () => new Promise((resolve) => gates.push(() => resolve(0))) });
    await until(() => gates.length === 1 && inFlight(vm) === 1);
    gates[0]!();
    await until(() => functionOf(vm).resetting);
    // The guest polls the status; it stays as it is until the backend has let go.
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(functionOf(vm)).toMatchObject({ resetting: true });
    clock.advance(1000n);
    await until(() => gates.length === 2);
    gates[1]!();
    expect(await vm.wait()).toEqual(DONE);
    expect(vm.memory.read(DATA, 512)).toEqual(wanted);
    // One interrupt, of the second life; the first left no used entry.
    expect([word(vm, TAKEN), word(vm, TAKEN + 8)]).toEqual([1, 0]);
    expect(functionOf(vm).counts).toMatchObject({ activations: 2, interrupts: 1 });
    expect(inFlight(vm)).toBe(0);
  });

  it('lets go of everything when the machine is closed in the middle of a request', async () => {
    const clock = new ManualClock();
    const disk = faultyDisk(fileDisk(image), { clock, rules: [{ on: 'read', fault: { delayNs: 1000n } }] });
    const vm = await drive({ disk });
    await until(() => inFlight(vm) === 1);
    const closed = vm.close();
    clock.advance(1000n);
    await closed;
    // Its lock is free again: another machine has it.
    const other = await drive();
    expect(await other.wait()).toEqual(DONE);
  });
});
