/**
 * The probe guest: what a kernel does in ring 0 and a software-backed KVM can't, as a flat long64 image.
 * Before each step it writes the step's number to STEP_PORT; the last is a counting loop to be timed.
 * The bytes are written out because nothing is assembled at run time.
 */

/** Where the image is put and started. */
export const PROBE_ADDRESS = 0x10000;
export const STEP_PORT = 0xe4;
/** Steps in their order: what is tried after this number was written. */
export const STEPS = ['cmpxchg16b', 'int3', 'xsave and xrstor', 'a counting loop', 'the end'] as const;
/** Instructions of the loop. */
export const LOOP_INSTRUCTIONS = 100_000;

const SCRATCH = 0x70; // 16 bytes, aligned
const IDTR = 0x80;
const IDT = 0x90;
const HANDLER = 0x6e;

/** prettier-ignore keeps one instruction a line. */
// prettier-ignore
const CODE = [
  0xb0, 0x01, //                          0x00  mov al, 1
  0xe6, STEP_PORT, //                     0x02  out STEP_PORT, al
  0xbf, SCRATCH, 0x00, 0x01, 0x00, //     0x04  mov edi, scratch
  0x31, 0xc0, //                          0x09  xor eax, eax
  0x31, 0xd2, //                          0x0b  xor edx, edx
  0x31, 0xdb, //                          0x0d  xor ebx, ebx
  0x31, 0xc9, //                          0x0f  xor ecx, ecx
  0x48, 0x0f, 0xc7, 0x0f, //              0x11  cmpxchg16b [rdi]
  0xb0, 0x02, //                          0x15  mov al, 2
  0xe6, STEP_PORT, //                     0x17  out STEP_PORT, al
  0xb8, IDTR, 0x00, 0x01, 0x00, //        0x19  mov eax, idtr
  0x0f, 0x01, 0x18, //                    0x1e  lidt [rax]
  0xcc, //                                0x21  int3
  0xb0, 0x03, //                          0x22  mov al, 3
  0xe6, STEP_PORT, //                     0x24  out STEP_PORT, al
  0xb8, 0x01, 0x00, 0x00, 0x00, //        0x26  mov eax, 1
  0x31, 0xc9, //                          0x2b  xor ecx, ecx
  0x0f, 0xa2, //                          0x2d  cpuid
  0x0f, 0xba, 0xe1, 0x1a, //              0x2f  bt ecx, 26         has it XSAVE?
  0x73, 0x22, //                          0x33  jnc 0x57
  0x0f, 0x20, 0xe0, //                    0x35  mov rax, cr4
  0x48, 0x0f, 0xba, 0xe8, 0x12, //        0x38  bts rax, 18        CR4.OSXSAVE
  0x0f, 0x22, 0xe0, //                    0x3d  mov cr4, rax
  0x31, 0xc9, //                          0x40  xor ecx, ecx
  0x31, 0xd2, //                          0x42  xor edx, edx
  0xb8, 0x03, 0x00, 0x00, 0x00, //        0x44  mov eax, 3         x87 and SSE
  0x0f, 0x01, 0xd1, //                    0x49  xsetbv
  0xbf, 0x00, 0x00, 0x02, 0x00, //        0x4c  mov edi, 0x20000
  0x0f, 0xae, 0x27, //                    0x51  xsave [rdi]
  0x0f, 0xae, 0x2f, //                    0x54  xrstor [rdi]
  0xb0, 0x04, //                          0x57  mov al, 4
  0xe6, STEP_PORT, //                     0x59  out STEP_PORT, al
  0xb9, 0x50, 0xc3, 0x00, 0x00, //        0x5b  mov ecx, 50000
  0xff, 0xc9, //                          0x60  dec ecx
  0x75, 0xfc, //                          0x62  jnz 0x60
  0xb0, 0x05, //                          0x64  mov al, 5
  0xe6, STEP_PORT, //                     0x66  out STEP_PORT, al
  0x31, 0xc0, //                          0x68  xor eax, eax
  0xe6, 0xf4, //                          0x6a  out 0xf4, al       debug exit, code 0
  0xfa, //                                0x6c  cli
  0xf4, //                                0x6d  hlt
  0x48, 0xcf, //                          0x6e  iretq              the handler of int3
];

/** The whole image. */
export function probeImage(): Uint8Array {
  const image = Buffer.alloc(IDT + 4 * 16);
  Buffer.from(CODE).copy(image);
  image.writeUInt16LE(4 * 16 - 1, IDTR); // limit: vectors 0 to 3
  image.writeBigUInt64LE(BigInt(PROBE_ADDRESS + IDT), IDTR + 2);
  // An interrupt gate for vector 3 (SDM 3A, 7.14.1): offset 15:0, selector, IST 0 and type 0xe with P, offset 31:16.
  const gate = IDT + 3 * 16;
  image.writeUInt16LE((PROBE_ADDRESS + HANDLER) & 0xffff, gate);
  image.writeUInt16LE(0x08, gate + 2);
  image.writeUInt16LE(0x8e00, gate + 4);
  image.writeUInt16LE(PROBE_ADDRESS >>> 16, gate + 6);
  return image;
}
