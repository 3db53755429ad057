/**
 * One virtual CPU, typed: its state while it is parked, and its life: resume, park, kick, and the exits that its thread
 * hands to JavaScript. The thread is native (native/thread/); nothing here waits for it.
 *
 *   parked --resume()--> running --exit--> (onExit, complete()) --> running --park()--> parked
 */
import { VmmError } from '../base/errors.js';
import {
  kvmDebugregs,
  kvmFpu,
  kvmLapicState,
  kvmMpState,
  kvmRegs,
  kvmSregs,
  kvmSregs2,
  kvmTranslation,
  kvmVcpuEvents,
  kvmXcrs,
  type KvmDebugregs,
  type KvmFpu,
  type KvmRegs,
  type KvmSregs,
  type KvmSregs2,
  type KvmVcpuEvents,
  type KvmXcrs,
} from '../abi/kvm-structs.js';
import { ExitReason, VcpuTscCtrl } from '../abi/kvm.js';
import { loadBinding } from './binding.js';
import { ExitDecoder, type VcpuExit } from './exits.js';
import { VcpuControl, VcpuState, type NativeVcpu } from './native.js';
import { decodeCpuid, encodeCpuid, type CpuidEntry } from './cpuid-rows.js';

/** An MSR and its value. */
export interface MsrEntry {
  readonly index: number;
  readonly value: bigint;
}

/** Counters of one vCPU's thread since it was created. */
export interface VcpuCounters {
  /** Returns of KVM_RUN. */
  readonly exits: bigint;
  /** Those that the thread answered by itself. */
  readonly answeredNatively: bigint;
  /** Those that JavaScript answered. */
  readonly answeredByScript: bigint;
  readonly kicks: bigint;
  /** Exits by their KVM_EXIT_*, as 'io' or 'internal-error'; those that there were. One that signals force has none. */
  readonly byReason: Readonly<Record<string, bigint>>;
  /** CPU time of the thread in ns. */
  readonly threadCpuNs: bigint;
}

const REASON_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(ExitReason).map(([name, reason]) => [reason, name.toLowerCase().replaceAll('_', '-')]),
);

/** What a machine wants to hear of a vCPU. Called on the JavaScript thread. */
export interface VcpuListener {
  /** The vCPU waits. Answer in the exit's `data`, then call `complete()`, now or later. */
  onExit(exit: VcpuExit): void;
  /** KVM_RUN itself failed; the vCPU will never run again. */
  onFailure(errno: number): void;
}

export class Vcpu {
  readonly id: number;
  readonly #native: NativeVcpu;
  readonly #decoder: ExitDecoder;
  readonly #state: Int32Array;
  readonly #counters: BigUint64Array;
  readonly #drainPosted: () => void;
  #listener: VcpuListener | undefined;
  #exitSeen = false;
  /** The exit that it is in will never be completed. */
  #abandoned = false;
  #closed = false;
  #parkRequests: (() => void)[] = [];
  #givenCpuid: readonly CpuidEntry[] | undefined;

  constructor(native: NativeVcpu, drainPosted: () => void) {
    this.id = native.id;
    this.#native = native;
    this.#decoder = new ExitDecoder(native.run);
    this.#state = new Int32Array(native.control);
    this.#counters = new BigUint64Array(native.control);
    this.#drainPosted = drainPosted;
    loadBinding().dispatcher.register(native.sourceId, this, (vcpu) => vcpu.#serve());
  }

  get listener(): VcpuListener | undefined {
    return this.#listener;
  }

  set listener(listener: VcpuListener | undefined) {
    this.#listener = listener;
  }

  get state(): 'parked' | 'running' | 'exit' | 'failed' | 'closed' {
    if (this.#closed) return 'closed';
    switch (Atomics.load(this.#state, VcpuControl.STATE / 4)) {
      case VcpuState.PARKED:
        return 'parked';
      case VcpuState.EXIT:
        return 'exit';
      case VcpuState.FAILED:
        return 'failed';
      default:
        return 'running';
    }
  }

  #serve(): void {
    const state = this.state;
    // What this vCPU posted came before its exit, so it is served before.
    this.#drainPosted();
    if (state === 'exit' && !this.#exitSeen) {
      this.#exitSeen = true;
      this.#listener?.onExit(this.#decoder.decode());
    } else if (state === 'failed') {
      this.#acknowledgeParked();
      this.#listener?.onFailure(Atomics.load(this.#state, VcpuControl.RUN_ERRNO / 4));
    } else if (state === 'parked') {
      this.#acknowledgeParked();
    }
  }

  #acknowledgeParked(): void {
    const waiting = this.#parkRequests;
    this.#parkRequests = [];
    for (const resolve of waiting) resolve();
  }

  /** The exit has been served: the vCPU goes on. */
  complete(): void {
    this.#exitSeen = false;
    this.#native.complete();
  }

  /** The exit is never completed: the vCPU stays in it for good, and whoever waits for it to park waits no longer. */
  abandonExit(): void {
    if (this.state !== 'exit') return;
    this.#abandoned = true;
    this.#acknowledgeParked();
  }

  /** Starts the thread, or un-parks it; a request to park that is on its way is taken back. */
  resume(): void {
    this.#native.resume();
    this.#acknowledgeParked();
  }

  /**
   * Takes the vCPU out of KVM_RUN and parks it; resolves when it has acknowledged. A pending port or MMIO access is
   * completed first, so that the registers are whole. A vCPU whose exit was abandoned counts as parked.
   */
  park(): Promise<void> {
    if (this.#abandoned || this.#closed || this.state === 'parked' || this.state === 'failed') return Promise.resolve();
    return new Promise((resolve) => {
      this.#parkRequests.push(resolve);
      if (this.#parkRequests.length === 1) this.#native.park();
    });
  }

  /** Forces one return from KVM_RUN. */
  kick(): void {
    this.#native.kick();
  }

  counters(): VcpuCounters {
    const at = (offset: number): bigint => Atomics.load(this.#counters, offset / 8);
    return {
      exits: at(VcpuControl.EXITS),
      answeredNatively: at(VcpuControl.EXITS_NATIVE),
      answeredByScript: at(VcpuControl.EXITS_SCRIPT),
      kicks: at(VcpuControl.KICKS),
      byReason: this.#byReason(),
      threadCpuNs: this.#native.threadCpuNs(),
    };
  }

  #byReason(): Record<string, bigint> {
    const counts: Record<string, bigint> = {};
    for (let reason = 0; reason < VcpuControl.REASON_SLOTS; reason++) {
      const count = Atomics.load(this.#counters, VcpuControl.REASONS / 8 + reason);
      if (count > 0n) counts[REASON_NAMES.get(reason) ?? `reason-${reason}`] = count;
    }
    return counts;
  }

  get threadId(): number {
    return this.#native.threadId;
  }

  /** Called by the machine's close, which then joins the thread. */
  detach(): void {
    this.#closed = true;
    loadBinding().dispatcher.unregister(this.#native.sourceId);
    this.#acknowledgeParked();
    this.#listener = undefined;
  }

  // ---- state: while parked, or in an exit; otherwise VmmError ERR_STATE ----

  getRegs(): KvmRegs {
    return kvmRegs.decode(this.#native.ioctl('KVM_GET_REGS'));
  }

  setRegs(regs: KvmRegs): void {
    this.#native.ioctl('KVM_SET_REGS', kvmRegs.encode(regs));
  }

  getSregs(): KvmSregs {
    return kvmSregs.decode(this.#native.ioctl('KVM_GET_SREGS'));
  }

  setSregs(sregs: KvmSregs): void {
    this.#native.ioctl('KVM_SET_SREGS', kvmSregs.encode(sregs));
  }

  /** With the PDPTEs; needs KVM_CAP_SREGS2. */
  getSregs2(): KvmSregs2 {
    return kvmSregs2.decode(this.#native.ioctl('KVM_GET_SREGS2'));
  }

  setSregs2(sregs: KvmSregs2): void {
    this.#native.ioctl('KVM_SET_SREGS2', kvmSregs2.encode(sregs));
  }

  getFpu(): KvmFpu {
    return kvmFpu.decode(this.#native.ioctl('KVM_GET_FPU'));
  }

  setFpu(fpu: KvmFpu): void {
    this.#native.ioctl('KVM_SET_FPU', kvmFpu.encode(fpu));
  }

  /** The whole XSAVE area in the size that this VM reports (KVM_CAP_XSAVE2). */
  getXsave(): Uint8Array {
    return this.#native.getXsave();
  }

  setXsave(area: Uint8Array): void {
    this.#native.setXsave(area);
  }

  getXcrs(): KvmXcrs {
    return kvmXcrs.decode(this.#native.ioctl('KVM_GET_XCRS'));
  }

  setXcrs(xcrs: KvmXcrs): void {
    this.#native.ioctl('KVM_SET_XCRS', kvmXcrs.encode(xcrs));
  }

  getDebugregs(): KvmDebugregs {
    return kvmDebugregs.decode(this.#native.ioctl('KVM_GET_DEBUGREGS'));
  }

  setDebugregs(debugregs: KvmDebugregs): void {
    this.#native.ioctl('KVM_SET_DEBUGREGS', kvmDebugregs.encode(debugregs));
  }

  getEvents(): KvmVcpuEvents {
    return kvmVcpuEvents.decode(this.#native.ioctl('KVM_GET_VCPU_EVENTS'));
  }

  setEvents(events: KvmVcpuEvents): void {
    this.#native.ioctl('KVM_SET_VCPU_EVENTS', kvmVcpuEvents.encode(events));
  }

  /** True when an NMI is injected or pending. */
  hasPendingNmi(): boolean {
    const { nmi } = this.getEvents();
    return nmi.pending !== 0 || nmi.injected !== 0;
  }

  /** One of abi MpState. */
  getMpState(): number {
    return kvmMpState.decode(this.#native.ioctl('KVM_GET_MP_STATE')).mp_state;
  }

  setMpState(state: number): void {
    this.#native.ioctl('KVM_SET_MP_STATE', kvmMpState.encode({ mp_state: state }));
  }

  /** The local APIC's register page, 1024 bytes. */
  getLapic(): Uint8Array {
    return kvmLapicState.decode(this.#native.ioctl('KVM_GET_LAPIC')).regs;
  }

  setLapic(registers: Uint8Array): void {
    this.#native.ioctl('KVM_SET_LAPIC', kvmLapicState.encode({ regs: registers }));
  }

  /** @throws KvmError whose detail names the index that was refused. */
  readMsrs(indices: readonly number[]): MsrEntry[] {
    const values = this.#native.readMsrs(Uint32Array.from(indices));
    return indices.map((index, at) => ({ index, value: values[at] ?? 0n }));
  }

  /** @throws KvmError whose detail names the index that was refused; those before it are written. */
  writeMsrs(entries: readonly MsrEntry[]): void {
    this.#native.writeMsrs(
      Uint32Array.from(entries, (entry) => entry.index),
      BigUint64Array.from(entries, (entry) => entry.value),
    );
  }

  getCpuid(): CpuidEntry[] {
    return decodeCpuid(this.#native.getCpuid());
  }

  setCpuid(entries: readonly CpuidEntry[]): void {
    this.#native.setCpuid(encodeCpuid(entries));
    this.#givenCpuid = entries;
  }

  /**
   * The table that this vCPU was given. KVM's own differs in what follows other registers, and where the guest's CPUID does not
   * trap (kvm-pvm), in features of the host's that it was not given.
   */
  get givenCpuid(): readonly CpuidEntry[] {
    return this.#givenCpuid ?? this.getCpuid();
  }

  /** The guest's TSC frequency in kHz. */
  getTscKhz(): number {
    return this.#native.ioctlValue('KVM_GET_TSC_KHZ');
  }

  setTscKhz(khz: number): void {
    this.#native.ioctlValue('KVM_SET_TSC_KHZ', khz);
  }

  /** Host TSC + offset = guest TSC (modulo 2^64). Needs the vCPU attribute of Linux 5.16. */
  getTscOffset(): bigint {
    return this.#native.getDeviceAttr(VcpuTscCtrl.GROUP, VcpuTscCtrl.OFFSET);
  }

  setTscOffset(offset: bigint): void {
    this.#native.setDeviceAttr(VcpuTscCtrl.GROUP, VcpuTscCtrl.OFFSET, offset);
  }

  /** Tells the guest's watchdogs, through kvmclock, that the host stopped it. EINVAL when it uses no kvmclock. */
  kvmclockControl(): void {
    this.#native.ioctlValue('KVM_KVMCLOCK_CTRL');
  }

  /** Guest virtual to guest physical address, by the vCPU's present page tables; undefined when not mapped. */
  translate(linearAddress: bigint): { gpa: bigint; writable: boolean; user: boolean } | undefined {
    const request = kvmTranslation.encode({
      linear_address: linearAddress,
      physical_address: 0n,
      valid: 0,
      writeable: 0,
      usermode: 0,
      pad: new Uint8Array(5),
    });
    const answer = kvmTranslation.decode(this.#native.ioctl('KVM_TRANSLATE', request));
    if (answer.valid === 0) return undefined;
    return { gpa: answer.physical_address, writable: answer.writeable !== 0, user: answer.usermode !== 0 };
  }

  stats(): Record<string, bigint | BigUint64Array> {
    return this.#native.stats();
  }

  /** One of {@link stats}, read alone, while the vCPU runs or not; undefined where this KVM has none of that name. */
  stat(name: string): bigint | undefined {
    return this.#native.stat(name);
  }

  /** @throws VmmError ERR_STATE when the vCPU is running: its state can't be read. */
  requireStill(): void {
    if (this.state === 'running') throw new VmmError('ERR_STATE', `vCPU ${this.id} is running`);
  }
}
