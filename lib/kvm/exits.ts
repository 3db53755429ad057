/**
 * A vCPU's exit as a value: struct kvm_run decoded into a tagged union. The `data` of port and MMIO accesses is a view of
 * the mailbox itself: an answer to a read is written there, before the vCPU goes on.
 * An exit that this version does not know is the case 'unsupported', never an exception.
 */
import { ExitReason, RunOffset } from '../abi/kvm.js';

export interface PortExit {
  readonly kind: 'port';
  readonly isWrite: boolean;
  readonly port: number;
  /** Bytes in one element: 1, 2 or 4. */
  readonly size: 1 | 2 | 4;
  /** Elements; more than one for string instructions. */
  readonly count: number;
  /** size * count bytes in the mailbox. */
  readonly data: Uint8Array;
}

export interface MmioExit {
  readonly kind: 'mmio';
  readonly isWrite: boolean;
  readonly gpa: number;
  /** 1 to 8 bytes in the mailbox. */
  readonly data: Uint8Array;
}

export interface InternalErrorExit {
  readonly kind: 'internal-error';
  readonly suberror: number;
  readonly data: readonly bigint[];
  /** The bytes that the in-kernel emulator could not execute, when KVM tells them. */
  readonly instruction: Uint8Array | undefined;
}

export type VcpuExit =
  | PortExit
  | MmioExit
  | InternalErrorExit
  | { readonly kind: 'halt' }
  | { readonly kind: 'shutdown' }
  | { readonly kind: 'fail-entry'; readonly hardwareReason: bigint; readonly cpu: number }
  | { readonly kind: 'system-event'; readonly type: number; readonly data: readonly bigint[] }
  | { readonly kind: 'unknown'; readonly hardwareReason: bigint }
  | { readonly kind: 'unsupported'; readonly reason: number };

const AT = RunOffset.UNION;
/** KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES. */
const INSTRUCTION_BYTES = 1n;

/** Reads exits out of one vCPU's kvm_run mapping. */
export class ExitDecoder {
  readonly #buffer: ArrayBuffer;
  readonly #view: DataView;

  constructor(run: ArrayBuffer) {
    this.#buffer = run;
    this.#view = new DataView(run);
  }

  decode(): VcpuExit {
    const view = this.#view;
    const reason = view.getUint32(RunOffset.EXIT_REASON, true);
    switch (reason) {
      case ExitReason.IO: {
        const size = view.getUint8(AT + 1) as 1 | 2 | 4;
        const count = view.getUint32(AT + 4, true);
        const offset = Number(view.getBigUint64(AT + 8, true));
        return {
          kind: 'port',
          isWrite: view.getUint8(AT) === 1,
          port: view.getUint16(AT + 2, true),
          size,
          count,
          data: new Uint8Array(this.#buffer, offset, size * count),
        };
      }
      case ExitReason.MMIO:
        return {
          kind: 'mmio',
          isWrite: view.getUint8(AT + 20) === 1,
          gpa: Number(view.getBigUint64(AT, true)),
          data: new Uint8Array(this.#buffer, AT + 8, view.getUint32(AT + 16, true)),
        };
      case ExitReason.HLT:
        return { kind: 'halt' };
      case ExitReason.SHUTDOWN:
        return { kind: 'shutdown' };
      case ExitReason.FAIL_ENTRY:
        return {
          kind: 'fail-entry',
          hardwareReason: view.getBigUint64(AT, true),
          cpu: view.getUint32(AT + 8, true),
        };
      case ExitReason.INTERNAL_ERROR:
        return this.#internalError();
      case ExitReason.SYSTEM_EVENT:
        return {
          kind: 'system-event',
          type: view.getUint32(AT, true),
          data: this.#words(AT + 8, view.getUint32(AT + 4, true)),
        };
      case ExitReason.UNKNOWN:
        return { kind: 'unknown', hardwareReason: view.getBigUint64(AT, true) };
      default:
        return { kind: 'unsupported', reason };
    }
  }

  #words(offset: number, count: number): bigint[] {
    return Array.from({ length: Math.min(count, 16) }, (_, index) => this.#view.getBigUint64(offset + index * 8, true));
  }

  #internalError(): InternalErrorExit {
    const suberror = this.#view.getUint32(AT, true);
    const data = this.#words(AT + 8, this.#view.getUint32(AT + 4, true));
    // emulation_failure: flags are the first word of data, the size byte and the instruction's bytes follow.
    let instruction: Uint8Array | undefined;
    if (suberror === 1 && data.length >= 3 && ((data[0] ?? 0n) & INSTRUCTION_BYTES) !== 0n) {
      const length = Math.min(this.#view.getUint8(AT + 16), 15);
      instruction = new Uint8Array(this.#buffer, AT + 17, length).slice();
    }
    return { kind: 'internal-error', suberror, data, instruction };
  }
}
