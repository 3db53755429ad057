/**
 * The flat guest of what measures a guest's time: it keeps time by the ticks of PIT channel 0, as a small kernel does, and
 * counts turns of its own work beside that. In machine code, and for any machine with a PIT and a PIC: the same bytes run
 * in vivarium's machines and, as the BIOS of a PC, in QEMU's. 16-bit real mode at 0x1000, stack below.
 */
import { PIT_HZ } from '#lib/time/counts.js';

/** Where it counts, 32 bits each: the ticks whose end of interrupt it has written, and the turns of its work. */
export const TICKS_AT = 0x600;
export const WORK_AT = 0x604;

const ADDRESS = 0x1000;
const TICK_VECTOR_AT = 0x80;
const ROM_BYTES = 0x10000;

/** The reload value that comes nearest to a rate. @throws RangeError for a rate that channel 0 can't be programmed to. */
export function reloadFor(rateHz: number): number {
  const count = Math.round(PIT_HZ / rateHz);
  if (!(count >= 1 && count <= 0xffff)) throw new RangeError(`${rateHz} Hz is no rate of the PIT's`);
  return count;
}

/** `busy` guests work between ticks, the others halt. */
export function tickingGuest(rateHz: number, { busy = true } = {}): Uint8Array {
  const count = reloadFor(rateHz);
  const work = busy
    ? [
        [0xb9, 0xc8, 0x00], //               work: mov cx, 200
        [0xe2, 0xfe], //                           loop $
        [0x66, 0xff, 0x06, ...word(WORK_AT)], //   inc dword [WORK_AT]
        [0xeb, 0xf4], //                           jmp work
      ].flat()
    : [0xf4, 0xeb, 0xfd]; //                 work: hlt; jmp work
  const begin = (tick: number) =>
    [
      [0xfa], //                                            cli
      [0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0], //              xor ax, ax; mov ds, ax; mov ss, ax
      [0xbc, ...word(ADDRESS)], //                          mov sp, ADDRESS
      [0xc7, 0x06, ...word(TICK_VECTOR_AT), ...word(tick)], // mov word [0x80], tick
      [0xc7, 0x06, ...word(TICK_VECTOR_AT + 2), 0, 0], //   mov word [0x82], 0
      ...[0x11, 0x20, 0x04, 0x01].map((value, index) => out(index === 0 ? 0x20 : 0x21, value)), // PIC: vector 0x20
      out(0x21, 0xfe), //                                   only IRQ 0
      out(0x43, 0x34), //                                   channel 0, both bytes, mode 2
      out(0x40, count & 0xff),
      out(0x40, count >> 8),
      [0xfb], //                                            sti
    ].flat();
  const tick = [
    [0x50], //                              push ax
    out(0x20, 0x20), //                     end of interrupt
    [0x58], //                              pop ax
    [0x66, 0xff, 0x06, ...word(TICKS_AT)], // inc dword [TICKS_AT]
    [0xcf], //                              iret
  ].flat();
  const beforeTick = begin(0).length + work.length;
  return Uint8Array.from([...begin(ADDRESS + beforeTick), ...work, ...tick]);
}

/**
 * A guest as the BIOS of a PC: at reset it copies itself to where it belongs, and goes there. Since QEMU leaves the local
 * APIC's LINT0 masked for firmware to open, the local APIC is switched off (IA32_APIC_BASE, SDM 11.4.3), as on a PC without.
 */
export function biosImage(guest: Uint8Array): Uint8Array {
  const GUEST_IN_ROM = 0x100;
  const copy = [
    [0xfa, 0xfc], //                                     cli; cld
    [0x31, 0xc0, 0x8e, 0xc0], //                         xor ax, ax; mov es, ax
    [0x8c, 0xc8, 0x8e, 0xd8], //                         mov ax, cs; mov ds, ax
    [0xbe, ...word(GUEST_IN_ROM)], //                    mov si, GUEST_IN_ROM
    [0xbf, ...word(ADDRESS)], //                         mov di, ADDRESS
    [0xb9, ...word(guest.length), 0xf3, 0xa4], //        mov cx, length; rep movsb
    [0x66, 0xb9, 0x1b, 0, 0, 0, 0x0f, 0x32], //          mov ecx, 0x1b; rdmsr
    [0x80, 0xe4, 0xf7, 0x0f, 0x30], //                   and ah, 0xf7; wrmsr
    [0xea, ...word(ADDRESS), 0, 0], //                   jmp 0:ADDRESS
  ].flat();
  const rom = new Uint8Array(ROM_BYTES);
  rom.set(copy, 0);
  rom.set(guest, GUEST_IN_ROM);
  rom.set([0xea, 0x00, 0x00, 0x00, 0xf0], 0xfff0); // the reset vector: jmp f000:0
  return rom;
}

function out(port: number, value: number): number[] {
  return [0xb0, value, 0xe6, port]; // mov al, value; out port, al
}

function word(value: number): number[] {
  return [value & 0xff, (value >> 8) & 0xff];
}
