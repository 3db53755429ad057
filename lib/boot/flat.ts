/**
 * Flat images: bytes put at an address and started in real, protected or long mode, exactly as the public contract
 * says under "Flat images". No kernel format is looked for. What stands in memory in long mode:
 *
 *   0x8000 GDT   0x8100 TSS   0x9000 PML4   0xa000 PDPT   0xb000 page directories   0xf000 stack for ring 3's interrupts
 */
import { Rflags, SegmentType } from '../abi/x86.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { viewOf } from './bytes.js';
import { imageError, type ImageFile } from './errors.js';
import { copySegment, type SegmentLoader } from './segment.js';
import {
  descriptor,
  flatCode32,
  flatCode64,
  flatData,
  long64State,
  protected32State,
  real16State,
  writeIdentityMap4GiB,
  writeTable,
  type CpuState,
} from './registers.js';

export type FlatMode = 'real16' | 'protected32' | 'long64';

export interface FlatOptions {
  readonly address: number;
  /** Where execution starts. Default: the address. */
  readonly entry?: number;
  readonly mode: FlatMode;
}

/** The first stack pointer, in every mode. */
export const FLAT_STACK_GPA = 0x7000;
/** What belongs to the tables of long mode: no image may touch it there. */
export const FLAT_TABLES_START_GPA = 0x8000;
export const FLAT_TABLES_END_GPA = 0x10000;

const TSS_GPA = 0x8100;
const PAGE_TABLES_GPA = 0x9000;
/** A 64-bit TSS (SDM 3A, 7.7): 104 bytes; RSP0 at 4, the offset of the I/O bitmap at 102. */
const TSS_BYTES = 104;
const TSS_RSP0 = 4;
const TSS_IO_MAP_BASE = 102;
const SELECTOR = { CODE: 0x08, DATA: 0x10, TSS: 0x28 } as const;

/**
 * Writes a flat image and its tables into guest memory.
 *
 * @param image the bytes, or an open file.
 * @throws RangeError when address or entry are no addresses, or the entry of real16 is not below 64 KiB;
 *   VmmError ERR_KERNEL_IMAGE when the image is empty, outside guest memory, or on the tables of long mode.
 */
export function loadFlat(
  memory: GuestMemory,
  image: Uint8Array | ImageFile,
  options: FlatOptions,
  loadSegment: SegmentLoader = copySegment,
): CpuState {
  const { address, mode } = options;
  const entry = options.entry ?? address;
  checkAddress('address', address);
  checkAddress('entry', entry);
  const label = image instanceof Uint8Array ? 'flat image' : image.label;
  const sizeBytes = image instanceof Uint8Array ? image.length : image.sizeBytes;
  const end = address + sizeBytes;
  if (sizeBytes === 0) throw imageError(label, 'it is empty', 'give at least one instruction');
  if (mode === 'real16' && entry > 0xffff) {
    throw new RangeError(`flat: entry 0x${entry.toString(16)} of a real16 image is not below 64 KiB`);
  }
  if (mode !== 'long64' && entry > 0xffff_ffff) {
    throw new RangeError(`flat: entry 0x${entry.toString(16)} of a ${mode} image is not below 4 GiB`);
  }
  if (!memory.contains(address, sizeBytes)) {
    throw imageError(
      label,
      `its ${sizeBytes} bytes at 0x${address.toString(16)} are not inside guest memory`,
      'give another address, or the machine more memory',
    );
  }
  const touchesTables = address < FLAT_TABLES_END_GPA && end > FLAT_TABLES_START_GPA;
  if (mode === 'long64') {
    if (touchesTables) {
      throw imageError(
        label,
        `it lies on the tables of long64 between 0x8000 and 0x10000 (it takes 0x${address.toString(16)} to 0x${end.toString(16)})`,
        'put it at 0x10000 or above',
      );
    }
    if (!memory.contains(FLAT_TABLES_START_GPA, FLAT_TABLES_END_GPA - FLAT_TABLES_START_GPA)) {
      throw imageError(label, 'there is no guest memory for the tables of long64', 'give the machine 64 KiB or more');
    }
  }
  if (image instanceof Uint8Array) memory.write(address, image);
  else loadSegment(memory, image, 0, address, sizeBytes);

  switch (mode) {
    case 'real16':
      return real16State({ rip: BigInt(entry), rsp: BigInt(FLAT_STACK_GPA) });
    case 'protected32':
      return enterProtected32(memory, entry, touchesTables);
    case 'long64':
      return enterLong64(memory, entry);
    default:
      throw new TypeError(`flat: mode '${String(mode)}' is none of real16, protected32, long64`);
  }
}

function checkAddress(name: string, value: number): void {
  if (typeof value !== 'number') throw new TypeError(`flat: ${name}: a number is wanted`);
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`flat: ${name}: ${value} is no address`);
}

function enterProtected32(memory: GuestMemory, entry: number, imageOnTables: boolean): CpuState {
  // The selectors work without a table. One is left behind for guests that return from interrupts before their own
  // lgdt, unless the image wants the place.
  const gdt =
    imageOnTables || !memory.contains(FLAT_TABLES_START_GPA, 24)
      ? undefined
      : writeTable(memory, FLAT_TABLES_START_GPA, [0n, flatCode32, flatData()]);
  return protected32State(
    { rip: BigInt(entry), rsp: BigInt(FLAT_STACK_GPA) },
    { code: SELECTOR.CODE, data: SELECTOR.DATA },
    gdt,
  );
}

function enterLong64(memory: GuestMemory, entry: number): CpuState {
  const gdt = writeTable(memory, FLAT_TABLES_START_GPA, [
    0n,
    flatCode64(), // 0x08
    flatData(), // 0x10
    flatData(3), // 0x1b
    flatCode64(3), // 0x23
    // 0x28: available, not busy, so that a guest may load it again with ltr.
    descriptor({ base: TSS_GPA, limit: TSS_BYTES - 1, type: SegmentType.TSS_AVAILABLE, system: true }),
    0n,
  ]);
  const tss = new Uint8Array(TSS_BYTES);
  const view = viewOf(tss);
  view.setBigUint64(TSS_RSP0, BigInt(FLAT_TABLES_END_GPA), true);
  view.setUint16(TSS_IO_MAP_BASE, TSS_BYTES, true);
  memory.write(TSS_GPA, tss);
  writeIdentityMap4GiB(memory, PAGE_TABLES_GPA, { user: true });
  return long64State(
    { rip: BigInt(entry), rsp: BigInt(FLAT_STACK_GPA), rflags: Rflags.IOPL3 },
    {
      selectors: { code: SELECTOR.CODE, data: SELECTOR.DATA },
      gdt,
      pml4Gpa: PAGE_TABLES_GPA,
      tss: { gpa: TSS_GPA, sizeBytes: TSS_BYTES, selector: SELECTOR.TSS },
      sse: true,
    },
  );
}
