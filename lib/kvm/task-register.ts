/**
 * The task register's type, where the processor below is QEMU's software one (the embedded host). A task register in use is of the type
 * "busy", and KVM on AMD reports it so whatever the hardware says (arch/x86/kvm/svm/svm.c, svm_get_segment). QEMU's check of a
 * program's I/O permissions takes only "available" ones: given what KVM_GET_SREGS said, every port access of a program with
 * permission (ioperm) would be a general protection fault. So there, and only there, the type is set back.
 */
import { readFileSync } from 'node:fs';
import type { KvmSegment } from '../abi/kvm-structs.js';

/** Intel SDM, volume 3, table 3-2; AMD APM, volume 2, table 4-6. */
const AVAILABLE_TSS = 9;
const BUSY_TSS = 11;

let isSoftware: boolean | undefined;

/** What KVM is to be given for a task register that it reported. */
export function taskRegisterFor(saved: KvmSegment, onSoftware = isSoftwareProcessor()): KvmSegment {
  return onSoftware && saved.type === BUSY_TSS ? { ...saved, type: AVAILABLE_TSS } : saved;
}

function isSoftwareProcessor(): boolean {
  isSoftware ??= /^model name\s*:\s*QEMU TCG CPU/m.test(cpuinfo());
  return isSoftware;
}

function cpuinfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'latin1');
  } catch {
    // A container may hide it: then it is no embedded host either.
    return '';
  }
}
