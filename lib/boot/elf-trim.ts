/**
 * Zeros at the end of ELF segments taken out of what is loaded: the build of a bzImage's vmlinux writes .bss into the
 * file (objcopy gives it contents), some 12 MB of a Debian kernel, which would be read and touched at every start.
 * Works on bytes in place and only lowers p_filesz; what it leaves out is zero by the rules of ELF all the same.
 */
import { Elf64Header, Elf64Segment, ElfSegmentType } from '../abi/elf.js';
import { alignUp, PAGE_SIZE } from '../base/units.js';
import { viewOf } from './bytes.js';
import { elfBits, isElf } from './elf.js';

/** Lowers p_filesz of every PT_LOAD of an ELF64 file whose last pages are zero. Anything odd is left as it is. */
export function trimZeros(file: Uint8Array): void {
  if (file.length < Elf64Header.SIZE || !isElf(file) || elfBits(file) !== 64) return;
  const view = viewOf(file);
  const tableOffset = view.getBigUint64(Elf64Header.PHOFF, true);
  const count = view.getUint16(Elf64Header.PHNUM, true);
  if (tableOffset + BigInt(count * Elf64Segment.SIZE) > BigInt(file.length)) return;
  for (let index = 0; index < count; index++) {
    const at = Number(tableOffset) + index * Elf64Segment.SIZE;
    if (view.getUint32(at + Elf64Segment.TYPE, true) !== ElfSegmentType.LOAD) continue;
    const offset = view.getBigUint64(at + Elf64Segment.OFFSET, true);
    const fileBytes = view.getBigUint64(at + Elf64Segment.FILESZ, true);
    if (offset + fileBytes > BigInt(file.length)) continue;
    const used = alignUp(usedBytes(file.subarray(Number(offset), Number(offset + fileBytes))), PAGE_SIZE);
    if (BigInt(used) < fileBytes) view.setBigUint64(at + Elf64Segment.FILESZ, BigInt(used), true);
  }
}

/** Length of the bytes up to the last that is not zero. */
function usedBytes(bytes: Uint8Array): number {
  let end = bytes.length;
  // Whole words first: most of what is looked at are megabytes of zeros.
  if (bytes.byteOffset % 8 === 0) {
    const words = new BigUint64Array(bytes.buffer, bytes.byteOffset, Math.floor(end / 8));
    while (end > words.length * 8 && bytes[end - 1] === 0) end--;
    if (end > words.length * 8) return end;
    let word = words.length;
    while (word > 0 && words[word - 1] === 0n) word--;
    end = word * 8;
  }
  while (end > 0 && bytes[end - 1] === 0) end--;
  return end;
}
