/**
 * Small kernel images for tests, built field by field, so that a test can get exactly one of them wrong.
 * Not a loader and not used by one: only tests of this room and of rooms above import it.
 */
import { Elf32Header, Elf32Segment, Elf64Header, Elf64Segment, ELF_MAGIC } from '../abi/elf.js';
import { BOOT_FLAG_MAGIC, SECTOR_BYTES, SETUP_HEADER_MAGIC, SetupHeader } from '../abi/linux-boot.js';
import { MULTIBOOT_HEADER_MAGIC, MultibootHeader } from '../abi/multiboot.js';
import { ascii, concatBytes, littleEndian, viewOf } from './bytes.js';

export interface TestSegment {
  readonly type?: number;
  readonly offset?: bigint;
  readonly paddr: bigint;
  readonly data: Uint8Array;
  readonly fileBytes?: bigint;
  readonly memoryBytes?: bigint;
}

export interface TestElf {
  readonly bits: 32 | 64;
  readonly entry: bigint;
  readonly segments: readonly TestSegment[];
  readonly machine?: number;
  readonly type?: number;
  readonly data?: number;
  readonly segmentHeaderBytes?: number;
  readonly sectionsAt?: bigint;
  readonly sectionCount?: number;
}

/** An ELF file: header, program headers, then the segments' bytes one after another. */
export function buildElf(options: TestElf): Uint8Array {
  const is64 = options.bits === 64;
  const header = is64 ? Elf64Header : Elf32Header;
  const segment = is64 ? Elf64Segment : Elf32Segment;
  const headersEnd = header.SIZE + options.segments.length * segment.SIZE;
  const head = new Uint8Array(headersEnd);
  const view = viewOf(head);
  const word = (at: number, value: bigint): void => {
    if (is64) view.setBigUint64(at, value, true);
    else view.setUint32(at, Number(value), true);
  };
  view.setUint32(0, ELF_MAGIC, true);
  head.set([is64 ? 2 : 1, options.data ?? 1, 1], 4);
  view.setUint16(header.TYPE, options.type ?? 2, true);
  view.setUint16(header.MACHINE, options.machine ?? (is64 ? 62 : 3), true);
  word(header.ENTRY, options.entry);
  word(header.PHOFF, BigInt(header.SIZE));
  word(header.SHOFF, options.sectionsAt ?? 0n);
  view.setUint16(header.PHENTSIZE, options.segmentHeaderBytes ?? segment.SIZE, true);
  view.setUint16(header.PHNUM, options.segments.length, true);
  view.setUint16(header.SHENTSIZE, 64, true);
  view.setUint16(header.SHNUM, options.sectionCount ?? 0, true);
  let offset = headersEnd;
  options.segments.forEach((entry, index) => {
    const at = header.SIZE + index * segment.SIZE;
    view.setUint32(at + segment.TYPE, entry.type ?? 1, true);
    word(at + segment.OFFSET, entry.offset ?? BigInt(offset));
    word(at + segment.PADDR, entry.paddr);
    word(at + segment.FILESZ, entry.fileBytes ?? BigInt(entry.data.length));
    word(at + segment.MEMSZ, entry.memoryBytes ?? BigInt(entry.data.length));
    offset += entry.data.length;
  });
  return concatBytes(head, ...options.segments.map((entry) => entry.data));
}

/** The bytes of a note with owner "Xen" and type PHYS32_ENTRY. */
export function pvhNote(entry: number, valueBytes: 4 | 8 = 4): Uint8Array {
  return concatBytes(littleEndian(4, 4), littleEndian(valueBytes, 4), littleEndian(18, 4), ascii('Xen\0'), [
    ...littleEndian(entry, valueBytes),
  ]);
}

export interface TestBzImage {
  /** What stands in the protected-mode kernel as its payload. */
  readonly payload: Uint8Array;
  readonly protocol?: number;
  readonly xloadflags?: number;
  readonly loadflags?: number;
  readonly setupSectors?: number;
  readonly preferredGpa?: bigint;
  readonly initBytes?: number;
  readonly cmdlineBytes?: number;
  readonly initrdMaxGpa?: number;
  readonly headerBytes?: number;
  readonly payloadOffset?: number;
  readonly payloadBytes?: number;
  readonly systemUnits?: number;
  /** Bytes appended like the signature of Secure Boot, with a PE header that names them. */
  readonly signature?: Uint8Array;
}

/** Bytes before the payload in the protected-mode kernel of buildBzImage: more than the 64-bit entry's offset. */
export const TEST_PAYLOAD_OFFSET = 0x400;

/** A bzImage with a setup of four sectors unless said otherwise. */
export function buildBzImage(options: TestBzImage): Uint8Array {
  const sectors = options.setupSectors ?? 4;
  const setupBytes = ((sectors || 4) + 1) * SECTOR_BYTES;
  const systemBytes = Math.ceil((TEST_PAYLOAD_OFFSET + options.payload.length) / 16) * 16;
  const file = new Uint8Array(setupBytes + systemBytes + (options.signature?.length ?? 0));
  const view = viewOf(file);
  file[SetupHeader.SETUP_SECTS] = sectors;
  view.setUint32(SetupHeader.SYSSIZE, options.systemUnits ?? systemBytes / 16, true);
  view.setUint16(SetupHeader.BOOT_FLAG, BOOT_FLAG_MAGIC, true);
  file.set([0xeb, options.headerBytes ?? 0x6a], 0x200);
  view.setUint32(SetupHeader.HEADER, SETUP_HEADER_MAGIC, true);
  view.setUint16(SetupHeader.VERSION, options.protocol ?? 0x20f, true);
  file[SetupHeader.LOADFLAGS] = options.loadflags ?? 1;
  view.setUint16(SetupHeader.XLOADFLAGS, options.xloadflags ?? 3, true);
  view.setUint32(SetupHeader.INITRD_ADDR_MAX, options.initrdMaxGpa ?? 0x7fff_ffff, true);
  view.setUint32(SetupHeader.KERNEL_ALIGNMENT, 0x200000, true);
  view.setUint32(SetupHeader.CMDLINE_SIZE, options.cmdlineBytes ?? 2047, true);
  view.setUint32(SetupHeader.PAYLOAD_OFFSET, options.payloadOffset ?? TEST_PAYLOAD_OFFSET, true);
  view.setUint32(SetupHeader.PAYLOAD_LENGTH, options.payloadBytes ?? options.payload.length, true);
  view.setBigUint64(SetupHeader.PREF_ADDRESS, options.preferredGpa ?? 0x100_0000n, true);
  view.setUint32(SetupHeader.INIT_SIZE, options.initBytes ?? Math.max(0x10_0000, systemBytes), true);
  // The protected-mode kernel: a mark at the 64-bit entry, then the payload.
  file.set(ascii('ENTRY64'), setupBytes + 0x200);
  file.set(options.payload, setupBytes + TEST_PAYLOAD_OFFSET);
  if (options.signature) {
    file.set(ascii('MZ'), 0);
    view.setUint32(0x3c, 0x40, true);
    file.set(ascii('PE\0\0'), 0x40);
    view.setUint16(0x40 + 24, 0x20b, true);
    view.setUint32(0x40 + 24 + 108, 6, true);
    view.setUint32(0x40 + 24 + 112 + 32, setupBytes + systemBytes, true);
    view.setUint32(0x40 + 24 + 112 + 36, options.signature.length, true);
    file.set(options.signature, setupBytes + systemBytes);
  }
  return file;
}

/** A multiboot header; with `addresses` in the order header, load, loadEnd, bssEnd, entry. */
export function multibootHeader(flags: number, addresses?: readonly number[]): Uint8Array {
  const checksum = (2 ** 33 - MULTIBOOT_HEADER_MAGIC - flags) % 2 ** 32;
  const base = concatBytes(littleEndian(MULTIBOOT_HEADER_MAGIC, 4), littleEndian(flags, 4), littleEndian(checksum, 4));
  if (!addresses) return base;
  const all = concatBytes(base, ...addresses.map((address) => littleEndian(address, 4)));
  if (all.length !== MultibootHeader.SIZE_WITH_ADDRESSES) throw new RangeError('five addresses are wanted');
  return all;
}

/** Packs as LZ4's legacy frame does, greedily; blocks of `blockBytes` unpacked. */
export function packLz4Legacy(data: Uint8Array, blockBytes = 8 * 1024 * 1024): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += blockBytes) {
    const block = packLz4Block(data.subarray(at, at + blockBytes));
    blocks.push(littleEndian(block.length, 4), block);
  }
  return concatBytes([0x02, 0x21, 0x4c, 0x18], ...blocks);
}

function packLz4Block(data: Uint8Array): Uint8Array {
  const out: number[] = [];
  const seen = new Map<string, number>();
  const length = (value: number): void => {
    for (; value >= 255; value -= 255) out.push(255);
    out.push(value);
  };
  let literalsFrom = 0;
  for (let at = 0; at < data.length;) {
    const key = data.subarray(at, at + 4).join();
    const from = seen.get(key);
    seen.set(key, at);
    // The format wants the last five bytes as literals, and matches of four bytes at least.
    if (from === undefined || at - from > 0xffff || at + 12 > data.length) {
      at++;
      continue;
    }
    let matched = 4;
    while (at + matched < data.length - 5 && data[from + matched] === data[at + matched]) matched++;
    const literals = at - literalsFrom;
    out.push((Math.min(literals, 15) << 4) | Math.min(matched - 4, 15));
    if (literals >= 15) length(literals - 15);
    out.push(...data.subarray(literalsFrom, at), (at - from) & 0xff, (at - from) >> 8);
    if (matched - 4 >= 15) length(matched - 4 - 15);
    at += matched;
    literalsFrom = at;
  }
  const literals = data.length - literalsFrom;
  out.push(Math.min(literals, 15) << 4);
  if (literals >= 15) length(literals - 15);
  out.push(...data.subarray(literalsFrom));
  return Uint8Array.from(out);
}
