/**
 * Resource descriptors of ACPI (6.5, section 6.4): what a device says of its ports, memory and interrupts in _CRS.
 * Each function returns one descriptor; resourceTemplate makes the buffer of them. Re-exported by aml.ts.
 */
import { AddressSpaceType, ResourceTag } from '../abi/aml.js';
import { buffer } from './aml-data.js';
import { concatBytes, littleEndian } from './bytes.js';

/** ResourceTemplate () {descriptors}: a buffer ended by an end tag whose checksum 0 means "not checked" (6.4.2.9). */
export function resourceTemplate(...descriptors: readonly Uint8Array[]): Uint8Array {
  return buffer(concatBytes(...descriptors, [ResourceTag.END, 0]));
}

/** IO (Decode16, min, min, 1, length): fixed ports. */
export function io(port: number, lengthBytes: number): Uint8Array {
  return concatBytes(
    [ResourceTag.IO_PORT, 1],
    littleEndian(port, 2),
    littleEndian(port, 2),
    [1],
    littleEndian(lengthBytes, 1),
  );
}

function irqMask(irqs: readonly number[]): Uint8Array {
  let mask = 0;
  for (const irq of irqs) {
    if (!Number.isInteger(irq) || irq < 0 || irq > 15) throw new RangeError(`IRQ ${irq} is not one of the 16 of ISA`);
    mask |= 1 << irq;
  }
  return littleEndian(mask, 2);
}

/** IRQNoFlags () {irqs}: ISA interrupts, edge, active high. */
export function irqNoFlags(...irqs: readonly number[]): Uint8Array {
  return concatBytes([ResourceTag.IRQ_NO_FLAGS], irqMask(irqs));
}

export interface InterruptMode {
  readonly trigger: 'edge' | 'level';
  readonly polarity: 'high' | 'low';
  readonly shared?: boolean;
}

/** IRQ (mode) {irqs}: ISA interrupts with their mode said. */
export function irq(mode: InterruptMode, ...irqs: readonly number[]): Uint8Array {
  const flags =
    (mode.trigger === 'edge' ? 1 : 0) | (mode.polarity === 'low' ? 1 << 3 : 0) | (mode.shared === true ? 1 << 4 : 0);
  return concatBytes([ResourceTag.IRQ], irqMask(irqs), [flags]);
}

/** Interrupt (ResourceConsumer, mode) {gsis}: global system interrupts. */
export function interrupt(mode: InterruptMode, ...gsis: readonly number[]): Uint8Array {
  const flags =
    1 |
    (mode.trigger === 'edge' ? 1 << 1 : 0) |
    (mode.polarity === 'low' ? 1 << 2 : 0) |
    (mode.shared === true ? 1 << 3 : 0);
  return concatBytes(
    [ResourceTag.EXTENDED_INTERRUPT],
    littleEndian(2 + 4 * gsis.length, 2),
    [flags],
    littleEndian(gsis.length, 1),
    ...gsis.map((gsi) => littleEndian(gsi, 4)),
  );
}

/** Memory32Fixed (ReadWrite or ReadOnly, base, length). */
export function memory32Fixed(base: number, lengthBytes: number, options: { readOnly?: boolean } = {}): Uint8Array {
  return concatBytes(
    [ResourceTag.MEMORY32_FIXED],
    littleEndian(9, 2),
    [options.readOnly === true ? 0 : 1],
    littleEndian(base, 4),
    littleEndian(lengthBytes, 4),
  );
}

/** A window that a bridge passes on: first address (or bus) and how many. */
export interface Window {
  readonly first: number | bigint;
  readonly length: number | bigint;
}

/** General flags of a window: ResourceProducer, positive decode, minimum and maximum fixed (6.4.3.5). */
const PRODUCER_FIXED = 0x0c;

function addressSpace(tag: number, width: 2 | 4 | 8, type: number, typeFlags: number, window: Window): Uint8Array {
  const first = BigInt(window.first);
  const length = BigInt(window.length);
  if (length <= 0n) throw new RangeError('an address window of no length');
  return concatBytes(
    [tag],
    littleEndian(3 + 5 * width, 2),
    [type, PRODUCER_FIXED, typeFlags],
    littleEndian(0, width),
    littleEndian(first, width),
    littleEndian(first + length - 1n, width),
    littleEndian(0, width),
    littleEndian(length, width),
  );
}

/** WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode): the buses below a host bridge. */
export function wordBusNumber(window: Window): Uint8Array {
  return addressSpace(ResourceTag.WORD_ADDRESS_SPACE, 2, AddressSpaceType.BUS_NUMBER, 0, window);
}

/** WordIO (ResourceProducer, ..., EntireRange): a window of ports. */
export function wordIo(window: Window): Uint8Array {
  return addressSpace(ResourceTag.WORD_ADDRESS_SPACE, 2, AddressSpaceType.IO, 3, window);
}

/** Type flags of a memory window: ReadWrite, NonCacheable (6.4.3.5.5). */
const MEMORY_READ_WRITE = 1;

/** DWordMemory (ResourceProducer, ..., NonCacheable, ReadWrite): a window below 4 GiB. */
export function dwordMemory(window: Window): Uint8Array {
  return addressSpace(ResourceTag.DWORD_ADDRESS_SPACE, 4, AddressSpaceType.MEMORY, MEMORY_READ_WRITE, window);
}

/** QWordMemory (ResourceProducer, ..., NonCacheable, ReadWrite): a window anywhere. */
export function qwordMemory(window: Window): Uint8Array {
  return addressSpace(ResourceTag.QWORD_ADDRESS_SPACE, 8, AddressSpaceType.MEMORY, MEMORY_READ_WRITE, window);
}
