/**
 * The guest of the snapshot programs: a ring-3 loop that writes 1, 2, 3, … into the first word of each page of a window, one page in
 * so many cycles of the TSC as the host says, or at full speed. Its machine is filled with bytes that do not get smaller.
 */
import { randomFillSync } from 'node:crypto';
import { Machine } from '#lib/index.js';

const MIB = 2 ** 20;
const PAGE = 4096;
const GROUP = 64 * 1024;
const IMAGE_GPA = 0x10000;
/** Two words: cycles between writes, written by the host; pages written so far, by the guest. */
const WORDS_GPA = 0x20000;
export const WINDOW_GPA = 0x20_0000;

/** long64. */
function pacedWriter(pages: number): Uint8Array {
  const dword = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >> shift) & 0xff);
  return Uint8Array.from(
    [
      [0x6a, 0x1b], //                                          push 0x1b
      [0x68, ...dword(0x7000)], //                              push 0x7000
      [0x68, ...dword(0x3002)], //                              push 0x3002: IOPL 3
      [0x6a, 0x23], //                                          push 0x23
      [0x48, 0x8d, 0x05, ...dword(3)], //                       lea rax, [user]
      [0x50, 0x48, 0xcf], //                                    push rax; iretq
      [0x45, 0x31, 0xc0], //                              user: xor r8d, r8d
      [0xbf, ...dword(WINDOW_GPA)], //                   round: mov edi, WINDOW_GPA
      [0x41, 0xb9, ...dword(pages)], //                         mov r9d, pages
      [0x0f, 0x31], //                                    next: rdtsc
      [0x48, 0xc1, 0xe2, 0x20], //                              shl rdx, 32
      [0x48, 0x09, 0xd0], //                                    or rax, rdx
      [0x48, 0x89, 0xc2], //                                    mov rdx, rax
      [0x4c, 0x29, 0xd2], //                                    sub rdx, r10
      [0x48, 0x3b, 0x14, 0x25, ...dword(WORDS_GPA)], //         cmp rdx, [WORDS_GPA]
      [0x72, 0xe7], //                                          jb next
      [0x49, 0x89, 0xc2], //                                    mov r10, rax
      [0x49, 0xff, 0xc0], //                                    inc r8
      [0x4c, 0x89, 0x07], //                                    mov [rdi], r8
      [0x4c, 0x89, 0x04, 0x25, ...dword(WORDS_GPA + 8)], //     mov [WORDS_GPA + 8], r8
      [0x48, 0x81, 0xc7, ...dword(PAGE)], //                    add rdi, 4096
      [0x41, 0xff, 0xc9], //                                    dec r9d
      [0x75, 0xca], //                                          jnz next
      [0xeb, 0xbd], //                                          jmp round
    ].flat(),
  );
}

export interface PacedOptions {
  readonly memoryBytes: number;
  /** How much of memory is filled; the rest is zeros. */
  readonly filledBytes: number;
  /** In which the guest goes round. */
  readonly windowBytes: number;
}

/** Not started. */
export async function pacedMachine({ memoryBytes, filledBytes, windowBytes }: PacedOptions): Promise<Machine> {
  const machine = await Machine.create({
    memory: memoryBytes,
    boot: { flat: pacedWriter(windowBytes / PAGE), address: IMAGE_GPA, mode: 'long64' },
  });
  fill(machine, filledBytes);
  return machine;
}

/** From 2 MiB on, without the hole below 4 GiB: every group is another one, and none gets smaller. */
export function fill(machine: Machine, bytes: number): void {
  const piece = randomFillSync(Buffer.alloc(MIB));
  for (let at = WINDOW_GPA; at < Math.min(bytes, 3 * 1024 * MIB); at += MIB) {
    for (let group = 0; group < MIB; group += GROUP) piece.writeDoubleLE(at + group, group + 8);
    machine.memory.write(at, piece);
  }
}

/** Pages that the guest has written so far. */
export function written(machine: Machine): number {
  return Number(Buffer.from(machine.memory.read(WORDS_GPA + 8, 8)).readBigUInt64LE());
}

export function setCycles(machine: Machine, cycles: number): void {
  const word = Buffer.alloc(8);
  word.writeBigUInt64LE(BigInt(Math.round(cycles)));
  machine.memory.write(WORDS_GPA, word);
}

/** Pages a second over so many ms. */
export async function rateOver(machine: Machine, ms: number): Promise<number> {
  const from = written(machine);
  const startMs = performance.now();
  await new Promise((resolve) => setTimeout(resolve, ms));
  return (written(machine) - from) / ((performance.now() - startMs) / 1000);
}

/** Has the guest dirty so many bytes a second; returns what it does then. */
export async function pace(machine: Machine, bytesPerSecond: number): Promise<number> {
  let cycles = 20_000;
  for (let step = 0; step < 3; step++) {
    setCycles(machine, cycles);
    cycles *= ((await rateOver(machine, 300)) * PAGE) / bytesPerSecond;
  }
  setCycles(machine, cycles);
  return (await rateOver(machine, 300)) * PAGE;
}
