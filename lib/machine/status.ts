/**
 * How a machine ended, and how that is told: the status that `wait()` resolves to, and the report of a crash.
 */
import type { KvmRegs } from '../abi/kvm-structs.js';
import type { Vcpu, VcpuExit } from '../kvm/index.js';
import { InternalError } from '../abi/kvm.js';
import { errnoName, KvmError, type VmmError } from '../base/errors.js';

export type MachineState = 'created' | 'running' | 'paused' | 'stopped' | 'failed';

export type EndReason =
  | 'poweroff' // the guest switched itself off (ACPI S5)
  | 'reset' // the guest reset itself, and onReset is 'end'
  | 'halted' // every CPU is halted with interrupts off
  | 'crash' // a triple fault, or an internal error of KVM
  | 'panic' // the guest's kernel said that it panicked
  | 'debug-exit' // a byte was written to port 0xf4
  | 'killed' // kill() or close()
  | 'failed'; // vivarium or the host failed

export interface EndStatus {
  readonly reason: EndReason;
  /** The byte of the debug exit. */
  readonly code?: number;
  /** What happened, for people: for a crash with RIP, the instruction's bytes and the registers. */
  readonly detail?: string;
  /** For 'failed': what failed. */
  readonly error?: VmmError;
}

const hex = (value: bigint | number, digits = 16): string => `0x${value.toString(16).padStart(digits, '0')}`;

const bytesText = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');

/** Registers in the order in which people look for them, four a line. */
export function formatRegisters(regs: KvmRegs): string {
  const names = [
    ['rip', 'rflags', 'rsp', 'rbp'],
    ['rax', 'rbx', 'rcx', 'rdx'],
    ['rsi', 'rdi', 'r8', 'r9'],
    ['r10', 'r11', 'r12', 'r13'],
    ['r14', 'r15'],
  ] as const;
  return names.map((line) => line.map((name) => `${name}=${hex(regs[name])}`).join(' ')).join('\n');
}

type ReadCode = (gpa: number, length: number) => Uint8Array | undefined;

/**
 * The report of a crash: what KVM said, where the vCPU stood, what it was about to execute.
 * `readCode` reads guest memory at a guest physical address; undefined when it can't.
 */
export function crashDetail(exit: VcpuExit, vcpu: Vcpu, readCode: ReadCode): string {
  const instruction = exit.kind === 'internal-error' ? exit.instruction : undefined;
  return stateDetail(`vCPU ${vcpu.id}: ${describeExit(exit)}`, vcpu, readCode, instruction);
}

/** KVM_RUN itself failed, as an error that names the vCPU and the errno. */
export function runFailure(vcpu: Vcpu, errno: number): KvmError {
  return new KvmError('KVM_RUN', errnoName(errno), errno, `vCPU ${vcpu.id}`);
}

/** `headline`, and below it where the vCPU stood. */
export function stateDetail(headline: string, vcpu: Vcpu, readCode: ReadCode, instruction?: Uint8Array): string {
  const lines = [headline];
  try {
    const regs = vcpu.getRegs();
    const sregs = vcpu.getSregs();
    const linear = (sregs.cs.base + regs.rip) & 0xffff_ffff_ffff_ffffn;
    const page = instruction ? undefined : vcpu.translate(linear);
    const code = instruction ?? (page ? readCode(Number(page.gpa), 16) : undefined);
    lines.push(`instruction at ${hex(linear)}: ${code ? bytesText(code) : 'its page is not mapped'}`);
    lines.push(formatRegisters(regs));
    lines.push(
      `cr0=${hex(sregs.cr0)} cr2=${hex(sregs.cr2)} cr3=${hex(sregs.cr3)} cr4=${hex(sregs.cr4)} efer=${hex(sregs.efer)}`,
      `cs=${hex(sregs.cs.selector, 4)} base=${hex(sregs.cs.base)} idt=${hex(sregs.idt.base)} limit=${hex(sregs.idt.limit, 4)}`,
    );
  } catch (error) {
    lines.push(`its registers could not be read: ${String(error)}`);
  }
  return lines.join('\n');
}

/** One line on an exit that ends a machine. */
export function describeExit(exit: VcpuExit): string {
  switch (exit.kind) {
    case 'shutdown':
      return 'triple fault (KVM_EXIT_SHUTDOWN)';
    case 'internal-error': {
      const names = new Map<number, string>([
        [InternalError.EMULATION, 'an instruction that it cannot emulate'],
        [InternalError.SIMUL_EX, 'two exceptions at once'],
        [InternalError.DELIVERY_EV, 'an exit while it delivered an event'],
        [InternalError.UNEXPECTED_EXIT_REASON, 'an unexpected exit'],
      ]);
      const data = exit.data.map((word) => hex(word, 1)).join(' ');
      return `KVM_EXIT_INTERNAL_ERROR, suberror ${exit.suberror} (${names.get(exit.suberror) ?? 'unknown'}), data ${data}`;
    }
    case 'fail-entry':
      return `KVM_EXIT_FAIL_ENTRY, hardware reason ${hex(exit.hardwareReason, 1)} on CPU ${exit.cpu}`;
    case 'unknown':
      return `KVM_EXIT_UNKNOWN, hardware reason ${hex(exit.hardwareReason, 1)}`;
    case 'system-event':
      return `KVM_EXIT_SYSTEM_EVENT, type ${exit.type}`;
    case 'unsupported':
      return `an exit that vivarium does not know, reason ${exit.reason}`;
    default:
      return exit.kind;
  }
}
