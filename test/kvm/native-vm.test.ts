/** The raw addon: a VM's descriptor. Structures cross as bytes here; lib/abi has their fields. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { makeRig, STATE, type RigBoot, type RigVm } from '../lib/native-rig.mjs';

const rig = makeRig();
const { addon, runtime } = rig;

function boot(options?: RigBoot): RigVm {
  const made = rig.boot(options);
  onTestFinished(() => made.close());
  return made;
}

function failure(fields: object): Error {
  return expect.objectContaining(fields) as Error;
}

function u32s(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

describe('structure ioctls of a VM', () => {
  it('takes the PIT out and in', () => {
    const { vm } = boot();
    const state = vm.ioctl('KVM_GET_PIT2');
    expect(state).toHaveLength(112);
    u32s(state)[0] = 1193; // channels[0].count
    vm.ioctl('KVM_SET_PIT2', state);
    expect(u32s(vm.ioctl('KVM_GET_PIT2'))[0]).toBe(1193);
    vm.ioctl('KVM_REINJECT_CONTROL', new Uint8Array(32));
  });

  it('reads the chip that the input names', () => {
    const { vm } = boot();
    const chips = [0, 1, 2].map((id) => {
      const request = new Uint8Array(520);
      request[0] = id;
      return vm.ioctl('KVM_GET_IRQCHIP', request);
    });
    expect(chips.map((chip) => chip[0])).toEqual([0, 1, 2]);
    vm.ioctl('KVM_SET_IRQCHIP', chips[2]);
    expect(vm.ioctl('KVM_GET_IRQCHIP')).toEqual(chips[0]);
  });

  it('takes the clock out and in', () => {
    const { vm } = boot();
    const clock = new Uint8Array(48);
    new DataView(clock.buffer).setBigUint64(0, 5_000_000_000n, true);
    vm.ioctl('KVM_SET_CLOCK', clock);
    expect(new DataView(vm.ioctl('KVM_GET_CLOCK').buffer).getBigUint64(0, true)).toBeGreaterThanOrEqual(5_000_000_000n);
  });

  it.each([
    ['an unknown name', (vm: RigVm['vm']) => vm.ioctl('KVM_GET_PIT3'), RangeError],
    ['an ioctl of a vCPU', (vm: RigVm['vm']) => vm.ioctl('KVM_GET_REGS'), RangeError],
    ['a set without an input', (vm: RigVm['vm']) => vm.ioctl('KVM_SET_PIT2'), TypeError],
    ['a short input', (vm: RigVm['vm']) => vm.ioctl('KVM_SET_PIT2', new Uint8Array(111)), RangeError],
    ['a long input', (vm: RigVm['vm']) => vm.ioctl('KVM_SET_PIT2', new Uint8Array(113)), RangeError],
    ['words for bytes', (vm: RigVm['vm']) => vm.ioctl('KVM_SET_PIT2', new Uint16Array(56) as never), TypeError],
    ['a structure ioctl as a value', (vm: RigVm['vm']) => vm.ioctlValue('KVM_GET_PIT2'), RangeError],
    ['a name that is none', (vm: RigVm['vm']) => vm.ioctl(1 as never), TypeError],
    ['a length that is none', (vm: RigVm['vm']) => vm.ioctlValue('KVM_SET_TSS_ADDR', -1), RangeError],
    ['routes of half a row', (vm: RigVm['vm']) => vm.setGsiRouting(new Uint8Array(47)), RangeError],
    ['five arguments', (vm: RigVm['vm']) => vm.enableCap(0, 0, new BigUint64Array(5)), RangeError],
  ])('refuses %s', (_, call, type) => {
    const { vm } = boot();
    expect(() => call(vm)).toThrow(type);
  });

  it('names ioctl and errno of what KVM refuses', () => {
    const { vm } = boot();
    expect(() => vm.ioctlValue('KVM_CREATE_IRQCHIP')).toThrow(
      failure({ kind: 'ioctl', name: 'KVM_CREATE_IRQCHIP', errno: 'EEXIST', errnoNumber: 17, detail: undefined }),
    );
    expect(() => vm.enableCap(0x7fff, 0, new BigUint64Array(4))).toThrow(
      failure({ name: 'KVM_ENABLE_CAP', errno: 'EINVAL', detail: 'capability 32767' }),
    );
    expect(() => vm.createVcpu(0, 'twice')).toThrow(
      failure({ name: 'KVM_CREATE_VCPU', errno: 'EEXIST', detail: 'vcpu 0' }),
    );
  });
});

describe('memory slots', () => {
  it('are set on a worker thread as well, and move', async () => {
    const { vm, memory } = boot({ memoryBytes: 0x80000 });
    await vm.setMemorySlotAsync(1, 0, 0x100000, memory, 0x1000, 0x1000);
    await vm.setMemorySlotAsync(1, 0, 0x100000, memory, 0, 0);
    await expect(vm.setMemorySlotAsync(1, 0, 0x1000, memory, 0, 0x1000)).rejects.toEqual(
      failure({ name: 'KVM_SET_USER_MEMORY_REGION', errno: 'EEXIST', detail: 'slot 1, gpa 0x1000, 4096 bytes' }),
    );
  });

  it.each([
    ['beyond the memory', 0x100000, 0x80000, 0x1000],
    ['with an end beyond the memory', 0x100000, 0x7f000, 0x2000],
    ['whose sum would wrap', 0x100000, 0x1000, 2 ** 53 - 4096],
    ['at an odd address', 0x100800, 0, 0x1000],
    ['from an odd offset', 0x100000, 0x800, 0x1000],
    ['of an odd size', 0x100000, 0, 0x1800],
  ])('refuse a slot %s', (_, gpa, offset, sizeBytes) => {
    const { vm, memory } = boot({ memoryBytes: 0x80000 });
    expect(() => vm.setMemorySlot(1, 0, gpa, memory, offset, sizeBytes)).toThrow(RangeError);
    expect(() => vm.setMemorySlotAsync(1, 0, gpa, memory, offset, sizeBytes)).toThrow(RangeError);
  });

  it('refuse what is no memory, and memory that is closed', () => {
    const { vm, memory } = boot();
    expect(() => vm.setMemorySlot(1, 0, 0x100000, {} as never, 0, 0x1000)).toThrow(TypeError);
    expect(() => vm.setMemorySlot(1, 0, 0x100000, rig.system as never, 0, 0x1000)).toThrow(TypeError);
    memory.close();
    expect(() => vm.setMemorySlot(1, 0, 0x100000, memory, 0, 0x1000)).toThrow(failure({ kind: 'closed' }));
  });

  it('log the pages that the guest wrote', async () => {
    // mov byte [0x3000], 1; out 0x80, al; mov byte [0x5000], 1; out 0x80, al
    const { vm, memory, cpu } = boot({
      code: [0xc6, 0x06, 0, 0x30, 1, 0xe6, 0x80, 0xc6, 0x06, 0, 0x50, 1, 0xe6, 0x80, 0xeb, 0xfe],
    });
    const KVM_MEM_LOG_DIRTY_PAGES = 1;
    vm.setMemorySlot(0, KVM_MEM_LOG_DIRTY_PAGES, 0, memory, 0, 0x80000);
    cpu.native.resume();
    await cpu.nextExit();
    // A page that is only read may be logged as well, when KVM maps it writable at once: the one with the code.
    const codePage = 1n << 1n;
    const [first = 0n, rest] = vm.getDirtyLog(0, 0x80000);
    expect([first | codePage, rest]).toEqual([(1n << 3n) | codePage, 0n]);
    cpu.native.complete();
    await cpu.nextExit();
    expect(vm.getDirtyLog(0, 0x80000)).toEqual(BigUint64Array.of(1n << 5n, 0n));
    expect(() => vm.getDirtyLog(0, 0x40000)).toThrow(RangeError);
    expect(() => vm.getDirtyLog(7, 0x80000)).toThrow(failure({ name: 'KVM_GET_DIRTY_LOG', errno: 'ENOENT' }));
  });

  it('clear the log by hand where that was chosen', async () => {
    const KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 = 168;
    const { vm, memory, cpu } = boot({ code: [0xc6, 0x06, 0, 0x30, 1, 0xe6, 0x80, 0xeb, 0xfe] });
    if (vm.checkExtension(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) === 0) return;
    vm.enableCap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, BigUint64Array.of(1n));
    vm.setMemorySlot(0, 1, 0, memory, 0, 0x80000);
    cpu.native.resume();
    await cpu.nextExit();
    const log = vm.getDirtyLog(0, 0x80000);
    expect(log[0]! & (1n << 3n)).not.toBe(0n);
    expect(vm.getDirtyLog(0, 0x80000)).toEqual(log);
    expect(() => vm.clearDirtyLog(0, 0, 128, new BigUint64Array(1))).toThrow(RangeError);
    vm.clearDirtyLog(0, 0, 128, log);
    expect(vm.getDirtyLog(0, 0x80000)).toEqual(new BigUint64Array(2));
  });
});

describe('event descriptors', () => {
  it('signal an ioeventfd for the value that it waits for', async () => {
    // mov al, 1; out 0x50, al; mov al, 2; out 0x50, al; out 0x51, al
    const { vm, cpu } = boot({ code: [0xb0, 1, 0xe6, 0x50, 0xb0, 2, 0xe6, 0x50, 0xe6, 0x51, 0xeb, 0xfe] });
    const KVM_IOEVENTFD_FLAG_PIO = 2;
    const KVM_IOEVENTFD_FLAG_DEASSIGN = 4;
    const two = new addon.EventFd();
    vm.ioeventfd(two, 0x50, 1, KVM_IOEVENTFD_FLAG_PIO, 2n);
    cpu.native.resume();
    const first = await cpu.nextExit();
    expect([first.address, first.data[0]]).toEqual([0x50, 1]);
    cpu.native.complete();
    const second = await cpu.nextExit();
    expect(second.address).toBe(0x51);
    expect(two.read()).toBe(1n);
    vm.ioeventfd(two, 0x50, 1, KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DEASSIGN, 2n);
    expect(() => vm.ioeventfd(two, 0x50, 3, KVM_IOEVENTFD_FLAG_PIO)).toThrow(
      failure({ name: 'KVM_IOEVENTFD', errno: 'EINVAL', detail: 'address 0x50' }),
    );
    expect(() => vm.ioeventfd(two, 0x50, 9, KVM_IOEVENTFD_FLAG_PIO)).toThrow(RangeError);
    two.close();
  });

  it('inject through an irqfd, and signal the resample eventfd at the EOI', async () => {
    // PIC: ICW1..4 with vector base 0x20, unmask line 5; IVT[0x25] = 0:0x1100; sti; hlt; then the handler:
    // mov al, 0x20; out 0x20, al (EOI); out 0x90, al
    const out = (port: number, value: number): number[] => [0xb0, value, 0xe6, port];
    const { vm, cpu, bytes } = boot({
      code: [
        ...[...out(0x20, 0x11), ...out(0x21, 0x20), ...out(0x21, 4), ...out(0x21, 1), ...out(0x21, 0xdf)],
        ...[0xe6, 0x91, 0xfb, 0xf4, 0xeb, 0xfd],
      ],
    });
    bytes.set([0, 0x11, 0, 0], 0x25 * 4);
    bytes.set([0xb0, 0x20, 0xe6, 0x20, 0xe6, 0x90, 0xcf], 0x1100);
    const trigger = new addon.EventFd();
    const resample = new addon.EventFd();
    vm.irqfd(trigger, 5, 0, resample);
    cpu.native.resume();
    expect((await cpu.nextExit()).address).toBe(0x91);
    cpu.native.complete();
    trigger.write(1n);
    expect((await cpu.nextExit()).address).toBe(0x90);
    expect(resample.read()).toBeGreaterThan(0n);
    const KVM_IRQFD_FLAG_DEASSIGN = 1;
    vm.irqfd(trigger, 5, KVM_IRQFD_FLAG_DEASSIGN);
    expect(() => vm.irqfd({} as never, 5, 0)).toThrow(TypeError);
    trigger.close();
    resample.close();
  });

  it('routes GSIs, and sends messages', () => {
    const { vm } = boot();
    const entry = new Uint8Array(48);
    const view = new DataView(entry.buffer);
    view.setUint32(0, 4, true); // gsi 4
    view.setUint32(4, 1, true); // KVM_IRQ_ROUTING_IRQCHIP
    view.setUint32(16, 2, true); // the IO-APIC
    view.setUint32(20, 4, true); // pin 4
    vm.setGsiRouting(entry);
    vm.setGsiRouting(new Uint8Array(0));
    view.setUint32(4, 99, true);
    expect(() => vm.setGsiRouting(entry)).toThrow(failure({ name: 'KVM_SET_GSI_ROUTING', errno: 'EINVAL' }));
    const msi = new Uint8Array(32);
    new DataView(msi.buffer).setUint32(0, 0xfee00000, true);
    new DataView(msi.buffer).setUint32(8, 0x41, true);
    vm.ioctl('KVM_SIGNAL_MSI', msi);
  });
});

describe('a VM', () => {
  it('counts', async () => {
    const { vm, cpu } = boot({ code: [0xe6, 0x80, 0xeb, 0xfe] });
    expect(vm.stats()['remote_tlb_flush']).toBeTypeOf('bigint');
    cpu.native.resume();
    await cpu.nextExit();
    cpu.native.complete();
    expect(cpu.state()).toBe(STATE.RUNNING);
    // Statistics are for reading while it runs.
    const stats = cpu.native.stats();
    expect(stats['exits']).toBeTypeOf('bigint');
    expect(Object.values(stats).some((value) => value instanceof BigUint64Array)).toBe(true);
    // One of them alone, found anew and found again.
    for (let read = 0; read < 2; read++) expect(cpu.native.stat('exits')! >= (stats['exits'] as bigint)).toBe(true);
    expect(cpu.native.stat('no such statistic')).toBeUndefined();
  });

  it('is closed once and for all, with all that belongs to it', () => {
    const { vm, memory, cpu, portFlags } = rig.boot();
    vm.close();
    vm.close();
    const closed = failure({ kind: 'closed', name: 'vm' });
    expect(() => vm.stats()).toThrow(closed);
    expect(() => vm.ioctl('KVM_GET_PIT2')).toThrow(closed);
    expect(() => vm.createVcpu(1, 'late')).toThrow(closed);
    expect(() => vm.setMemorySlotAsync(0, 0, 0, memory, 0, 4096)).toThrow(closed);
    expect(() => vm.postedConsumed()).toThrow(closed);
    const gone = failure({ kind: 'closed', name: 'vcpu' });
    expect(() => cpu.native.resume()).toThrow(gone);
    expect(() => cpu.native.park()).toThrow(gone);
    expect(() => cpu.native.complete()).toThrow(gone);
    expect(() => cpu.native.ioctl('KVM_GET_REGS')).toThrow(gone);
    expect(() => cpu.native.threadCpuNs()).toThrow(gone);
    expect(cpu.native.threadId).toBe(0);
    expect(portFlags).toHaveLength(0);
    expect(cpu.native.run.byteLength).toBe(0);
    memory.close();
  });

  it('is closed on a worker thread, in any mixture of calls', async () => {
    const { vm, memory, cpu } = rig.boot({ code: [0xeb, 0xfe] });
    cpu.native.resume();
    // Set before the machine is gone, or refused since it is.
    const slot = vm.setMemorySlotAsync(1, 0, 0x100000, memory, 0, 0x1000).catch((error: unknown) => {
      expect(error).toEqual(failure({ kind: 'closed' }));
    });
    const first = vm.closeAsync();
    const second = vm.closeAsync();
    expect(() => cpu.native.kick()).toThrow(failure({ kind: 'closed' }));
    await expect(Promise.all([first, second])).resolves.toEqual([undefined, undefined]);
    await slot;
    await vm.closeAsync();
    vm.close();
    memory.close();
    expect(runtime.counts()).toMatchObject({ vms: 0, vcpus: 0, threads: 1, mappings: 0 });
  });

  it('is made on a worker thread', async () => {
    const vms = await Promise.all([rig.system.createVmAsync(0), rig.system.createVmAsync(0)]);
    expect(runtime.counts().vms).toBe(2);
    expect(vms[0].sourceId).not.toBe(vms[1].sourceId);
    for (const vm of vms) vm.close();
    expect(runtime.counts().vms).toBe(0);
  });
});
