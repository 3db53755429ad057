/**
 * A KVM virtual machine's file descriptor, typed: memory slots, interrupt controllers, PIT, routing, event descriptors,
 * dirty log, clock. Also the machine's fast ports and its posted ring, which the vCPU threads serve without JavaScript.
 */
import { ClockFlag, IoeventfdFlag, Irqchip, IrqfdFlag, RoutingType } from '../abi/kvm.js';
import {
  kvmClockData,
  kvmCoalescedMmioZone,
  kvmIrqLevel,
  kvmIrqRoutingIrqchip,
  kvmIrqRoutingMsi,
  kvmIrqchip,
  kvmMsi,
  kvmPitConfig,
  kvmPitState2,
  kvmReinjectControl,
  type KvmClockData,
  type KvmPitState2,
} from '../abi/kvm-structs.js';
import type { EventFd } from './event-fd.js';
import { loadBinding } from './binding.js';
import { PortFlag, type NativeMemory, type NativeVm } from './native.js';
import { KvmPit } from './pit.js';
import { PostedRing, type PostedAccess } from './posted-ring.js';
import { PortReadQueue } from './read-queue.js';
import { Vcpu } from './vcpu.js';

/** Where a GSI leads: a pin of an in-kernel controller (chip as in abi Irqchip), or a message. */
export type GsiRoute =
  | { readonly gsi: number; readonly chip: number; readonly pin: number }
  | { readonly gsi: number; readonly msi: { readonly address: bigint; readonly data: number } };

/** A pin of an in-kernel interrupt controller; chip as in abi Irqchip. */
export interface IrqchipPin {
  readonly chip: number;
  readonly pin: number;
}

/** Where the kernel routes GSI 0 until it is told otherwise. */
const ROUTES_OF_GSI_0: readonly IrqchipPin[] = [
  { chip: Irqchip.PIC_MASTER, pin: 0 },
  { chip: Irqchip.IOAPIC, pin: 0 },
];

export interface IoeventfdOptions {
  readonly address: number;
  /** 0 (any), 1, 2, 4 or 8 bytes. */
  readonly length: number;
  readonly space: 'port' | 'mmio';
  /** Signal only for this value. */
  readonly datamatch?: bigint;
}

export class Vm {
  readonly #native: NativeVm;
  readonly #posted: PostedRing;
  readonly #flags: Uint8Array;
  readonly #values: Uint8Array;
  readonly #vcpus: Vcpu[] = [];
  #pit: KvmPit | undefined;
  #gsi0: readonly IrqchipPin[] = ROUTES_OF_GSI_0;

  constructor(native: NativeVm) {
    this.#native = native;
    this.#posted = new PostedRing(native);
    this.#flags = new Uint8Array(native.portFlags);
    this.#values = new Uint8Array(native.portValues);
  }

  /** The addon's side of it, for what native code does with a machine. */
  get native(): NativeVm {
    return this.#native;
  }

  checkExtension(capability: number): number {
    return this.#native.checkExtension(capability);
  }

  /** KVM_ENABLE_CAP. @throws KvmError */
  enableCap(capability: number, args: readonly bigint[] = [], flags = 0): void {
    const values = new BigUint64Array(4);
    values.set(args.slice(0, 4));
    this.#native.enableCap(capability, flags, values);
  }

  /** Maps host memory at a guest physical address, on a worker thread: the first slot of a machine takes milliseconds. */
  async setMemorySlot(
    slot: number,
    address: number,
    memory: NativeMemory,
    offset: number,
    sizeBytes: number,
    flags = 0,
  ): Promise<void> {
    await this.#native.setMemorySlotAsync(slot, flags, address, memory, offset, sizeBytes);
  }

  /** Changes a slot's flags (dirty logging) or, with size 0, removes it; at once. */
  updateMemorySlot(
    slot: number,
    address: number,
    memory: NativeMemory,
    offset: number,
    sizeBytes: number,
    flags: number,
  ): void {
    this.#native.setMemorySlot(slot, flags, address, memory, offset, sizeBytes);
  }

  /** Three pages below 4 GiB for real-mode emulation on Intel; wanted before the first vCPU. */
  setTssAddress(address: number): void {
    this.#native.ioctlValue('KVM_SET_TSS_ADDR', address);
  }

  setIdentityMapAddress(address: number): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(address), true);
    this.#native.ioctl('KVM_SET_IDENTITY_MAP_ADDR', bytes);
  }

  /** PIC, IO-APIC and, with each vCPU, a local APIC in the kernel. */
  createIrqchip(): void {
    this.#native.ioctlValue('KVM_CREATE_IRQCHIP');
  }

  getIrqchip(chip: number): Uint8Array {
    const request = kvmIrqchip.encode({ chip_id: chip, pad: 0, chip: new Uint8Array(512) });
    return kvmIrqchip.decode(this.#native.ioctl('KVM_GET_IRQCHIP', request)).chip;
  }

  setIrqchip(chip: number, state: Uint8Array): void {
    this.#native.ioctl('KVM_SET_IRQCHIP', kvmIrqchip.encode({ chip_id: chip, pad: 0, chip: state }));
  }

  createPit(flags = 0): void {
    this.#native.ioctl('KVM_CREATE_PIT2', kvmPitConfig.encode({ flags, pad: new Array<number>(15).fill(0) }));
  }

  getPit(): KvmPitState2 {
    return kvmPitState2.decode(this.#native.ioctl('KVM_GET_PIT2'));
  }

  /** Reloads all three channels: every call restarts their periods. */
  setPit(state: KvmPitState2): void {
    this.#native.ioctl('KVM_SET_PIT2', kvmPitState2.encode(state));
  }

  /** On: the kernel replays ticks that the guest did not take. Off: they are gone. */
  setPitReinject(on: boolean): void {
    this.#native.ioctl(
      'KVM_REINJECT_CONTROL',
      kvmReinjectControl.encode({ pit_reinject: on ? 1 : 0, reserved: new Uint8Array(31) }),
    );
  }

  /**
   * Opens the PIT for steering, once: from now on acknowledged ticks are counted.
   *
   * @throws KvmError where there is no PIT; VmmError ERR_STATE when it is open already
   */
  openPit(): KvmPit {
    this.#pit = new KvmPit(this.#native.openPit(), this);
    return this.#pit;
  }

  /** The pins of in-kernel controllers that GSI 0, the PIT's, leads to. */
  get routesOfGsi0(): readonly IrqchipPin[] {
    return this.#gsi0;
  }

  /** Replaces the whole GSI routing table. */
  setGsiRouting(routes: readonly GsiRoute[]): void {
    const entries = routes.map((route) =>
      'msi' in route
        ? kvmIrqRoutingMsi.encode({
            gsi: route.gsi,
            type: RoutingType.MSI,
            flags: 0,
            pad: 0,
            address_lo: Number(route.msi.address & 0xffff_ffffn),
            address_hi: Number(route.msi.address >> 32n),
            data: route.msi.data,
            devid: 0,
            reserved: new Uint8Array(16),
          })
        : kvmIrqRoutingIrqchip.encode({
            gsi: route.gsi,
            type: RoutingType.IRQCHIP,
            flags: 0,
            pad: 0,
            irqchip: route.chip,
            pin: route.pin,
            reserved: new Uint8Array(24),
          }),
    );
    const bytes = new Uint8Array(entries.length * kvmIrqRoutingMsi.sizeBytes);
    entries.forEach((entry, index) => bytes.set(entry, index * entry.length));
    this.#native.setGsiRouting(bytes);
    this.#gsi0 = routes.flatMap((route) => (route.gsi === 0 && 'chip' in route ? [route] : []));
  }

  /** KVM_IRQ_LINE: drives an input of the in-kernel controllers. */
  setIrqLine(gsi: number, high: boolean): void {
    this.#native.ioctl('KVM_IRQ_LINE', kvmIrqLevel.encode({ irq: gsi, level: high ? 1 : 0 }));
  }

  /** KVM_SIGNAL_MSI: a message interrupt, as a device would write it. A guest that blocks it is no error. */
  signalMsi(address: bigint, data: number): void {
    this.#native.ioctl(
      'KVM_SIGNAL_MSI',
      kvmMsi.encode({
        address_lo: Number(address & 0xffff_ffffn),
        address_hi: Number(address >> 32n),
        data,
        flags: 0,
        devid: 0,
        pad: new Uint8Array(12),
      }),
    );
  }

  /** A signal of `trigger` raises the GSI; with `resample` the line is level: lowered at EOI, which signals `resample`. */
  irqfd(trigger: EventFd, gsi: number, resample?: EventFd): void {
    if (resample) this.#native.irqfd(trigger.native, gsi, IrqfdFlag.RESAMPLE, resample.native);
    else this.#native.irqfd(trigger.native, gsi, 0);
  }

  removeIrqfd(trigger: EventFd, gsi: number): void {
    this.#native.irqfd(trigger.native, gsi, IrqfdFlag.DEASSIGN);
  }

  /** A guest write to the address signals `event` without an exit to user space. */
  ioeventfd(event: EventFd, options: IoeventfdOptions): void {
    this.#ioeventfd(event, options, 0);
  }

  removeIoeventfd(event: EventFd, options: IoeventfdOptions): void {
    this.#ioeventfd(event, options, IoeventfdFlag.DEASSIGN);
  }

  #ioeventfd(event: EventFd, { address, length, space, datamatch }: IoeventfdOptions, flags: number): void {
    const all =
      flags | (space === 'port' ? IoeventfdFlag.PIO : 0) | (datamatch === undefined ? 0 : IoeventfdFlag.DATAMATCH);
    this.#native.ioeventfd(event.native, address, length, all, datamatch);
  }

  /** Writes to the zone stand in KVM's ring and reach the posted ring with the next exit, or within milliseconds. */
  registerCoalescedZone(zone: { address: number; sizeBytes: number; space: 'port' | 'mmio' }): void {
    this.#native.ioctl('KVM_REGISTER_COALESCED_MMIO', encodeZone(zone));
  }

  unregisterCoalescedZone(zone: { address: number; sizeBytes: number; space: 'port' | 'mmio' }): void {
    this.#native.ioctl('KVM_UNREGISTER_COALESCED_MMIO', encodeZone(zone));
  }

  /** Dirty pages of a slot since the last call (or the last clear, with manual protection): one bit a page. */
  getDirtyLog(slot: number, sizeBytes: number): BigUint64Array {
    return this.#native.getDirtyLog(slot, sizeBytes);
  }

  clearDirtyLog(slot: number, firstPage: number, pages: number, bitmap: BigUint64Array): void {
    this.#native.clearDirtyLog(slot, firstPage, pages, bitmap);
  }

  getClock(): KvmClockData {
    return kvmClockData.decode(this.#native.ioctl('KVM_GET_CLOCK'));
  }

  /** Sets kvmclock in ns; with `realtimeNs` the kernel adds what has passed since that host time. */
  setClock(clockNs: bigint, realtimeNs?: bigint): void {
    this.#native.ioctl(
      'KVM_SET_CLOCK',
      kvmClockData.encode({
        clock: clockNs,
        flags: realtimeNs === undefined ? 0 : ClockFlag.REALTIME,
        pad0: 0,
        realtime: realtimeNs ?? 0n,
        host_tsc: 0n,
        pad: [0, 0, 0, 0],
      }),
    );
  }

  /** Every counter of KVM_GET_STATS_FD by name. */
  stats(): Record<string, bigint | BigUint64Array> {
    return this.#native.stats();
  }

  createVcpu(id: number, threadName: string): Vcpu {
    const vcpu = new Vcpu(this.#native.createVcpu(id, threadName), () => this.drainPosted());
    this.#vcpus.push(vcpu);
    return vcpu;
  }

  // ---- fast ports ----

  /** One-byte reads of the port are answered with `value` by the vCPU's thread. */
  publishPort(port: number, value: number): void {
    this.#values[port] = value;
    this.#flags[port] = (this.#flags[port] ?? 0) | PortFlag.PUBLISHED;
  }

  withdrawPort(port: number): void {
    this.#flags[port] = (this.#flags[port] ?? 0) & ~PortFlag.PUBLISHED;
  }

  /** One-byte writes of the port are posted, or go the ordinary way again. */
  postPort(port: number, on: boolean): void {
    this.#setFlag(port, PortFlag.POSTED, on);
  }

  /** One-byte writes of the port are dropped by the vCPU's thread. */
  ignorePort(port: number, on: boolean): void {
    this.#setFlag(port, PortFlag.IGNORED, on);
  }

  /** A queue of bytes that one-byte reads of the port take on the vCPU's thread. @throws RangeError when none is left. */
  queuePort(port: number): PortReadQueue {
    const queue = new PortReadQueue(this.#native.readQueues, port);
    this.#setFlag(port, PortFlag.QUEUED, true);
    return queue;
  }

  #setFlag(port: number, flag: number, on: boolean): void {
    const flags = this.#flags[port] ?? 0;
    this.#flags[port] = on ? flags | flag : flags & ~flag;
  }

  /** Who takes posted writes. They arrive in order, before any later exit of the vCPU that made them. */
  onPosted(handler: (access: PostedAccess) => void): void {
    this.#posted.handler = handler;
    loadBinding().dispatcher.register(this.#native.sourceId, this, (vm) => vm.drainPosted());
  }

  drainPosted(): void {
    this.#posted.drain();
  }

  /** Reads KVM's coalesced ring now, and hands all posted writes over. */
  drainCoalesced(): void {
    this.#native.drainCoalesced();
    this.drainPosted();
  }

  /** Stops and joins the vCPU threads, closes all descriptors; the slow part runs on a worker thread. Idempotent. */
  async close(): Promise<void> {
    const { dispatcher } = loadBinding();
    dispatcher.unregister(this.#native.sourceId);
    for (const vcpu of this.#vcpus) vcpu.detach();
    this.#pit?.detach();
    await this.#native.closeAsync();
  }
}

function encodeZone(zone: { address: number; sizeBytes: number; space: 'port' | 'mmio' }): Uint8Array {
  return kvmCoalescedMmioZone.encode({
    addr: BigInt(zone.address),
    size: zone.sizeBytes,
    pio: zone.space === 'port' ? 1 : 0,
  });
}
