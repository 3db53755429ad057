/**
 * The flat guest of what measures a guest's time: it keeps time by the ticks of PIT channel 0, as a small kernel does, and
 * counts turns of its own work beside that, in ring 3, since a software-backed KVM emulates ring 0 one instruction at a time. In
 * machine code, for long mode as flat images have it; in QEMU the same bytes run behind a BIOS that goes there (pit-bios.ts).
 */
import { PIT_HZ } from '#lib/time/counts.js';

/** Where it counts, 32 bits each: the ticks whose end of interrupt it has written, and the turns of its work. */
export const TICKS_AT = 0x600;
export const WORK_AT = 0x604;
export const TICKING_GUEST_AT = 0x10000;

/** What the flat image of such a machine needs at least. */
export const TICKING_MEMORY = '1MiB';

const IDT_AT = 0x5000;
/** Vector 0x20, 16 bytes a gate. */
const TICK_GATE_AT = IDT_AT + 0x20 * 16;
const STACK_TOP = 0x7000;

/** The reload value that comes nearest to a rate. @throws RangeError for a rate that channel 0 can't be programmed to. */
export function reloadFor(rateHz: number): number {
  const count = Math.round(PIT_HZ / rateHz);
  if (!(count >= 1 && count <= 0xffff)) throw new RangeError(`${rateHz} Hz is no rate of the PIT's`);
  return count;
}

/** As Machine.create takes it. `busy` guests work between ticks, the others halt. */
export function tickingBoot(rateHz: number, options: { readonly busy?: boolean } = {}) {
  return { flat: tickingGuest(rateHz, options), address: TICKING_GUEST_AT, mode: 'long64' } as const;
}

export function tickingGuest(rateHz: number, { busy = true } = {}): Uint8Array {
  const count = reloadFor(rateHz);
  const toRing3 = [
    [0x6a, 0x1b], //                            push 0x1b: ss
    [0x68, ...dword(STACK_TOP)], //             push STACK_TOP: rsp
    [0x68, ...dword(0x3202)], //                push 0x3202: rflags, interrupts on, IOPL 3
    [0x6a, 0x23], //                            push 0x23: cs
    [0x48, 0x8d, 0x05, 3, 0, 0, 0], //          lea rax, [rip + 3]
    [0x50], //                                  push rax
    [0x48, 0xcf], //                            iretq
  ].flat();
  const work = [
    [0xb9, ...dword(200)], //              work: mov ecx, 200
    [0xe2, 0xfe], //                             loop $
    [0xff, 0x04, 0x25, ...dword(WORK_AT)], //    inc dword [WORK_AT]
    [0xeb, 0xf0], //                             jmp work
  ].flat();
  const rest = [0xfb, 0xf4, 0xeb, 0xfd]; // sti; rest: hlt; jmp rest
  const between = busy ? [...toRing3, ...work] : rest;
  const begin = (tick: number) =>
    [
      [0xfa], //                                                   cli
      [0xb8, ...dword(((tick & 0xffff) | (0x08 << 16)) >>> 0)], // mov eax, the gate: code 0x08, offset 15:0
      [0x89, 0x04, 0x25, ...dword(TICK_GATE_AT)], //               mov [TICK_GATE_AT], eax
      [0xb8, ...dword(((tick & 0xffff0000) | 0x8e00) >>> 0)], //   mov eax, its offset 31:16, an interrupt gate
      [0x89, 0x04, 0x25, ...dword(TICK_GATE_AT + 4)], //           mov [TICK_GATE_AT + 4], eax
      [0x31, 0xc0], //                                             xor eax, eax
      [0x89, 0x04, 0x25, ...dword(TICK_GATE_AT + 8)], //           mov [TICK_GATE_AT + 8], eax
      [0x50], //                                                   push rax: base 63:48 is 0
      [0x68, ...dword((IDT_AT << 16) | 0x0fff)], //                push base 15:0 and limit
      [0x0f, 0x01, 0x1c, 0x24], //                                 lidt [rsp]
      ...[0x11, 0x20, 0x04, 0x01].map((value, index) => out(index === 0 ? 0x20 : 0x21, value)), // PIC: vector 0x20
      out(0x21, 0xfe), //                                          only IRQ 0
      out(0x43, 0x34), //                                          channel 0, both bytes, mode 2
      out(0x40, count & 0xff),
      out(0x40, count >> 8),
    ].flat();
  const tick = [
    [0x50], //                              push rax
    out(0x20, 0x20), //                     end of interrupt
    [0x58], //                              pop rax
    [0xff, 0x04, 0x25, ...dword(TICKS_AT)], // inc dword [TICKS_AT]
    [0x48, 0xcf], //                        iretq
  ].flat();
  const beforeTick = begin(0).length + between.length;
  return Uint8Array.from([...begin(TICKING_GUEST_AT + beforeTick), ...between, ...tick]);
}

function out(port: number, value: number): number[] {
  return [0xb0, value, 0xe6, port]; // mov al, value; out port, al
}

function dword(value: number): number[] {
  return [value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, (value >> 24) & 0xff];
}
