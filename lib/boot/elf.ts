/**
 * ELF kernels: headers and notes checked, segments put into guest memory. Used for vmlinux (ELF64) and multiboot (ELF32).
 * Every number in the file is hostile until checked: nothing is read past the file's end and nothing written outside RAM.
 */
import {
  Elf32Header,
  Elf32Segment,
  Elf64Header,
  Elf64Segment,
  ElfClass,
  ElfIdent,
  ELF_DATA_LITTLE_ENDIAN,
  ELF_MAGIC,
  ElfMachine,
  ElfSegmentType,
  ElfType,
  XEN_ELFNOTE_PHYS32_ENTRY,
} from '../abi/elf.js';
import { alignUp, formatSize } from '../base/units.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { viewOf } from './bytes.js';
import { imageError, type ImageFile } from './errors.js';
import { findOverlap, type Region } from './layout.js';
import type { SegmentLoader } from './segment.js';

/** A PT_LOAD segment; physical addresses, in bytes. */
export interface ElfSegment {
  readonly fileOffset: number;
  readonly fileBytes: number;
  readonly gpa: number;
  readonly memoryBytes: number;
}

/** A parsed and checked ELF kernel. */
export interface ElfKernel {
  readonly bits: 32 | 64;
  readonly entry: bigint;
  /** In ascending order of address, never overlapping. */
  readonly segments: readonly ElfSegment[];
  /** The entry of the Xen note, if the file has it. */
  readonly pvhEntry: number | undefined;
}

const CURE = 'build or fetch the kernel again';
/** More than any kernel has, and few enough to check pairwise. */
const MAX_SEGMENTS = 128;
/** Notes of kernels take some hundred bytes. */
const MAX_NOTE_BYTES = 64 * 1024;

/** True when the bytes begin an ELF file. */
export function isElf(head: Uint8Array): boolean {
  return head.length >= 4 && viewOf(head).getUint32(0, true) === ELF_MAGIC;
}

/** The class of an ELF file: 32, 64, or undefined for neither. */
export function elfBits(head: Uint8Array): 32 | 64 | undefined {
  return head[ElfIdent.CLASS] === ElfClass.ELF64 ? 64 : head[ElfIdent.CLASS] === ElfClass.ELF32 ? 32 : undefined;
}

interface ProgramHeader {
  readonly type: number;
  readonly offset: bigint;
  readonly paddr: bigint;
  readonly fileBytes: bigint;
  readonly memoryBytes: bigint;
}

/**
 * Reads and checks the headers of an ELF executable.
 *
 * @throws VmmError ERR_KERNEL_IMAGE for a file that is truncated, for another machine, or whose segments lie beyond
 *   the file, wrap around, or overlap.
 */
export function parseElf(file: ImageFile): ElfKernel {
  const ident = file.read(0, ElfIdent.BYTES);
  const bits = isElf(ident) ? elfBits(ident) : undefined;
  if (bits === undefined) throw imageError(file.label, 'it is no ELF file', CURE);
  if (ident[ElfIdent.DATA] !== ELF_DATA_LITTLE_ENDIAN) {
    throw imageError(file.label, 'the ELF file is big-endian', 'use a kernel for x86-64');
  }
  const layout = bits === 64 ? Elf64Header : Elf32Header;
  const header = viewOf(file.read(0, layout.SIZE));
  const word = (offset: number): bigint =>
    bits === 64 ? header.getBigUint64(offset, true) : BigInt(header.getUint32(offset, true));
  const machine = header.getUint16(layout.MACHINE, true);
  if (machine !== ElfMachine.X86_64 && machine !== ElfMachine.I386) {
    throw imageError(file.label, `the ELF file is for machine ${machine}, not x86`, 'use a kernel for x86-64');
  }
  const type = header.getUint16(layout.TYPE, true);
  if (type !== ElfType.EXEC && type !== ElfType.DYN) {
    throw imageError(
      file.label,
      'the ELF file is no executable',
      'give the linked kernel, not an object or a core file',
    );
  }
  checkTable(
    file,
    'section',
    word(layout.SHOFF),
    header.getUint16(layout.SHNUM, true),
    header.getUint16(layout.SHENTSIZE, true),
  );

  const count = header.getUint16(layout.PHNUM, true);
  const segmentLayout = bits === 64 ? Elf64Segment : Elf32Segment;
  if (count === 0) throw imageError(file.label, 'the ELF file has no program headers', CURE);
  if (count > MAX_SEGMENTS) throw imageError(file.label, `the ELF file has ${count} program headers`, CURE);
  if (header.getUint16(layout.PHENTSIZE, true) !== segmentLayout.SIZE) {
    throw imageError(file.label, 'the ELF program headers have a wrong size', CURE);
  }
  checkTable(file, 'program', word(layout.PHOFF), count, segmentLayout.SIZE);
  const table = viewOf(file.read(Number(word(layout.PHOFF)), count * segmentLayout.SIZE));
  const headers = Array.from({ length: count }, (_, index) => readProgramHeader(table, index, bits));

  const segments = headers
    .filter((entry) => entry.type === ElfSegmentType.LOAD && entry.memoryBytes > 0n)
    .map((entry) => checkSegment(file, entry))
    .sort((a, b) => a.gpa - b.gpa);
  if (segments.length === 0) throw imageError(file.label, 'the ELF file has nothing to load', CURE);
  segments.forEach((segment, index) => {
    const next = segments[index + 1];
    if (next && segment.gpa + segment.memoryBytes > next.gpa) {
      throw imageError(file.label, `the ELF segments at ${hex(segment.gpa)} and ${hex(next.gpa)} overlap`, CURE);
    }
  });
  return { bits, entry: word(layout.ENTRY), segments, pvhEntry: findPvhEntry(file, headers) };
}

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

function checkTable(file: ImageFile, what: string, offset: bigint, count: number, entryBytes: number): void {
  const end = offset + BigInt(count * entryBytes);
  if (count === 0 || end <= BigInt(file.sizeBytes)) return;
  throw imageError(
    file.label,
    `the file is truncated: its ELF ${what} headers end at ${end}, and it has ${file.sizeBytes} bytes`,
    'fetch or copy it again',
  );
}

function readProgramHeader(table: DataView, index: number, bits: 32 | 64): ProgramHeader {
  const layout = bits === 64 ? Elf64Segment : Elf32Segment;
  const base = index * layout.SIZE;
  const word = (offset: number): bigint =>
    bits === 64 ? table.getBigUint64(base + offset, true) : BigInt(table.getUint32(base + offset, true));
  return {
    type: table.getUint32(base + layout.TYPE, true),
    offset: word(layout.OFFSET),
    paddr: word(layout.PADDR),
    fileBytes: word(layout.FILESZ),
    memoryBytes: word(layout.MEMSZ),
  };
}

function checkSegment(file: ImageFile, entry: ProgramHeader): ElfSegment {
  const { offset, paddr, fileBytes, memoryBytes } = entry;
  const at = `the ELF segment at ${hex(paddr)}`;
  if (offset + fileBytes > BigInt(file.sizeBytes)) {
    throw imageError(
      file.label,
      `${at} lies beyond the end of the file (it ends at ${offset + fileBytes}, the file at ${file.sizeBytes})`,
      'fetch or copy it again',
    );
  }
  if (fileBytes > memoryBytes) throw imageError(file.label, `${at} is larger in the file than in memory`, CURE);
  // 2^52 is the end of physical addresses; past it numbers would lose precision too.
  if (paddr + memoryBytes > 1n << 52n) throw imageError(file.label, `${at} wraps around the end of memory`, CURE);
  return {
    fileOffset: Number(offset),
    fileBytes: Number(fileBytes),
    gpa: Number(paddr),
    memoryBytes: Number(memoryBytes),
  };
}

/** Walks the notes for {owner "Xen", type XEN_ELFNOTE_PHYS32_ENTRY}; its value has 4 or 8 bytes. */
function findPvhEntry(file: ImageFile, headers: readonly ProgramHeader[]): number | undefined {
  for (const header of headers) {
    if (header.type !== ElfSegmentType.NOTE || header.fileBytes > BigInt(MAX_NOTE_BYTES)) continue;
    if (header.offset + header.fileBytes > BigInt(file.sizeBytes)) {
      throw imageError(file.label, 'the ELF notes lie beyond the end of the file', 'fetch or copy it again');
    }
    const notes = viewOf(file.read(Number(header.offset), Number(header.fileBytes)));
    for (let at = 0; at + 12 <= notes.byteLength;) {
      const nameBytes = notes.getUint32(at, true);
      const valueBytes = notes.getUint32(at + 4, true);
      const type = notes.getUint32(at + 8, true);
      const valueAt = at + 12 + alignUp(nameBytes, 4);
      const next = valueAt + alignUp(valueBytes, 4);
      if (valueAt + valueBytes > notes.byteLength) break;
      const isXen = nameBytes === 4 && notes.getUint32(at + 12, true) === 0x006e6558; // "Xen\0"
      if (isXen && type === XEN_ELFNOTE_PHYS32_ENTRY && (valueBytes === 4 || valueBytes === 8)) {
        const entry = valueBytes === 8 ? notes.getBigUint64(valueAt, true) : BigInt(notes.getUint32(valueAt, true));
        return entry <= 0xffff_ffffn ? Number(entry) : undefined;
      }
      at = next;
    }
  }
  return undefined;
}

/**
 * Puts the segments into guest memory.
 *
 * @param options.occupied regions that a segment must not touch.
 * @param options.memoryIsZero true for memory that was never written: the zero parts of segments are left alone.
 * @returns the end of the highest segment.
 * @throws VmmError ERR_KERNEL_IMAGE when a segment lies outside guest memory or on an occupied region.
 */
export function loadElf(
  memory: GuestMemory,
  file: ImageFile,
  elf: ElfKernel,
  options: { occupied: readonly Region[]; memoryIsZero: boolean; loadSegment: SegmentLoader },
): number {
  for (const { gpa, memoryBytes } of elf.segments) {
    if (!memory.contains(gpa, memoryBytes)) {
      throw imageError(
        file.label,
        `the ELF segment of ${memoryBytes} bytes at ${hex(gpa)} lies outside guest memory`,
        `give the machine more memory than ${formatSize(memory.sizeBytes)}, or another kernel`,
      );
    }
    const overlap = findOverlap(options.occupied, gpa, gpa + memoryBytes);
    if (overlap) {
      throw imageError(
        file.label,
        `the ELF segment at ${hex(gpa)} lies on ${overlap.name}`,
        'link the kernel at 1 MiB or above',
      );
    }
  }
  let end = 0;
  for (const { fileOffset, fileBytes, gpa, memoryBytes } of elf.segments) {
    if (fileBytes > 0) options.loadSegment(memory, file, fileOffset, gpa, fileBytes);
    if (!options.memoryIsZero) memory.fill(gpa + fileBytes, 0, memoryBytes - fileBytes);
    end = Math.max(end, gpa + memoryBytes);
  }
  return end;
}

/** True when [address, address + 1) lies in a segment's physical range. */
export function inSegments(elf: ElfKernel, address: bigint): boolean {
  return elf.segments.some(({ gpa, memoryBytes }) => address >= BigInt(gpa) && address < BigInt(gpa + memoryBytes));
}
