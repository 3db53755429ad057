/**
 * Multiboot 1 images: the header found and checked, the image loaded by its ELF32 headers or by the header's own address
 * fields, modules and information structure written, and the CPU in flat 32-bit protected mode.
 * Source: Multiboot Specification 0.6.96.
 */
import {
  MULTIBOOT_BOOTLOADER_MAGIC,
  MULTIBOOT_HEADER_MAGIC,
  MULTIBOOT_SEARCH_BYTES,
  MultibootHeader,
  MultibootHeaderFlag,
  MultibootInfo,
  MultibootInfoFlag,
  MultibootMmap,
  MultibootModule,
} from '../abi/multiboot.js';
import { alignUp, formatSize, KiB, PAGE_SIZE } from '../base/units.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { concatBytes, viewOf } from './bytes.js';
import { elfBits, isElf, loadElf, parseElf } from './elf.js';
import { imageError, type ImageFile } from './errors.js';
import { findOverlap, HIGH_MEMORY_GPA, lowRamEnd, LowMemory, type MemoryMapEntry, type Region } from './layout.js';
import { flatCode32, flatData, protected32State, writeTable, type CpuState } from './registers.js';
import type { SegmentLoader } from './segment.js';

/** A module: what it is called and where it was put. */
export interface LoadedModule {
  readonly gpa: number;
  readonly sizeBytes: number;
  /** Its text, without the NUL. */
  readonly text: Uint8Array;
}

export interface MultibootImage {
  /** The header's place in the file. */
  readonly headerOffset: number;
  readonly flags: number;
  /** Defined when the header says where to load. */
  readonly addresses:
    | {
        readonly header: number;
        readonly load: number;
        readonly loadEnd: number;
        readonly bssEnd: number;
        readonly entry: number;
      }
    | undefined;
}

const LOADER_NAME = 'vivarium';
const CURE = 'build the image again';

/**
 * Looks for a multiboot header.
 *
 * @returns undefined when there is none.
 * @throws VmmError ERR_KERNEL_IMAGE when the header asks for what this loader does not have.
 */
export function findMultibootHeader(file: ImageFile): MultibootImage | undefined {
  const head = viewOf(file.read(0, Math.min(file.sizeBytes, MULTIBOOT_SEARCH_BYTES)));
  for (let at = 0; at + MultibootHeader.SIZE <= head.byteLength; at += 4) {
    if (head.getUint32(at, true) !== MULTIBOOT_HEADER_MAGIC) continue;
    const flags = head.getUint32(at + MultibootHeader.FLAGS, true);
    const sum = MULTIBOOT_HEADER_MAGIC + flags + head.getUint32(at + MultibootHeader.CHECKSUM, true);
    if (sum % 2 ** 32 !== 0) continue;
    return readHeader(file, head, at, flags);
  }
  return undefined;
}

function readHeader(file: ImageFile, head: DataView, at: number, flags: number): MultibootImage {
  const known = MultibootHeaderFlag.PAGE_ALIGN_MODULES | MultibootHeaderFlag.MEMORY_INFO;
  const unknown = flags & 0xffff & ~known;
  if ((unknown & MultibootHeaderFlag.VIDEO_MODE) !== 0) {
    throw imageError(
      file.label,
      'its multiboot header asks for a video mode',
      'build it without one: the machine has no display',
    );
  }
  if (unknown !== 0) {
    throw imageError(file.label, `its multiboot header has unknown requirements (0x${unknown.toString(16)})`, CURE);
  }
  if ((flags & MultibootHeaderFlag.ADDRESSES) === 0) return { headerOffset: at, flags, addresses: undefined };
  if (at + MultibootHeader.SIZE_WITH_ADDRESSES > head.byteLength) {
    throw imageError(file.label, 'its multiboot header is cut off', 'fetch or copy it again');
  }
  const field = (offset: number): number => head.getUint32(at + offset, true);
  return {
    headerOffset: at,
    flags,
    addresses: {
      header: field(MultibootHeader.HEADER_ADDR),
      load: field(MultibootHeader.LOAD_ADDR),
      loadEnd: field(MultibootHeader.LOAD_END_ADDR),
      bssEnd: field(MultibootHeader.BSS_END_ADDR),
      entry: field(MultibootHeader.ENTRY_ADDR),
    },
  };
}

/** Low memory that the information structure takes: no image may lie there. */
export const multibootReserved: readonly Region[] = [
  { name: 'the entry tables of multiboot', start: LowMemory.GDT, end: LowMemory.GDT + 0x100 },
  { name: 'the multiboot information', start: LowMemory.BOOT_INFO, end: LowMemory.ZERO_PAGE },
  { name: 'the multiboot command line', start: LowMemory.COMMAND_LINE, end: LowMemory.COMMAND_LINE_END },
  { name: 'the video and BIOS area', start: LowMemory.EBDA, end: HIGH_MEMORY_GPA },
];

/**
 * Loads the image.
 *
 * @returns its entry, and the end of what it takes.
 * @throws VmmError ERR_KERNEL_IMAGE when it does not fit, lies on what the loader needs, or is no ELF32 without addresses.
 */
export function loadMultiboot(
  memory: GuestMemory,
  file: ImageFile,
  image: MultibootImage,
  options: { memoryIsZero: boolean; loadSegment: SegmentLoader },
): { readonly entry: number; readonly end: number } {
  if (image.addresses) return loadByAddresses(memory, file, image, image.addresses, options);
  const head = file.read(0, Math.min(file.sizeBytes, 16));
  if (!isElf(head) || elfBits(head) !== 32) {
    throw imageError(
      file.label,
      isElf(head)
        ? 'a 64-bit ELF file cannot be entered by multiboot 1'
        : 'its multiboot header has no addresses, and the file is no ELF file',
      'link it as a 32-bit ELF file (objcopy -O elf32-i386)',
    );
  }
  const elf = parseElf(file);
  const end = loadElf(memory, file, elf, { ...options, occupied: multibootReserved });
  return { entry: Number(elf.entry), end };
}

function loadByAddresses(
  memory: GuestMemory,
  file: ImageFile,
  image: MultibootImage,
  at: NonNullable<MultibootImage['addresses']>,
  options: { memoryIsZero: boolean; loadSegment: SegmentLoader },
): { readonly entry: number; readonly end: number } {
  const fileOffset = image.headerOffset - (at.header - at.load);
  if (at.load > at.header || fileOffset < 0) {
    throw imageError(file.label, 'the addresses in its multiboot header contradict one another', CURE);
  }
  // Without an end the whole rest of the file is text and data (3.1.3).
  const loadBytes = at.loadEnd === 0 ? file.sizeBytes - fileOffset : at.loadEnd - at.load;
  const end = Math.max(at.bssEnd, at.load + loadBytes);
  if (loadBytes < 0 || (at.bssEnd !== 0 && at.bssEnd < at.load + loadBytes)) {
    throw imageError(file.label, 'the addresses in its multiboot header contradict one another', CURE);
  }
  if (fileOffset + loadBytes > file.sizeBytes) {
    throw imageError(file.label, 'the file is truncated: its multiboot header wants more', 'fetch or copy it again');
  }
  if (!memory.contains(at.load, end - at.load)) {
    throw imageError(
      file.label,
      `it takes 0x${at.load.toString(16)} to 0x${end.toString(16)}, which is not all guest memory`,
      `give the machine more memory than ${formatSize(memory.sizeBytes)}`,
    );
  }
  const overlap = findOverlap(multibootReserved, at.load, end);
  if (overlap) throw imageError(file.label, `it lies on ${overlap.name}`, 'link it at 1 MiB or above');
  options.loadSegment(memory, file, fileOffset, at.load, loadBytes);
  if (!options.memoryIsZero) memory.fill(at.load + loadBytes, 0, end - at.load - loadBytes);
  return { entry: at.entry, end };
}

/**
 * Puts modules behind the image, each on a page of its own.
 *
 * @throws VmmError ERR_KERNEL_IMAGE when they do not fit.
 */
export function loadModules(
  memory: GuestMemory,
  modules: readonly { readonly file: ImageFile; readonly text: Uint8Array }[],
  floor: number,
  loadSegment: SegmentLoader,
): LoadedModule[] {
  let at = alignUp(Math.max(floor, HIGH_MEMORY_GPA), PAGE_SIZE);
  return modules.map(({ file, text }) => {
    if (!memory.contains(at, file.sizeBytes)) {
      throw imageError(
        file.label,
        `its ${formatSize(file.sizeBytes)} do not fit into guest memory behind the image`,
        `give the machine more memory than ${formatSize(memory.sizeBytes)}`,
      );
    }
    loadSegment(memory, file, 0, at, file.sizeBytes);
    const loaded = { gpa: at, sizeBytes: file.sizeBytes, text };
    at = alignUp(at + file.sizeBytes, PAGE_SIZE);
    return loaded;
  });
}

/**
 * Writes the information structure and what it points to.
 *
 * @throws VmmError ERR_KERNEL_IMAGE when command lines or modules are too many for their place.
 */
export function writeMultibootInfo(
  memory: GuestMemory,
  label: string,
  options: { cmdline: Uint8Array; modules: readonly LoadedModule[]; map: readonly MemoryMapEntry[] },
): void {
  const { modules, map } = options;
  const modulesAt = MultibootInfo.SIZE;
  const mapAt = modulesAt + modules.length * MultibootModule.SIZE;
  const nameAt = mapAt + map.length * MultibootMmap.SIZE;
  const block = new Uint8Array(nameAt + LOADER_NAME.length + 1);
  if (LowMemory.BOOT_INFO + block.length > LowMemory.ZERO_PAGE) {
    throw imageError(label, `${modules.length} modules are too many`, 'give fewer modules');
  }
  const view = viewOf(block);
  const put = (offset: number, value: number): void => view.setUint32(offset, value, true);

  const texts = concatBytes(options.cmdline, [0], ...modules.map(({ text }) => concatBytes(text, [0])));
  if (LowMemory.COMMAND_LINE + texts.length > LowMemory.COMMAND_LINE_END) {
    throw imageError(label, `command lines of ${texts.length} bytes are too long`, 'shorten them');
  }
  let textAt = LowMemory.COMMAND_LINE + options.cmdline.length + 1;

  put(
    MultibootInfo.FLAGS,
    MultibootInfoFlag.MEMORY |
      MultibootInfoFlag.CMDLINE |
      MultibootInfoFlag.MODULES |
      MultibootInfoFlag.MEMORY_MAP |
      MultibootInfoFlag.BOOT_LOADER_NAME,
  );
  put(MultibootInfo.MEM_LOWER, Math.floor(Math.min(LowMemory.EBDA, lowRamEnd(memory)) / KiB));
  put(MultibootInfo.MEM_UPPER, Math.floor(Math.max(0, lowRamEnd(memory) - HIGH_MEMORY_GPA) / KiB));
  put(MultibootInfo.CMDLINE, LowMemory.COMMAND_LINE);
  put(MultibootInfo.MODS_COUNT, modules.length);
  put(MultibootInfo.MODS_ADDR, LowMemory.BOOT_INFO + modulesAt);
  put(MultibootInfo.MMAP_LENGTH, map.length * MultibootMmap.SIZE);
  put(MultibootInfo.MMAP_ADDR, LowMemory.BOOT_INFO + mapAt);
  put(MultibootInfo.BOOT_LOADER_NAME, LowMemory.BOOT_INFO + nameAt);
  modules.forEach((module, index) => {
    const at = modulesAt + index * MultibootModule.SIZE;
    put(at + MultibootModule.START, module.gpa);
    put(at + MultibootModule.END, module.gpa + module.sizeBytes);
    put(at + MultibootModule.STRING, textAt);
    textAt += module.text.length + 1;
  });
  map.forEach((entry, index) => {
    const at = mapAt + index * MultibootMmap.SIZE;
    put(at + MultibootMmap.ENTRY_BYTES, MultibootMmap.SIZE - 4);
    view.setBigUint64(at + MultibootMmap.ADDR, BigInt(entry.gpa), true);
    view.setBigUint64(at + MultibootMmap.LEN, BigInt(entry.sizeBytes), true);
    put(at + MultibootMmap.TYPE, entry.type);
  });
  block.set(new TextEncoder().encode(LOADER_NAME), nameAt);
  memory.write(LowMemory.COMMAND_LINE, texts);
  memory.write(LowMemory.BOOT_INFO, block);
}

/** The state of the entry (3.2): the magic in EAX, the information in EBX, flat segments, paging and interrupts off. */
export function enterMultiboot(memory: GuestMemory, entry: number): CpuState {
  // The specification leaves GDTR open; an image that loads its selectors early works with this one.
  const gdt = writeTable(memory, LowMemory.GDT, [0n, flatCode32, flatData()]);
  return protected32State(
    { rip: BigInt(entry), rax: BigInt(MULTIBOOT_BOOTLOADER_MAGIC), rbx: BigInt(LowMemory.BOOT_INFO) },
    { code: 0x08, data: 0x10 },
    gdt,
  );
}
