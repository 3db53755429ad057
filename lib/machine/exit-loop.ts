/**
 * What happens with a vCPU's exit: decoded by kvm/exits, it is a port or memory access that the bus answers, now or
 * later, or the end of the machine. The vCPU goes on when its access is answered. Posted writes come the same way,
 * without a vCPU that waits. Nothing here blocks, and nothing a guest does throws.
 *
 * It lives as long as its board's power cycle: after end() no vCPU goes on, not even by the one instruction after the
 * access that ended it, and answers that come late go nowhere.
 */
import { exitChannel, type ExitProbe } from '../base/probes.js';
import type { AccessResult, AddressBus, DeviceFault } from '../bus/index.js';
import type { Vcpu, VcpuExit, Vm } from '../kvm/index.js';

/** The end of a vCPU's way, told to the machine. The vCPU stays where it is, so that its state can be read. */
export interface ExitLoopListener {
  /** An exit that ends the machine: triple fault, internal error, and what else no guest survives. */
  onFatalExit(vcpu: Vcpu, exit: VcpuExit): void;
  /** A device of ours failed. */
  onFault(fault: DeviceFault): void;
  /** KVM_RUN itself failed with this errno. */
  onRunFailure(vcpu: Vcpu, errno: number): void;
}

/** What the loop takes of a vCPU. */
export type ExitingVcpu = Pick<Vcpu, 'complete' | 'abandonExit'> & { listener: Vcpu['listener'] };

export interface ExitLoopOptions<V extends ExitingVcpu = Vcpu> {
  /** Its name, for probes. */
  readonly machine?: string;
  readonly vm: Pick<Vm, 'onPosted'>;
  readonly vcpus: readonly V[];
  readonly ports: Pick<AddressBus, 'access' | 'write'>;
  readonly mmio: Pick<AddressBus, 'access' | 'write'>;
  readonly listener: {
    onFatalExit(vcpu: V, exit: VcpuExit): void;
    onFault(fault: DeviceFault): void;
    onRunFailure(vcpu: V, errno: number): void;
  };
}

export class ExitLoop<V extends ExitingVcpu = Vcpu> {
  readonly #options: ExitLoopOptions<V>;
  #over = false;

  /** Takes the exits of a machine's vCPUs and its posted writes from now on. */
  constructor(options: ExitLoopOptions<V>) {
    this.#options = options;
    const { vm, vcpus, ports, mmio, listener } = options;
    vcpus.forEach((vcpu, cpu) => {
      vcpu.listener = {
        onExit: (exit) => this.#onExit(vcpu, cpu, exit),
        onFailure: (errno) => {
          if (!this.#over) listener.onRunFailure(vcpu, errno);
        },
      };
    });
    vm.onPosted((access) => {
      const bus = access.space === 'port' ? ports : mmio;
      const value = access.sizeBytes === 8 ? access.wide : access.value;
      this.#settle(bus.write(access.address, access.sizeBytes, value), () => undefined);
    });
  }

  /** The power cycle is over. Nobody waits any longer for a vCPU in an exit to park: it stays there. */
  end(): void {
    this.#over = true;
    for (const vcpu of this.#options.vcpus) vcpu.abandonExit();
  }

  #onExit(vcpu: V, cpu: number, exit: VcpuExit): void {
    const { ports, mmio, listener } = this.#options;
    if (this.#over) {
      // It left the guest while the end was on its way to it.
      vcpu.abandonExit();
      return;
    }
    if (exitChannel.hasSubscribers) exitChannel.publish(probeOf(this.#options.machine, cpu, exit));
    const complete = (): void => {
      if (!this.#over) vcpu.complete();
    };
    if (exit.kind === 'port') {
      this.#settle(ports.access(exit.port, exit.size, exit.count, exit.isWrite, exit.data), complete);
    } else if (exit.kind === 'mmio') {
      this.#settle(mmio.access(exit.gpa, exit.data.length, 1, exit.isWrite, exit.data), complete);
    } else {
      listener.onFatalExit(vcpu, exit);
    }
  }

  #settle(result: AccessResult, done: () => void): void {
    if (result === undefined) done();
    else if (result instanceof Promise) void result.then((fault) => this.#settle(fault, done));
    else if (!this.#over) this.#options.listener.onFault(result);
  }
}

function probeOf(machine: string | undefined, cpu: number, exit: VcpuExit): ExitProbe {
  const { kind } = exit;
  const address = kind === 'port' ? exit.port : kind === 'mmio' ? exit.gpa : undefined;
  const isWrite = kind === 'port' || kind === 'mmio' ? exit.isWrite : undefined;
  return { machine, cpu, kind, address, isWrite };
}
