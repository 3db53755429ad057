/**
 * Real-mode guests on lib/kvm alone, for the tests of the PIT's steering: no devices, and exits that wait until the test
 * takes them.
 */
import { onTestFinished } from 'vitest';
import { PIT_SPEAKER_DUMMY, TSS_ADDRESS } from '../../lib/abi/kvm.js';
import { loadBinding } from '../../lib/kvm/binding.js';
import { Kvm, type KvmPit, type Vcpu, type VcpuExit, type Vm } from '../../lib/kvm/index.js';

const MEMORY_BYTES = 0x80000;

export interface PitCpu {
  readonly vcpu: Vcpu;
  /** The exit that waits, when there is one. */
  nextExit(): Promise<VcpuExit>;
}

export interface PitRig {
  readonly vm: Vm;
  readonly pit: KvmPit;
  readonly memory: DataView;
  readonly cpus: readonly PitCpu[];
  readonly cpu: PitCpu;
  addCpu(): PitCpu;
  close(): Promise<void>;
}

/** Every vCPU starts at 0x1000 with segments at 0, but FS at the IO-APIC and GS at the local APIC; interrupts off. */
export async function bootPit(code: ArrayLike<number>, { vcpus = 1 } = {}): Promise<PitRig> {
  const kvm = Kvm.open();
  const vm = await kvm.createVm();
  vm.setTssAddress(TSS_ADDRESS);
  vm.createIrqchip();
  vm.createPit(PIT_SPEAKER_DUMMY);
  const memory = new (loadBinding().addon.Memory)({ sizeBytes: MEMORY_BYTES, backing: 'anonymous', hugePages: false });
  await vm.setMemorySlot(0, 0, memory, 0, MEMORY_BYTES);
  const view = memory.view(0, MEMORY_BYTES);
  new Uint8Array(view).set(code, 0x1000);
  const cpus: PitCpu[] = [];
  const addCpu = (): PitCpu => {
    const cpu = makeCpu(vm, cpus.length);
    cpus.push(cpu);
    return cpu;
  };
  for (let id = 0; id < vcpus; id++) addCpu();
  let closed: Promise<void> | undefined;
  const rig = {
    vm,
    pit: vm.openPit(),
    memory: new DataView(view),
    cpus,
    cpu: cpus[0]!,
    addCpu,
    close: () =>
      (closed ??= vm.close().then(() => {
        memory.close();
        kvm.close();
      })),
  };
  onTestFinished(() => rig.close());
  return rig;
}

function makeCpu(vm: Vm, id: number): PitCpu {
  const vcpu = vm.createVcpu(id, `pit-vcpu-${id}`);
  const sregs = vcpu.getSregs();
  const real = { base: 0n, selector: 0 };
  vcpu.setSregs({
    ...sregs,
    cs: { ...sregs.cs, ...real },
    ds: { ...sregs.ds, ...real },
    es: { ...sregs.es, ...real },
    ss: { ...sregs.ss, ...real },
    fs: { ...sregs.fs, ...real, base: 0xfec0_0000n },
    gs: { ...sregs.gs, ...real, base: 0xfee0_0000n },
  });
  vcpu.setRegs({ ...vcpu.getRegs(), rip: 0x1000n, rsp: 0x7000n - BigInt(id) * 0x800n, rflags: 2n });
  // Without a SIPI: further vCPUs start as the first does.
  if (id > 0) vcpu.setMpState(0);
  let waiting: VcpuExit | undefined;
  let wanted: ((exit: VcpuExit) => void) | undefined;
  vcpu.listener = {
    onExit(exit) {
      if (wanted) wanted(exit);
      else waiting = exit;
      wanted = undefined;
    },
    onFailure(errno) {
      throw new Error(`KVM_RUN failed with errno ${errno}`);
    },
  };
  return {
    vcpu,
    nextExit() {
      const exit = waiting;
      waiting = undefined;
      return exit ? Promise.resolve(exit) : new Promise((resolve) => (wanted = resolve));
    },
  };
}
