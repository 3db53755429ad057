/**
 * One power cycle of a machine: the KVM machine with its CPUs, memory slots, interrupt routing, bus and chipset, and the
 * boot image loaded. A reset that restarts makes a new board on the same memory. `machine.ts` owns it and its life;
 * the board itself decides nothing.
 */
import { Cap, IDENTITY_MAP_ADDRESS, Irqchip, MpState, PIT_SPEAKER_DUMMY, TSS_ADDRESS } from '../abi/kvm.js';
import { AbortError, VmmError } from '../base/errors.js';
import { PAGE_SIZE } from '../base/units.js';
import { buildAcpi, cpuidForVcpu, initialMsrs, loadBoot, type CpuState } from '../boot/index.js';
import { AddressBus } from '../bus/index.js';
import { PcChipset, type ChipsetListener, type RtcBattery } from '../chipset/index.js';
import { type GsiRoute, type Kvm, type KvmPit, type Vcpu, type Vm } from '../kvm/index.js';
import type { AddressSpace } from '../memory/index.js';
import { makeSplitQueue, type VirtioDevice } from '../vdp/index.js';
import { ExitLoop, type ExitLoopListener } from './exit-loop.js';
import type { MachineConfig } from './options.js';
import { PciBus } from './pci-bus.js';

/** What a board tells its machine. */
export type BoardListener = ExitLoopListener & ChipsetListener;

interface BoardParts {
  readonly vm: Vm;
  readonly vcpus: Vcpu[];
  readonly ports: AddressBus;
  readonly mmio: AddressBus;
  readonly chipset: PcChipset;
  readonly pit: KvmPit;
  readonly exits: ExitLoop;
  readonly pci: PciBus | undefined;
}

export class Board {
  readonly vm: Vm;
  readonly vcpus: readonly Vcpu[];
  readonly ports: AddressBus;
  readonly mmio: AddressBus;
  readonly chipset: PcChipset;
  readonly pit: KvmPit;
  readonly #exits: ExitLoop;
  /** Absent where there is nobody to find it: in a machine with a flat image and no devices of this bus. */
  readonly pci: PciBus | undefined;
  #closing: Promise<void> | undefined;

  private constructor(parts: BoardParts) {
    this.vm = parts.vm;
    this.vcpus = parts.vcpus;
    this.ports = parts.ports;
    this.mmio = parts.mmio;
    this.chipset = parts.chipset;
    this.pit = parts.pit;
    this.#exits = parts.exits;
    this.pci = parts.pci;
  }

  /**
   * Builds everything; what was built is closed again when a later step fails.
   *
   * @throws KvmError, SystemError, VmmError ERR_KERNEL_IMAGE, AbortError.
   */
  static async create(
    kvm: Kvm,
    config: MachineConfig,
    memory: AddressSpace,
    listener: BoardListener,
    options: {
      readonly battery: RtcBattery;
      readonly proxies: () => VirtioDevice[];
      /** It gets its state from a snapshot (state/board-state.ts): no image is loaded, and the CPUs are left as KVM makes them. */
      readonly blank?: boolean;
      /** KVM notes from the beginning which pages are written. */
      readonly logDirty?: boolean;
      readonly signal?: AbortSignal | undefined;
    },
  ): Promise<Board> {
    const { battery, blank = false, logDirty = false, signal } = options;
    const vm = await kvm.createVm();
    let pci: PciBus | undefined;
    let devices: readonly VirtioDevice[] = [];
    let attached: Promise<void> | undefined;
    try {
      signalCheck(signal);
      if (vm.checkExtension(Cap.SET_TSS_ADDR) > 0) vm.setTssAddress(TSS_ADDRESS);
      if (vm.checkExtension(Cap.SET_IDENTITY_MAP_ADDR) > 0) vm.setIdentityMapAddress(IDENTITY_MAP_ADDRESS);
      // The controllers come before the first vCPU, so that each gets its local APIC in the kernel.
      vm.createIrqchip();
      // The kernel's PIT answers port 0x61 as well, since its channel 2 is gated there.
      vm.createPit(PIT_SPEAKER_DUMMY);
      const wiring = pcRouting();
      vm.setGsiRouting(wiring);
      const pit = vm.openPit();
      // Half of all the time that a machine takes to make, on a worker thread: the rest goes on beside it.
      attached = memory.attach(vm, { logDirty });
      attached.catch(() => undefined);

      const ports = new AddressBus({ space: 'port', clock: config.clock, logger: config.logger });
      const mmio = new AddressBus({ space: 'mmio', clock: config.clock, logger: config.logger });
      const chipset = new PcChipset({
        ports,
        clock: config.clock,
        logger: config.logger,
        irqLine: (gsi) => ({ set: (high) => vm.setIrqLine(gsi, high) }),
        fast: {
          publish: (port, value) => vm.publishPort(port, value),
          withdraw: (port) => vm.withdrawPort(port),
          post: (port, on) => vm.postPort(port, on),
          ignore: (port, on) => vm.ignorePort(port, on),
          queue: (port) => vm.queuePort(port),
        },
        memory,
        battery,
        debugExit: config.debugExit,
        listener,
      });

      for (const { firstPort, portCount, device } of config.portDevices) {
        ports.add({ first: firstPort, length: portCount }, device);
      }

      devices = [...options.proxies(), ...config.virtioDevices()];
      if (!('flat' in config.boot) || devices.length > 0) {
        pci = new PciBus({
          vm,
          wiring,
          ports,
          mmio,
          memory,
          clock: config.clock,
          logger: config.logger,
          makeQueue: makeSplitQueue,
          devices,
          onFault: (fault) => listener.onFault(fault),
        });
      }

      const vcpus = Array.from({ length: config.cpus }, (_, id) =>
        vm.createVcpu(id, `${config.name.slice(0, 9)}:cpu${id}`),
      );
      if (!blank) await boot(kvm, config, memory, { vcpus, chipset, pci, signal });
      await attached;
      signalCheck(signal);
      const exits = new ExitLoop({ machine: config.name, vm, vcpus, ports, mmio, listener });
      return new Board({ vm, vcpus, ports, mmio, chipset, pit, pci, exits });
    } catch (error) {
      await attached?.catch(() => undefined);
      if (pci) await pci.close();
      else for (const device of devices) device.close();
      await vm.close();
      throw error;
    }
  }

  resume(): void {
    for (const vcpu of this.vcpus) vcpu.resume();
  }

  /** Every vCPU out of KVM_RUN, its pending access completed, and parked. */
  async park(): Promise<void> {
    await Promise.all(this.vcpus.map((vcpu) => vcpu.park()));
    if (!this.isClosed) this.vm.drainCoalesced();
  }

  /** A vCPU is in an exit that a device has not answered yet. */
  get isBeingServed(): boolean {
    return this.vcpus.some((vcpu) => vcpu.state === 'exit');
  }

  /**
   * The power cycle is over: no vCPU goes on from an exit, and park() waits for none that is in one. The exit of one of
   * them may be the end itself, which nobody will complete.
   */
  end(): void {
    this.#exits.end();
  }

  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  /** The memory may go when this has resolved: devices have let go of it, threads are joined. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.chipset.close();
    // Devices first: their interrupts and doorbells are the KVM machine's.
    await this.pci?.close();
    await this.vm.close();
  }
}

/** What firmware and loader would have done: the image and its tables in memory, the CPUs at its entry. */
async function boot(
  kvm: Kvm,
  config: MachineConfig,
  memory: AddressSpace,
  parts: Pick<BoardParts, 'vcpus' | 'chipset' | 'pci'> & { readonly signal: AbortSignal | undefined },
): Promise<void> {
  const { vcpus, chipset, pci, signal } = parts;
  const entry = await loadBoot(memory, config.boot, {
    reserved: [{ gpa: IDENTITY_MAP_ADDRESS, sizeBytes: TSS_ADDRESS - IDENTITY_MAP_ADDRESS + 3 * PAGE_SIZE }],
    memoryIsZero: true,
  });
  signalCheck(signal);
  for (const note of entry.notes) config.logger.log('info', note);
  if (entry.kind !== 'flat') {
    buildAcpi(memory, { cpus: config.cpus, contributors: [...chipset.acpi, ...(pci ? [pci.acpi] : [])] });
    chipset.generation.begin();
  }
  setUpCpus(kvm, vcpus, entry.state, entry.kind === 'flat');
}

function signalCheck(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortError(signal);
}

/**
 * A PC's wiring: ISA interrupts reach the PICs and the IO-APIC, and IRQ 0 the IO-APIC's pin 2 as the MADT says; pins 16
 * to 23 are the IO-APIC's alone.
 */
export function pcRouting(): GsiRoute[] {
  const routes: GsiRoute[] = [];
  for (let gsi = 0; gsi < 24; gsi++) {
    if (gsi < 8) routes.push({ gsi, chip: Irqchip.PIC_MASTER, pin: gsi });
    else if (gsi < 16) routes.push({ gsi, chip: Irqchip.PIC_SLAVE, pin: gsi - 8 });
    // The PICs' cascade sits on IRQ 2, so IRQ 0 can have the pin.
    if (gsi === 0) routes.push({ gsi, chip: Irqchip.IOAPIC, pin: 2 });
    else if (gsi !== 2) routes.push({ gsi, chip: Irqchip.IOAPIC, pin: gsi });
  }
  return routes;
}

function setUpCpus(kvm: Kvm, vcpus: readonly Vcpu[], state: CpuState, flat: boolean): void {
  const supported = kvm.supportedCpuid();
  const tscDeadline = kvm.checkExtension(Cap.TSC_DEADLINE_TIMER) > 0;
  for (const vcpu of vcpus) {
    vcpu.setCpuid(cpuidForVcpu(supported, { id: vcpu.id, count: vcpus.length, tscDeadline }));
    const sregs = vcpu.getSregs();
    if (vcpu.id === 0) {
      vcpu.setSregs({ ...sregs, ...state.sregs });
      vcpu.setRegs(state.regs);
    } else if (vcpu.getMpState() !== MpState.UNINITIALIZED) {
      vcpu.setMpState(MpState.UNINITIALIZED);
    }
    if (!flat) writeBootMsrs(kvm, vcpu);
  }
}

/** Writes the MSRs that firmware would; those this KVM does not know are left out, others must be taken. */
function writeBootMsrs(kvm: Kvm, vcpu: Vcpu): void {
  const known = new Set(kvm.msrIndices());
  for (const entry of initialMsrs()) {
    if (entry.optional && !known.has(entry.index)) continue;
    try {
      vcpu.writeMsrs([entry]);
    } catch (cause) {
      if (entry.optional) continue;
      throw new VmmError('ERR_KVM_CAPABILITY', `MSR 0x${entry.index.toString(16)} was refused`, { cause });
    }
  }
}
