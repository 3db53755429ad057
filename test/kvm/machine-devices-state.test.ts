/**
 * Lent devices and their PCI bus saved on one board and restored on another, on real KVM: a flat guest with a request in
 * flight goes on there as if nothing had been. Of the CPU only what this guest uses is carried over.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { Irqchip } from '../../lib/abi/kvm.js';
import { hostClock } from '../../lib/base/clock.js';
import type { SavedPart } from '../../lib/base/saved-state.js';
import { ramRanges } from '../../lib/boot/index.js';
import { newRtcBattery } from '../../lib/chipset/index.js';
import { Kvm } from '../../lib/kvm/index.js';
import { Board } from '../../lib/machine/board.js';
import { MachineDevices } from '../../lib/machine/machine-devices.js';
import { checkMachineOptions } from '../../lib/machine/options.js';
import { AddressSpace } from '../../lib/memory/index.js';
import { faultyDisk, fileDisk, quiesce, type BlockSource } from '../../lib/vsp/index.js';
import { assemble } from '../lib/assemble.js';
import { until } from '../lib/machine.js';

const ADDRESS = 0x10000;
const DATA = 0x60000;
const TAKEN = 0x70000;
const AVAILABLE_INDEX = 0x41002;
const SECTOR = 3;
const content = Uint8Array.from({ length: 64 * 512 }, (_, at) => at % 251);
const wanted = content.slice(SECTOR * 512, (SECTOR + 1) * 512);

let folder: string;
let image: string;
/** The same data, for the other board. */
let copy: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'vivarium-state-'));
  image = path.join(folder, 'disk.img');
  copy = path.join(folder, 'copy.img');
  for (const file of [image, copy]) writeFileSync(file, content);
});
afterAll(() => rmSync(folder, { recursive: true }));

interface Half {
  readonly board: Board;
  readonly devices: MachineDevices;
  readonly space: AddressSpace;
  /** Codes of the guest's debug exit. */
  readonly codes: number[];
  readonly faults: unknown[];
}

/** A board with its devices, without a machine's life around it. */
async function half(disk: BlockSource, msix: boolean): Promise<Half> {
  const config = checkMachineOptions({
    memory: '16MiB',
    debugExit: true,
    boot: {
      flat: assemble('virtio-blk', ADDRESS, {
        ...{ MSIX: Number(msix), MASTER: 1, GATED: 0, RESETS: 0 },
        ...{ SECTOR, DATA, TAKEN, GATE: 0x720 },
      }),
      address: ADDRESS,
      mode: 'long64',
    },
    disks: [{ id: 'disk', backend: disk }],
  });
  const kvm = Kvm.open();
  const space = new AddressSpace({ ranges: ramRanges(config.memoryBytes), backing: config.memoryBacking });
  const { name, disks, nics, consolePorts, entropy, clock, logger } = config;
  const devices = await MachineDevices.open({
    ...{ name, disks, nics, consolePorts, entropy },
    ...{ memory: space, clock, logger },
  });
  const codes: number[] = [];
  const faults: unknown[] = [];
  const board = await Board.create(
    kvm,
    config,
    space,
    {
      onFatalExit: (_vcpu, exit) => void faults.push(exit),
      onFault: (fault) => void faults.push(fault),
      onRunFailure: (_vcpu, errno) => void faults.push(errno),
      onPowerOff: () => undefined,
      onReset: () => undefined,
      onPanic: () => undefined,
      onDebugExit: (code) => void codes.push(code),
      onConsoleOutput: () => undefined,
    },
    { battery: newRtcBattery(), proxies: () => devices.makeProxies() },
  );
  onTestFinished(async () => {
    board.end();
    await board.park();
    devices.beginClose();
    await board.close();
    await devices.close();
    await devices.release(space);
    kvm.close();
  });
  return { board, devices, space, codes, faults };
}

/** Everything but the devices: memory, the CPU and the interrupt controllers, as far as this guest uses them. */
function carryOver(from: Half, to: Half): void {
  for (const { gpa, sizeBytes } of from.space.ranges) to.space.write(gpa, from.space.read(gpa, sizeBytes));
  const [old, next] = [from.board.vcpus[0]!, to.board.vcpus[0]!];
  next.setSregs(old.getSregs());
  next.setRegs(old.getRegs());
  next.setLapic(old.getLapic());
  next.setEvents(old.getEvents());
  next.setMpState(old.getMpState());
  for (const chip of Object.values(Irqchip)) to.board.vm.setIrqchip(chip, from.board.vm.getIrqchip(chip));
}

function restore(to: Half, lent: SavedPart, bus: SavedPart): void {
  to.devices.restoreState(structuredClone(lent));
  to.board.pci!.restoreState(structuredClone(bus));
}

interface Inspected {
  readonly functions: readonly { readonly device: { readonly device: { readonly inService: number } } }[];
}

const onlyDevice = ({ data }: SavedPart): { backends: unknown } =>
  (data as { devices: [{ backends: unknown }] }).devices[0];

const offers = ({ space }: Half): number => space.read(AVAILABLE_INDEX, 1)[0]!;
const functions = ({ devices }: Half): string[] => Object.keys(devices.find('disk').contract.functions);

describe.each([
  ['MSI-X', true],
  ['INTx', false],
])('a disk with %s on another board', (_name, msix) => {
  it.each([
    ['a request that nobody has taken', 'queue'],
    ['a request that waits in the provider', 'gate'],
  ] as const)('goes on with %s, over a backend with no function of its own', async (_what, where) => {
    const first = await half(fileDisk(image), msix);
    const { board, devices } = first;
    if (where === 'gate') await quiesce(devices.quiescables, { clock: hostClock });
    const resume = await quiesce(where === 'queue' ? [board.pci!, ...devices.quiescables] : [], { clock: hostClock });
    board.resume();
    const seen = (): boolean => (board.pci!.inspect() as Inspected).functions[1]!.device.device.inService === 1;
    await until(() => (where === 'gate' ? seen() : offers(first) === 1));
    await board.park();
    if (where === 'gate') await board.pci!.prepare();
    const lent = devices.saveState();
    const bus = board.pci!.saveState();

    const without = ['flush', 'discard', 'write-zeroes', 'identify', 'resize', 'topology'] as const;
    const second = await half(faultyDisk(fileDisk(copy), { without, blockBytes: 4096 }), msix);
    carryOver(first, second);
    restore(second, lent, bus);
    expect(functions(second)).toEqual(functions(first));
    expect(second.devices.saveState()).toEqual({
      ...lent,
      data: { devices: [{ ...onlyDevice(lent), backends: onlyDevice(second.devices.saveState()).backends }] },
    });
    second.board.resume();
    expect(second.codes).toEqual([]);
    second.board.pci!.resume();
    await until(() => second.codes.length + second.faults.length > 0);
    expect([second.codes, second.faults]).toEqual([[0x21], []]);
    expect(second.space.read(DATA, 512)).toEqual(wanted);
    expect(second.devices.find('disk').contract.functions).toMatchObject({ read: { by: 'emulated', calls: 1 } });

    // And the one that was saved, as if it had not been.
    for (const device of devices.quiescables) device.resume();
    resume();
    board.pci!.resume();
    board.resume();
    await until(() => first.codes.length + first.faults.length > 0);
    expect([first.codes, first.faults]).toEqual([[0x21], []]);
    expect(first.space.read(DATA, 512)).toEqual(wanted);
  });
});

describe('a backend that can not serve what was saved', () => {
  it('is refused by name before anything runs', async () => {
    const first = await half(fileDisk(image), true);
    await quiesce([first.board.pci!, ...first.devices.quiescables], { clock: hostClock });
    const lent = first.devices.saveState();
    const small = path.join(folder, 'small.img');
    writeFileSync(small, content.subarray(0, 512));
    const second = await half(fileDisk(small), true);
    expect(() => second.devices.restoreState(lent)).toThrow(/disk disk: its backend has 512 bytes.* 32768/);
  });
});
