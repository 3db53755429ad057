/**
 * bzImage: the setup header read and checked, and the protected-mode kernel put into memory for its 64-bit entry.
 * Source: Documentation/arch/x86/boot.rst. What it has packed inside is the business of payload.ts and vmlinux-cache.ts.
 *
 *   file:  boot sector and setup, (setup_sects + 1) * 512 | protected-mode kernel, syssize * 16 | signature of Secure Boot
 */
import {
  BOOT_FLAG_MAGIC,
  DEFAULT_SETUP_SECTS,
  LoadFlag,
  MIN_BOOT_PROTOCOL,
  SECTOR_BYTES,
  SETUP_HEADER_MAGIC,
  SETUP_HEADER_MAX_END,
  SETUP_HEADER_START,
  SetupHeader,
  XLoadFlag,
} from '../abi/linux-boot.js';
import { formatSize, GiB } from '../base/units.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { viewOf } from './bytes.js';
import { imageError, type ImageFile } from './errors.js';
import type { SegmentLoader } from './segment.js';

export interface BzImage {
  /** The header from 0x1f1 to its end, as it goes into boot_params at the same offset. */
  readonly setupHeader: Uint8Array;
  /** Such as 0x20f for 2.15. */
  readonly protocol: number;
  /** The protected-mode kernel in the file. */
  readonly systemOffset: number;
  readonly systemBytes: number;
  /** The packed kernel in the file; undefined when the header names none. */
  readonly payload: { readonly offset: number; readonly lengthBytes: number } | undefined;
  readonly preferredGpa: number;
  /** Memory that it needs from preferredGpa on, until it is running. */
  readonly initBytes: number;
  readonly cmdlineBytes: number;
  readonly initrdMaxGpa: number;
}

/** Enough of a file's start for every check of its format. */
export const HEAD_BYTES = 0x300;

/** True when the bytes begin a Linux kernel with a setup header. */
export function isBzImage(head: Uint8Array): boolean {
  if (head.length < SetupHeader.VERSION) return false;
  const view = viewOf(head);
  return (
    view.getUint16(SetupHeader.BOOT_FLAG, true) === BOOT_FLAG_MAGIC &&
    view.getUint32(SetupHeader.HEADER, true) === SETUP_HEADER_MAGIC
  );
}

/**
 * Reads and checks a bzImage's header.
 *
 * @throws VmmError ERR_KERNEL_IMAGE for a kernel that is truncated, 32-bit only, or older than protocol 2.12.
 */
export function parseBzImage(file: ImageFile): BzImage {
  const head = viewOf(file.read(0, SETUP_HEADER_MAX_END));
  const protocol = head.getUint16(SetupHeader.VERSION, true);
  if (protocol < MIN_BOOT_PROTOCOL) {
    throw imageError(
      file.label,
      `its boot protocol is ${protocol >> 8}.${protocol & 0xff}, and 2.12 is the oldest with a 64-bit entry`,
      'use a 64-bit kernel of Linux 3.8 or later',
    );
  }
  if ((head.getUint16(SetupHeader.XLOADFLAGS, true) & XLoadFlag.KERNEL_64) === 0) {
    throw imageError(file.label, 'the kernel is 32-bit only: it has no 64-bit entry', 'use a kernel built for x86-64');
  }
  if ((head.getUint8(SetupHeader.LOADFLAGS) & LoadFlag.LOADED_HIGH) === 0) {
    throw imageError(file.label, 'the kernel is a zImage, which loads below 1 MiB', 'build it as a bzImage');
  }
  const headerEnd = SetupHeader.HEADER + head.getUint8(SetupHeader.JUMP_DISPLACEMENT);
  if (headerEnd < SetupHeader.END_2_12 || headerEnd > SETUP_HEADER_MAX_END) {
    throw imageError(
      file.label,
      `its setup header ends at 0x${headerEnd.toString(16)}`,
      'build or fetch the kernel again',
    );
  }

  const systemOffset = ((head.getUint8(SetupHeader.SETUP_SECTS) || DEFAULT_SETUP_SECTS) + 1) * SECTOR_BYTES;
  const systemBytes = head.getUint32(SetupHeader.SYSSIZE, true) * 16;
  const payloadOffset = head.getUint32(SetupHeader.PAYLOAD_OFFSET, true);
  const payloadBytes = head.getUint32(SetupHeader.PAYLOAD_LENGTH, true);
  // The last of the protected-mode kernel's 16-byte units may be short in the file, but not the payload within it.
  const endBytes = Math.max(systemOffset + systemBytes - 15, systemOffset + payloadOffset + payloadBytes);
  const wantedBytes = Math.max(endBytes, signatureEnd(file, head));
  if (systemBytes === 0)
    throw imageError(file.label, 'its setup header says that there is no kernel', 'build it again');
  if (file.sizeBytes < wantedBytes) {
    throw imageError(
      file.label,
      `the file is truncated: it has ${file.sizeBytes} bytes, and its headers say ${wantedBytes}`,
      'fetch or copy it again',
    );
  }
  if (payloadOffset + payloadBytes > systemBytes) {
    throw imageError(file.label, 'its payload lies outside the kernel', 'build or fetch the kernel again');
  }
  const preferred = head.getBigUint64(SetupHeader.PREF_ADDRESS, true);
  const initBytes = head.getUint32(SetupHeader.INIT_SIZE, true);
  if (preferred === 0n || preferred + BigInt(initBytes) > BigInt(4 * GiB)) {
    throw imageError(
      file.label,
      `its preferred address 0x${preferred.toString(16)} is not below 4 GiB`,
      'build it again',
    );
  }
  if (initBytes < systemBytes) {
    throw imageError(
      file.label,
      `it says that it needs ${initBytes} bytes of memory to start, and is ${systemBytes} bytes long`,
      'build or fetch the kernel again',
    );
  }
  return {
    setupHeader: file.read(SETUP_HEADER_START, headerEnd - SETUP_HEADER_START),
    protocol,
    systemOffset,
    systemBytes: Math.min(systemBytes, file.sizeBytes - systemOffset),
    payload: payloadBytes === 0 ? undefined : { offset: systemOffset + payloadOffset, lengthBytes: payloadBytes },
    preferredGpa: Number(preferred),
    initBytes,
    cmdlineBytes: head.getUint32(SetupHeader.CMDLINE_SIZE, true),
    initrdMaxGpa: head.getUint32(SetupHeader.INITRD_ADDR_MAX, true),
  };
}

/**
 * Where the signature ends that Secure Boot wants, or 0. It stands behind the kernel, so that a cut through it leaves
 * the kernel whole: it is no kernel as its maker made it all the same. (PE/COFF, attribute certificate table.)
 */
function signatureEnd(file: ImageFile, head: DataView): number {
  const peAt = head.getUint32(0x3c, true);
  if (head.getUint16(0, true) !== 0x5a4d || peAt + 0xb0 > head.byteLength) return 0;
  const isPe32Plus = head.getUint32(peAt, true) === 0x0000_4550 && head.getUint16(peAt + 24, true) === 0x20b;
  if (!isPe32Plus || head.getUint32(peAt + 24 + 108, true) < 5) return 0;
  // Data directory 4 of the optional header: offset in the file and size.
  const at = peAt + 24 + 112 + 4 * 8;
  return head.getUint32(at, true) + head.getUint32(at + 4, true);
}

/**
 * Puts the protected-mode kernel to its preferred address, where it unpacks itself.
 *
 * @returns the region that it needs until it runs.
 * @throws VmmError ERR_KERNEL_IMAGE when guest memory is too small.
 */
export function loadBzImage(
  memory: GuestMemory,
  file: ImageFile,
  image: BzImage,
  loadSegment: SegmentLoader,
): { readonly gpa: number; readonly end: number } {
  const { preferredGpa, initBytes } = image;
  if (!memory.contains(preferredGpa, initBytes)) {
    throw imageError(
      file.label,
      `it needs ${formatSize(initBytes)} from ${formatSize(preferredGpa)} on, and the machine has ${formatSize(memory.sizeBytes)}`,
      'give the machine more memory',
    );
  }
  loadSegment(memory, file, image.systemOffset, preferredGpa, image.systemBytes);
  return { gpa: preferredGpa, end: preferredGpa + initBytes };
}
