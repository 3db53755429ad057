/**
 * What happens with a vCPU's exit: decoded by kvm/exits, it is a port or memory access that the bus answers, now or
 * later, or the end of the machine. The vCPU goes on when its access is answered. Posted writes come the same way,
 * without a vCPU that waits. Nothing here blocks, and nothing a guest does throws.
 */
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
  /** The machine has ended: no vCPU goes on, not even by the one instruction after the access that ended it. */
  isOver(): boolean;
}

export interface ExitLoopOptions {
  readonly ports: AddressBus;
  readonly mmio: AddressBus;
  readonly listener: ExitLoopListener;
}

/** Takes the exits of a machine's vCPUs and its posted writes. */
export function attachExitLoop(vm: Vm, vcpus: readonly Vcpu[], options: ExitLoopOptions): void {
  const { ports, mmio, listener } = options;
  for (const vcpu of vcpus) {
    const complete = (): void => {
      if (!listener.isOver()) vcpu.complete();
    };
    vcpu.listener = {
      onExit(exit) {
        if (exit.kind === 'port') {
          settle(ports.access(exit.port, exit.size, exit.count, exit.isWrite, exit.data), listener, complete);
        } else if (exit.kind === 'mmio') {
          settle(mmio.access(exit.gpa, exit.data.length, 1, exit.isWrite, exit.data), listener, complete);
        } else {
          listener.onFatalExit(vcpu, exit);
        }
      },
      onFailure: (errno) => listener.onRunFailure(vcpu, errno),
    };
  }
  vm.onPosted((access) => {
    const bus = access.space === 'port' ? ports : mmio;
    const value = access.sizeBytes === 8 ? access.wide : access.value;
    settle(bus.write(access.address, access.sizeBytes, value), listener, () => undefined);
  });
}

function settle(result: AccessResult, listener: ExitLoopListener, done: () => void): void {
  if (result === undefined) done();
  else if (result instanceof Promise) void result.then((fault) => settle(fault, listener, done));
  else listener.onFault(result);
}
