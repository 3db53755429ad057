/**
 * Flat guests of the bench programs, in machine code: small enough to read here, so that measuring needs no assembler.
 * All but the page writer are 16-bit real mode at 0x1000.
 */

export const GUEST_ADDRESS = 0x1000;

/** The mark that a guest writes to when what is measured begins and when it is over; a device of the program's own. */
export const MARK_PORT = 0x710;

/** mark; read a byte from `port` `count` times; mark; debug exit with code 0. */
export function readLoop(port: number, count: number): Uint8Array {
  return Uint8Array.from(
    [
      [0xba, low(MARK_PORT), high(MARK_PORT)], // mov dx, MARK_PORT
      [0xee], //                                  out dx, al
      [0xba, low(port), high(port)], //           mov dx, port
      [0x66, 0xb9, ...dword(count)], //           mov ecx, count
      [0xec], //                            next: in al, dx
      [0x66, 0x49], //                            dec ecx
      [0x75, 0xfb], //                            jnz next
      [0xba, low(MARK_PORT), high(MARK_PORT)], // mov dx, MARK_PORT
      [0xee], //                                  out dx, al
      [0xb0, 0x00, 0xe6, 0xf4], //                mov al, 0; out 0xf4, al
    ].flat(),
  );
}

/** Debug exit at once: the guest's first write to a port is its last. */
export const exitAtOnce = Uint8Array.of(0xe6, 0xf4);

/** mark; then sleep for good with interrupts on, so that the machine is running and idle. */
export const sleeper = Uint8Array.from(
  [
    [0xba, low(MARK_PORT), high(MARK_PORT)], // mov dx, MARK_PORT
    [0xee], //                                  out dx, al
    [0xfb], //                                  sti
    [0xf4], //                            next: hlt
    [0xeb, 0xfd], //                            jmp next
  ].flat(),
);

function low(value: number): number {
  return value & 0xff;
}

function high(value: number): number {
  return (value >> 8) & 0xff;
}

function dword(value: number): number[] {
  return [value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, (value >> 24) & 0xff];
}

/** Where the page writer writes. */
export const PAGE_WRITER_GPA = 0x100000;

/** long64 at any address: goes to ring 3 and writes 1, 2, 3, … into the first word of `pages` pages, over and over. */
export function pageWriter(pages: number): Uint8Array {
  return Uint8Array.from(
    [
      [0x6a, 0x1b], //                                    push 0x1b
      [0x68, ...dword(0x7000)], //                        push 0x7000
      [0x68, ...dword(0x3002)], //                        push 0x3002: IOPL 3
      [0x6a, 0x23], //                                    push 0x23
      [0x48, 0x8d, 0x05, ...dword(3)], //                 lea rax, [user]
      [0x50, 0x48, 0xcf], //                              push rax; iretq
      [0xb8, ...dword(1)], //                       user: mov eax, 1
      [0xbf, ...dword(PAGE_WRITER_GPA)], //        round: mov edi, PAGE_WRITER_GPA
      [0xb9, ...dword(pages)], //                         mov ecx, pages
      [0x48, 0x89, 0x07], //                        next: mov [rdi], rax
      [0x48, 0xff, 0xc0], //                              inc rax
      [0x48, 0x81, 0xc7, ...dword(4096)], //              add rdi, 4096
      [0xff, 0xc9, 0x75, 0xef], //                        dec ecx; jnz next
      [0xeb, 0xe3], //                                    jmp round
    ].flat(),
  );
}
