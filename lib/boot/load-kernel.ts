/**
 * Kernels: the format found by its magic, the image loaded, and the way in chosen.
 *
 *   bzImage -> its vmlinux, unpacked on the host -> 64-bit entry      (or itself, where that cannot be done)
 *   ELF64   -> 64-bit entry of Linux, or PVH                          ELF32 with a multiboot header -> multiboot
 */
import { randomBytes } from 'node:crypto';
import { DEFAULT_CMDLINE_SIZE, DEFAULT_INITRD_ADDR_MAX, ENTRY_64_OFFSET } from '../abi/linux-boot.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { type BzImage, HEAD_BYTES, isBzImage, loadBzImage, parseBzImage } from './bzimage.js';
import { type ElfKernel, elfBits, inSegments, isElf, loadElf, parseElf } from './elf.js';
import { imageError, type ImageFile, openImage } from './errors.js';
import { type InitrdSource, loadInitrd } from './initrd.js';
import { HIGH_MEMORY_GPA, HOLE_END_GPA, LowMemory, memoryMap, type Region } from './layout.js';
import { enterLinux64, writeBootParams } from './linux.js';
import { findMultibootHeader } from './multiboot.js';
import { enterPvh, writeStartInfo } from './pvh.js';
import type { KernelBoot, LoadedBoot, ResolvedShape } from './types.js';
import { bootMultiboot, encodeText } from './load-multiboot.js';
import { unpackKernel } from './vmlinux-cache.js';

/** All that loaders write below 1 MiB, and the areas of a PC there: a kernel begins above. */
const lowMemory: readonly Region[] = [
  { name: 'the boot tables below 1 MiB', start: 0, end: LowMemory.COMMAND_LINE_END },
  { name: 'the video and BIOS area', start: LowMemory.EBDA, end: HIGH_MEMORY_GPA },
];

/** Loads a kernel file of any known format. @throws VmmError ERR_KERNEL_IMAGE naming the file and its fault. */
export async function bootKernel(memory: GuestMemory, boot: KernelBoot, shape: ResolvedShape): Promise<LoadedBoot> {
  const file = openImage('kernel', boot.kernel);
  try {
    const head = file.read(0, Math.min(HEAD_BYTES, file.sizeBytes));
    if (isBzImage(head)) return await bootBzImage(memory, file, boot, shape);
    if (isElf(head)) {
      if (elfBits(head) === 32) {
        const header = findMultibootHeader(file);
        if (header) {
          if (boot.initrd !== undefined && typeof boot.initrd !== 'string') {
            throw imageError(file.label, 'a multiboot kernel takes its initrd as a file', 'give the path of a file');
          }
          const modules = typeof boot.initrd === 'string' ? [boot.initrd] : [];
          return bootMultiboot(memory, file, header, { modules, cmdline: boot.cmdline ?? '' }, shape);
        }
      }
      return bootElf(memory, file, boot, shape);
    }
    throw imageError(
      file.label,
      `it is neither a bzImage nor an ELF file (it begins with ${Buffer.from(head.subarray(0, 4)).toString('hex')})`,
      'give a kernel for x86-64: a bzImage such as /boot/vmlinuz-*, or a vmlinux',
    );
  } finally {
    file.close();
  }
}

/**
 * Puts the unpacked kernel of a bzImage into the cache, for a process that may not write there. Any other file is left alone; what is wrong
 * with one is said by whoever boots it.
 */
export async function keepUnpackedKernel(kernel: string, cacheDir: string): Promise<void> {
  const file = openImage('kernel', kernel);
  try {
    if (!isBzImage(file.read(0, Math.min(HEAD_BYTES, file.sizeBytes)))) return;
    const { payload } = parseBzImage(file);
    if (payload !== undefined) (await unpackKernel(file, payload, cacheDir))?.file.close();
  } finally {
    file.close();
  }
}

async function bootBzImage(
  memory: GuestMemory,
  file: ImageFile,
  boot: KernelBoot,
  shape: ResolvedShape,
): Promise<LoadedBoot> {
  const image = parseBzImage(file);
  const cmdline = encodeText('command line', boot.cmdline ?? '', image.cmdlineBytes);
  const notes: string[] = [];
  if (boot.entry !== 'bzimage' && image.payload) {
    const unpacked = await unpackKernel(file, image.payload, boot.cacheDir);
    if (unpacked?.cacheFault !== undefined) notes.push(`the unpacked kernel was not kept: ${unpacked.cacheFault}`);
    try {
      const elf = unpacked && isElf(unpacked.file.read(0, 4)) ? parseElf(unpacked.file) : undefined;
      if (unpacked && elf && hasEntry64(elf)) {
        notes.push(unpacked.from === 'cache' ? 'unpacked kernel from the cache' : 'kernel unpacked on the host');
        return loadUnpacked(memory, { file: unpacked.file, elf, image, cmdline, boot, shape, notes });
      }
    } finally {
      unpacked?.file.close();
    }
  }
  notes.push('the kernel unpacks itself in the guest');
  const placed = loadBzImage(memory, file, image, shape.loadSegment);
  const initrd = placeInitrd(memory, boot.initrd, placed.end, image.initrdMaxGpa, shape);
  writeBootParams(memory, { ...bootParams(shape, memory, cmdline, initrd), setupHeader: image.setupHeader });
  const state = enterLinux64(memory, BigInt(placed.gpa + ENTRY_64_OFFSET));
  return { kind: 'linux', format: 'bzimage', entry: '64bit', state, notes };
}

function loadUnpacked(
  memory: GuestMemory,
  given: {
    file: ImageFile;
    elf: ElfKernel;
    image: BzImage;
    cmdline: Uint8Array;
    boot: KernelBoot;
    shape: ResolvedShape;
    notes: string[];
  },
): LoadedBoot {
  const { file, elf, image, cmdline, boot, shape, notes } = given;
  const end = loadElf(memory, file, elf, { ...shape, occupied: lowMemory });
  const initrd = placeInitrd(memory, boot.initrd, end, image.initrdMaxGpa, shape);
  const common = bootParams(shape, memory, cmdline, initrd);
  if (boot.entry === 'pvh' && elf.pvhEntry !== undefined) {
    writeStartInfo(memory, common);
    const state = enterPvh(memory, elf.pvhEntry);
    return { kind: 'linux', format: 'bzimage', entry: 'pvh', state, notes };
  }
  writeBootParams(memory, { ...common, setupHeader: image.setupHeader });
  return { kind: 'linux', format: 'bzimage', entry: '64bit', state: enterLinux64(memory, elf.entry), notes };
}

function bootElf(memory: GuestMemory, file: ImageFile, boot: KernelBoot, shape: ResolvedShape): LoadedBoot {
  const elf = parseElf(file);
  const entry = chooseEntry(file, elf, boot.entry ?? 'auto');
  const cmdline = encodeText('command line', boot.cmdline ?? '', DEFAULT_CMDLINE_SIZE);
  const end = loadElf(memory, file, elf, { ...shape, occupied: lowMemory });
  const initrd = placeInitrd(memory, boot.initrd, end, DEFAULT_INITRD_ADDR_MAX, shape);
  const common = bootParams(shape, memory, cmdline, initrd);
  if (entry.kind === 'pvh') {
    writeStartInfo(memory, common);
    return { kind: 'linux', format: 'elf', entry: 'pvh', state: enterPvh(memory, entry.gpa), notes: [] };
  }
  writeBootParams(memory, { ...common, setupHeader: undefined });
  return { kind: 'linux', format: 'elf', entry: '64bit', state: enterLinux64(memory, elf.entry), notes: [] };
}

/** True when the ELF entry can be entered in long mode: it is loaded, and our page tables map it. */
function hasEntry64(elf: ElfKernel): boolean {
  return elf.bits === 64 && elf.entry < BigInt(HOLE_END_GPA) && inSegments(elf, elf.entry);
}

/**
 * The 64-bit entry where the file has one: an ELF entry inside the loaded image. PVH where it has only that, as with
 * kernels whose ELF entry is virtual (FreeBSD), 32-bit, or the PVH entry itself.
 */
function chooseEntry(
  file: ImageFile,
  elf: ElfKernel,
  wanted: NonNullable<KernelBoot['entry']>,
): { kind: '64bit' } | { kind: 'pvh'; gpa: number } {
  const { pvhEntry } = elf;
  const pvh = pvhEntry !== undefined && inSegments(elf, BigInt(pvhEntry)) ? pvhEntry : undefined;
  const has64 = hasEntry64(elf) && elf.entry !== BigInt(pvh ?? -1);
  if (wanted !== 'pvh' && has64) return { kind: '64bit' };
  if (wanted !== '64bit' && pvh !== undefined) return { kind: 'pvh', gpa: pvh };
  if (elf.bits === 32) {
    throw imageError(
      file.label,
      'the ELF kernel is 32-bit only, with neither a PVH note nor a multiboot header',
      'use a kernel built for x86-64',
    );
  }
  throw imageError(
    file.label,
    wanted === 'auto'
      ? `its ELF entry 0x${elf.entry.toString(16)} lies outside its segments, and it has no PVH note`
      : `it has no ${wanted === 'pvh' ? 'PVH' : '64-bit'} entry`,
    'build the kernel with CONFIG_PVH, or give its bzImage',
  );
}

function placeInitrd(
  memory: GuestMemory,
  source: InitrdSource | undefined,
  floor: number,
  maxGpa: number,
  shape: ResolvedShape,
): Region | undefined {
  if (source === undefined) return undefined;
  return loadInitrd(memory, source, floor, maxGpa + 1, shape.loadSegment);
}

function bootParams(shape: ResolvedShape, memory: GuestMemory, cmdline: Uint8Array, initrd: Region | undefined) {
  return {
    cmdline,
    initrd,
    rsdpGpa: shape.rsdpGpa,
    map: memoryMap(memory.ranges, shape.reserved),
    rngSeed: shape.rngSeed ?? randomBytes(32),
  };
}
