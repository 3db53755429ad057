/**
 * A guest of pit-guest.ts as the BIOS of a PC, for QEMU: at reset it copies the guest and the tables of long mode to where
 * they belong, and goes there. The tables are those that a flat image of vivarium's gets, written by the same code.
 */
import { FLAT_STACK_GPA, FLAT_TABLES_END_GPA, FLAT_TABLES_START_GPA, loadFlat } from '#lib/boot/flat.js';
import { FakeGuestMemory } from '#lib/memory/fake.js';
import { TICKING_GUEST_AT } from './pit-guest.js';

const ROM_BYTES = 0x10000;
const ROM_SEGMENT_BASE = 0xf0000;
const DESCRIPTOR_IN_ROM = 0xf0;
const ENTRY64_IN_ROM = 0x100;
const GUEST_IN_ROM = 0x200;
const RESET_VECTOR_IN_ROM = 0xfff0;
const APIC_BASE_MSR = 0x1b;
const EFER_MSR = 0xc0000080;

/**
 * Since QEMU leaves the local APIC's LINT0 masked for firmware to open, the local APIC is switched off (IA32_APIC_BASE,
 * SDM 11.4.3), as on a PC without.
 */
export function biosImage(guest: Uint8Array): Uint8Array {
  const memory = new FakeGuestMemory(2 * TICKING_GUEST_AT);
  const { sregs } = loadFlat(memory, guest, { address: TICKING_GUEST_AT, mode: 'long64' });
  const tablesBytes = FLAT_TABLES_END_GPA - FLAT_TABLES_START_GPA;
  // The reset vector stands where the tables end; there is only a stack there.
  const usedBytes = RESET_VECTOR_IN_ROM - FLAT_TABLES_START_GPA;
  const real = [
    [0xfa, 0xfc], //                                     cli; cld
    [0x31, 0xc0, 0x8e, 0xc0, 0x8e, 0xd0], //             xor ax, ax; mov es, ax; mov ss, ax
    [0x8c, 0xc8, 0x8e, 0xd8], //                         mov ax, cs; mov ds, ax
    [0xbe, ...word(FLAT_TABLES_START_GPA)], //           mov si, the tables
    [0x89, 0xf7], //                                     mov di, si
    [0xb9, ...word(usedBytes), 0xf3, 0xa4], //           mov cx, their length; rep movsb
    [0xb8, ...word(TICKING_GUEST_AT >> 4), 0x8e, 0xc0], // mov ax, the guest's segment; mov es, ax
    [0xbe, ...word(GUEST_IN_ROM), 0x31, 0xff], //        mov si, GUEST_IN_ROM; xor di, di
    [0xb9, ...word(guest.length), 0xf3, 0xa4], //        mov cx, length; rep movsb
    [0x66, 0xb9, ...dword(APIC_BASE_MSR), 0x0f, 0x32], // mov ecx, IA32_APIC_BASE; rdmsr
    [0x80, 0xe4, 0xf7, 0x0f, 0x30], //                   and ah, 0xf7; wrmsr
    [0x66, 0x0f, 0x01, 0x16, ...word(DESCRIPTOR_IN_ROM)], // o32 lgdt [DESCRIPTOR_IN_ROM]
    [0x66, 0xb8, ...dword(Number(sregs.cr4)), 0x0f, 0x22, 0xe0], // mov eax, cr4's; mov cr4, eax
    [0x66, 0xb8, ...dword(Number(sregs.cr3)), 0x0f, 0x22, 0xd8], // mov eax, cr3's; mov cr3, eax
    [0x66, 0xb9, ...dword(EFER_MSR), 0x0f, 0x32], //     mov ecx, EFER; rdmsr
    [0x80, 0xcc, 0x01, 0x0f, 0x30], //                   or ah, 1: LME; wrmsr
    [0x66, 0xb8, ...dword(Number(sregs.cr0)), 0x0f, 0x22, 0xc0], // mov eax, cr0's; mov cr0, eax
    [0x66, 0xea, ...dword(ROM_SEGMENT_BASE + ENTRY64_IN_ROM), 0x08, 0x00], // jmp 0x08:entry64
  ].flat();
  const long = [
    [0xb8, ...dword(0x10), 0x8e, 0xd0], //  mov eax, 0x10; mov ss, ax
    [0x8e, 0xd8, 0x8e, 0xc0], //            mov ds, ax; mov es, ax
    [0xb8, ...dword(0x28), 0x0f, 0x00, 0xd8], // mov eax, 0x28; ltr ax
    [0xbc, ...dword(FLAT_STACK_GPA)], //    mov esp, the stack
    [0xb8, ...dword(TICKING_GUEST_AT)], //  mov eax, the guest
    [0xff, 0xe0], //                        jmp rax
  ].flat();
  const rom = new Uint8Array(ROM_BYTES);
  rom.set(memory.read(FLAT_TABLES_START_GPA, tablesBytes), FLAT_TABLES_START_GPA);
  rom.set(real, 0);
  rom.set([...word(sregs.gdt.limit), ...dword(Number(sregs.gdt.base))], DESCRIPTOR_IN_ROM);
  rom.set(long, ENTRY64_IN_ROM);
  rom.set(guest, GUEST_IN_ROM);
  rom.set([0xea, 0x00, 0x00, 0x00, 0xf0], RESET_VECTOR_IN_ROM); // jmp f000:0
  return rom;
}

function word(value: number): number[] {
  return [value & 0xff, (value >> 8) & 0xff];
}

function dword(value: number): number[] {
  return [...word(value), ...word(value >>> 16)];
}
