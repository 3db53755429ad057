/** The raw addon: the state of a vCPU that stands still. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { makeRig, STATE, type RigBoot, type RigVm } from '../lib/native-rig.mjs';

const rig = makeRig();

function boot(options?: RigBoot): RigVm {
  const made = rig.boot(options);
  onTestFinished(() => made.close());
  return made;
}

function failure(fields: object): Error {
  return expect.objectContaining(fields) as Error;
}

describe('the state of a vCPU', () => {
  it.each([
    ['KVM_GET_REGS', 'KVM_SET_REGS', 144],
    ['KVM_GET_SREGS', 'KVM_SET_SREGS', 312],
    ['KVM_GET_SREGS2', 'KVM_SET_SREGS2', 320],
    ['KVM_GET_FPU', 'KVM_SET_FPU', 416],
    ['KVM_GET_XCRS', 'KVM_SET_XCRS', 392],
    ['KVM_GET_DEBUGREGS', 'KVM_SET_DEBUGREGS', 128],
    ['KVM_GET_VCPU_EVENTS', 'KVM_SET_VCPU_EVENTS', 64],
    ['KVM_GET_MP_STATE', 'KVM_SET_MP_STATE', 4],
    ['KVM_GET_LAPIC', 'KVM_SET_LAPIC', 1024],
  ])('%s and %s are inverse', (get, set, sizeBytes) => {
    const { cpu } = boot();
    const before = cpu.native.ioctl(get);
    expect(before).toHaveLength(sizeBytes);
    cpu.native.ioctl(set, before);
    const after = cpu.native.ioctl(get);
    if (get === 'KVM_GET_LAPIC') {
      expect(after.subarray(0, 0x390)).toEqual(before.subarray(0, 0x390)); // the timer goes on behind it
    } else {
      expect(after).toEqual(before);
    }
  });

  it('takes registers that the guest then has', async () => {
    const { cpu } = boot({ code: [0xe6, 0x80, 0xeb, 0xfe] });
    const regs = cpu.regs();
    regs[0] = 0x5an; // rax
    cpu.native.ioctl('KVM_SET_REGS', new Uint8Array(regs.buffer));
    cpu.native.resume();
    expect((await cpu.nextExit()).data).toEqual(Uint8Array.of(0x5a));
    expect(cpu.regs()[0]).toBe(0x5an);
  });

  it('has the XSAVE area in the size that the VM reports', () => {
    const { cpu, vm } = boot();
    const area = cpu.native.getXsave();
    expect(area).toHaveLength(Math.max(4096, vm.checkExtension(208))); // KVM_CAP_XSAVE2
    cpu.native.setXsave(area);
    expect(() => cpu.native.setXsave(area.subarray(1))).toThrow(RangeError);
    expect(() => cpu.native.setXsave(new Uint8Array(area.length + 1))).toThrow(RangeError);
  });

  it('takes CPUID rows and gives them back', () => {
    const { cpu } = boot();
    const rows = rig.system.supportedCpuid();
    cpu.native.setCpuid(rows);
    const leaves = (words: Uint32Array): number[] => [...words].filter((_, at) => at % 7 === 0);
    expect(leaves(cpu.native.getCpuid())).toEqual(leaves(rows));
    expect(() => cpu.native.setCpuid(rows.subarray(1))).toThrow(RangeError);
    expect(() => cpu.native.setCpuid(new Uint32Array(7 * 257))).toThrow(RangeError);
  });

  it('reads and writes MSRs, more than one call takes', () => {
    const { cpu } = boot();
    const IA32_SYSENTER_EIP = 0x176;
    cpu.native.writeMsrs(Uint32Array.of(0x175, IA32_SYSENTER_EIP), BigUint64Array.of(0x7000n, 0xffff_8000_1234_5678n));
    const many = new Uint32Array(600).fill(IA32_SYSENTER_EIP);
    const values = cpu.native.readMsrs(many);
    expect(values).toHaveLength(600);
    expect(values.every((value) => value === 0xffff_8000_1234_5678n)).toBe(true);
    expect(() => cpu.native.writeMsrs(many, new BigUint64Array(599))).toThrow(RangeError);
  });

  it('names the MSR that was refused, wherever it stands', () => {
    const { cpu } = boot();
    const indices = new Uint32Array(300).fill(0x176);
    indices[270] = 0xdead;
    expect(() => cpu.native.readMsrs(indices)).toThrow(
      failure({ kind: 'ioctl', name: 'KVM_GET_MSRS', errno: 'EINVAL', errnoNumber: 22, detail: 'msr 0xdead' }),
    );
    expect(() => cpu.native.writeMsrs(Uint32Array.of(0x174, 0xdead), BigUint64Array.of(1n, 1n))).toThrow(
      failure({ name: 'KVM_SET_MSRS', detail: 'msr 0xdead' }),
    );
    expect(cpu.native.readMsrs(Uint32Array.of(0x174))).toEqual(BigUint64Array.of(1n));
  });

  it('has a TSC offset', () => {
    const { cpu } = boot();
    const before = cpu.native.getDeviceAttr(0, 0);
    const moved = BigInt.asUintN(64, before - 1_000_000n);
    cpu.native.setDeviceAttr(0, 0, moved);
    // kvm-pvm takes the call and keeps its offset: its ring 3 runs on the host's own counter.
    expect([before, moved]).toContain(cpu.native.getDeviceAttr(0, 0));
    // What KVM would write for another attribute is not known: it never gets a pointer.
    expect(() => cpu.native.getDeviceAttr(0, 1)).toThrow(RangeError);
    expect(() => cpu.native.setDeviceAttr(1, 0, 0n)).toThrow(RangeError);
  });

  it('has a TSC frequency, and translates addresses', () => {
    const { cpu } = boot();
    expect(cpu.native.ioctlValue('KVM_GET_TSC_KHZ')).toBeGreaterThan(100_000);
    const request = new Uint8Array(24);
    new DataView(request.buffer).setBigUint64(0, 0x1234n, true);
    const answer = new DataView(cpu.native.ioctl('KVM_TRANSLATE', request).buffer);
    expect([answer.getBigUint64(8, true), answer.getUint8(16)]).toEqual([0x1234n, 1]);
  });

  it('refuses kvmclock control for a guest that has no kvmclock', () => {
    const { cpu } = boot();
    expect(() => cpu.native.ioctlValue('KVM_KVMCLOCK_CTRL')).toThrow(
      failure({ name: 'KVM_KVMCLOCK_CTRL', errno: 'EINVAL', detail: 'vcpu 0' }),
    );
  });
});

describe('a vCPU that runs', () => {
  it('refuses what would wait for it, and gives it in an exit and when parked', async () => {
    const { cpu } = boot({ code: [0xe6, 0x80, 0xeb, 0xfe] });
    const busy = failure({ kind: 'state', name: 'vcpu 0', errno: 'EBUSY' });
    const calls = [
      () => cpu.native.ioctl('KVM_GET_REGS'),
      () => cpu.native.ioctlValue('KVM_GET_TSC_KHZ'),
      () => cpu.native.getCpuid(),
      () => cpu.native.readMsrs(Uint32Array.of(0x174)),
      () => cpu.native.getXsave(),
      () => cpu.native.getDeviceAttr(0, 0),
    ];
    cpu.native.resume();
    await cpu.nextExit();
    for (const call of calls) call();
    cpu.native.complete();
    expect(cpu.state()).toBe(STATE.RUNNING);
    for (const call of calls) expect(call).toThrow(busy);
    await cpu.park();
    for (const call of calls) call();
  });

  it('has a thread with its name and its time', async () => {
    const { cpu } = boot({ code: [0xe6, 0x80, 0xeb, 0xfa] });
    expect(cpu.native.threadId).toBe(0);
    expect(cpu.native.threadCpuNs()).toBe(0n);
    cpu.native.resume();
    await cpu.nextExit();
    expect(cpu.native.threadId).toBeGreaterThan(process.pid);
    expect(cpu.native.threadCpuNs()).toBeGreaterThan(0n);
  });
});
