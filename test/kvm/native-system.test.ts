/** The raw addon: the system's descriptor, eventfds, the error factory, and what wrong callers get. */
import { describe, expect, it } from 'vitest';
import { makeRig } from '../lib/native-rig.mjs';

const rig = makeRig();
const { addon, runtime } = rig;

describe('System', () => {
  it('speaks of the API, the extensions and the size of kvm_run', () => {
    expect(rig.system.apiVersion()).toBe(12);
    expect(rig.system.checkExtension(3)).toBe(1); // KVM_CAP_USER_MEMORY
    expect(rig.system.checkExtension(0x7fffffff)).toBe(0);
    expect(rig.system.vcpuMmapSize() % 4096).toBe(0);
  });

  it('lists CPUID entries in rows of seven, and MSRs', () => {
    const rows = rig.system.supportedCpuid();
    expect(rows.length % 7).toBe(0);
    expect(rows.length).toBeGreaterThan(7 * 10);
    expect(rows[0]).toBe(0);
    expect(rig.system.emulatedCpuid().length % 7).toBe(0);
    expect([...rig.system.msrIndices()]).toContain(0x174); // IA32_SYSENTER_CS
  });

  it('reads feature MSRs and names the one that is refused', () => {
    const indices = rig.system.featureMsrIndices();
    expect(rig.system.readFeatureMsrs(indices)).toHaveLength(indices.length);
    expect(rig.system.readFeatureMsrs(new Uint32Array(0))).toHaveLength(0);
    expect(() => rig.system.readFeatureMsrs(Uint32Array.of(...indices, 0x1234_5678))).toThrow(
      expect.objectContaining({
        kind: 'ioctl',
        name: 'KVM_GET_MSRS',
        errno: 'EINVAL',
        errnoNumber: 22,
        detail: 'msr 0x12345678',
      }) as Error,
    );
  });

  it('hands a failed open to the error factory', () => {
    expect(() => new addon.System('/dev/no-such-kvm')).toThrow(
      expect.objectContaining({ kind: 'syscall', name: 'open', errno: 'ENOENT', detail: '/dev/no-such-kvm' }) as Error,
    );
    expect(() => new addon.System('/dev/null').apiVersion()).toThrow(
      expect.objectContaining({ kind: 'ioctl', name: 'KVM_GET_API_VERSION', errno: 'ENOTTY' }) as Error,
    );
  });

  it('refuses a VM type that KVM does not know, at once and later', async () => {
    const refused = expect.objectContaining({ kind: 'ioctl', name: 'KVM_CREATE_VM', errno: 'EINVAL' }) as Error;
    expect(() => rig.system.createVm(0x7fff)).toThrow(refused);
    await expect(rig.system.createVmAsync(0x7fff)).rejects.toEqual(refused);
  });

  it('is closed once and for all', () => {
    const system = new addon.System(process.env['VIVARIUM_KVM'] ?? '/dev/kvm');
    system.close();
    system.close();
    expect(() => system.apiVersion()).toThrow(expect.objectContaining({ kind: 'closed', name: 'system' }) as Error);
    expect(() => system.createVmAsync(0)).toThrow(expect.objectContaining({ kind: 'closed' }) as Error);
  });
});

describe('EventFd', () => {
  it('counts, and gives 0 when nothing was signalled', () => {
    const event = new addon.EventFd(3);
    expect(event.fd).toBeGreaterThan(2);
    expect(event.read()).toBe(3n);
    expect(event.read()).toBe(0n);
    event.write(2n);
    event.write(4n);
    event.write();
    expect(event.read()).toBe(7n);
    event.close();
    event.close();
    expect(event.fd).toBe(-1);
    expect(() => event.read()).toThrow(expect.objectContaining({ kind: 'closed', name: 'eventfd' }) as Error);
  });

  it('never blocks on a full counter', () => {
    const event = new addon.EventFd();
    event.write(0xffff_ffff_ffff_fffen);
    expect(() => event.write(1n)).toThrow(expect.objectContaining({ kind: 'syscall', errno: 'EAGAIN' }) as Error);
    event.close();
  });

  it('is watched: the source stands in the queue after each signal, and the counter stays', async () => {
    const event = new addon.EventFd();
    const source = runtime.watch(event);
    event.write(2n);
    await rig.until(() => rig.rung.sources.includes(source));
    rig.rung.sources.length = 0;
    event.write(3n);
    await rig.until(() => rig.rung.sources.includes(source));
    expect(event.read()).toBe(5n);
    runtime.unwatch(source);
    runtime.unwatch(source);
    event.close();
    expect(runtime.counts().eventFds).toBe(0);
  });

  it('is found by who polls for the next source', () => {
    const event = new addon.EventFd();
    const source = runtime.watch(event);
    event.write(1n);
    // Without a turn of the event loop: only the polling itself can have looked.
    expect(runtime.next(10_000_000)).toBe(source);
    expect(runtime.next(0)).toBe(0);
    runtime.unwatch(source);
    event.close();
  });

  it('is told of what stands in the counter when the watch begins', async () => {
    const event = new addon.EventFd(1);
    const source = runtime.watch(event);
    await rig.until(() => rig.rung.sources.includes(source));
    runtime.unwatch(source);
    event.close();
  });

  it('stays open while it is watched', async () => {
    const event = new addon.EventFd();
    const source = runtime.watch(event);
    event.write(1n);
    event.close();
    await rig.until(() => rig.rung.sources.includes(source));
    expect(() => runtime.watch(event)).toThrow(expect.objectContaining({ kind: 'closed' }) as Error);
    runtime.unwatch(source);
    expect(runtime.counts().eventFds).toBe(0);
  });
});

describe('wrong callers', () => {
  it.each([
    ['a missing number', () => rig.system.checkExtension(undefined as unknown as number), TypeError],
    ['a fraction', () => rig.system.checkExtension(1.5), RangeError],
    ['a negative number', () => rig.system.checkExtension(-1), RangeError],
    ['NaN', () => rig.system.checkExtension(Number.NaN), RangeError],
    ['infinity', () => runtime.next(Number.POSITIVE_INFINITY), RangeError],
    ['a spin of a second', () => runtime.next(1e9), RangeError],
    ['a bigint that is too large', () => new addon.EventFd().write(1n << 64n), RangeError],
    ['a number for a bigint', () => new addon.EventFd().write(1 as unknown as bigint), TypeError],
    ['an array of another type', () => rig.system.readFeatureMsrs([1] as unknown as Uint32Array), TypeError],
    ['an object that is no eventfd', () => runtime.watch({ fd: 0 } as never), TypeError],
    ['an object of another class', () => runtime.watch(rig.system as never), TypeError],
    [
      'an object made from the prototype',
      () => runtime.watch(Object.create(addon.EventFd.prototype) as never),
      TypeError,
    ],
    [
      'a second initialize()',
      () =>
        addon.initialize(
          () => new Error(),
          () => undefined,
        ),
      Error,
    ],
    ['unref() without ref()', () => runtime.unref(), RangeError],
  ])('%s', (_, call, type) => {
    expect(call).toThrow(type);
  });

  it('cannot call a method on another object', () => {
    const { read } = addon.EventFd.prototype as unknown as { read: () => bigint };
    expect(() => read.call(rig.system as never)).toThrow(TypeError);
    expect(() => read.call({} as never)).toThrow(TypeError);
    expect(() => read.call(Object.create(addon.EventFd.prototype) as never)).toThrow(Error);
  });

  it('cannot make machines and vCPUs by their constructors', () => {
    const { vm, cpu, close } = rig.boot();
    const VmClass = vm.constructor as new (...args: unknown[]) => unknown;
    const VcpuClass = cpu.native.constructor as new (...args: unknown[]) => unknown;
    expect(() => new VmClass()).toThrow(TypeError);
    expect(() => new VmClass({})).toThrow(TypeError);
    expect(() => new VcpuClass({}, vm)).toThrow(TypeError);
    close();
  });
});
