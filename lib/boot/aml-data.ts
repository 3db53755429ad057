/**
 * Data objects of the ACPI Machine Language: names, integers, texts, buffers and packages, and the PkgLength around them.
 * The bottom of the encoder: aml.ts and aml-resources.ts build on it, and aml.ts re-exports it for devices.
 * Section numbers are those of ACPI 6.5, chapter 20.
 */
import { AmlOp } from '../abi/aml.js';
import { ascii, concatBytes, littleEndian } from './bytes.js';

/** Encoded AML. */
export type Aml = Uint8Array;
/** A term: encoded AML, or a number or bigint, which is encoded as an integer. */
export type Term = Aml | number | bigint;

/** The bytes of a term. */
export function term(value: Term): Aml {
  return value instanceof Uint8Array ? value : integer(value);
}

/** Terms one after another, such as the body of a device. */
export function terms(...parts: readonly Term[]): Aml {
  return concatBytes(...parts.map(term));
}

/**
 * A PkgLength that covers itself and `contentBytes` bytes after it (20.2.4).
 *
 * @throws RangeError at 2^28 bytes and above.
 */
export function pkgLength(contentBytes: number): Aml {
  if (contentBytes + 1 <= 0x3f) return Uint8Array.of(contentBytes + 1);
  for (const following of [1, 2, 3]) {
    const total = contentBytes + 1 + following;
    if (total < 2 ** (4 + 8 * following)) {
      return concatBytes([(following << 6) | (total & 0xf)], littleEndian(Math.floor(total / 16), following));
    }
  }
  throw new RangeError(`a package of ${contentBytes} bytes is too long for AML`);
}

/** An opcode, a PkgLength and what it covers. */
export function packaged(opcode: readonly number[], ...parts: readonly Aml[]): Aml {
  const content = concatBytes(...parts);
  return concatBytes(opcode, pkgLength(content.length), content);
}

/**
 * A NameString (20.2.2): '\\_SB.PCI0', '^COM1', '_HID'. Segments are upper case, padded with underscores to four.
 *
 * @throws RangeError for a text that is no name.
 */
export function name(path: string): Aml {
  const match = /^(\\|\^*)(.*)$/s.exec(path);
  const prefix = match?.[1] ?? '';
  const rest = match?.[2] ?? '';
  const segments = rest === '' ? [] : rest.split('.');
  if (segments.length > 255 || segments.some((segment) => !/^[A-Z_][A-Z0-9_]{0,3}$/.test(segment))) {
    throw new RangeError(`'${path}' is no ACPI name`);
  }
  if (segments.length === 0 && prefix === '') throw new RangeError('an ACPI name is empty');
  const lead =
    segments.length === 0
      ? [0x00]
      : segments.length === 1
        ? []
        : segments.length === 2
          ? [AmlOp.DUAL_NAME_PREFIX]
          : [AmlOp.MULTI_NAME_PREFIX, segments.length];
  return concatBytes(ascii(prefix), lead, ascii(segments.map((segment) => segment.padEnd(4, '_')).join('')));
}

/**
 * An integer in its shortest form (20.2.3). 64-bit values are right in a DSDT of revision 2, which ours is.
 *
 * @throws RangeError when negative, fractional or beyond 64 bits.
 */
export function integer(value: number | bigint): Aml {
  const big = BigInt(value);
  if (big === 0n) return Uint8Array.of(AmlOp.ZERO);
  if (big === 1n) return Uint8Array.of(AmlOp.ONE);
  if (big === 0xffff_ffff_ffff_ffffn) return Uint8Array.of(AmlOp.ONES);
  if (big > 0n && big <= 0xffn) return concatBytes([AmlOp.BYTE_PREFIX], littleEndian(big, 1));
  if (big > 0n && big <= 0xffffn) return concatBytes([AmlOp.WORD_PREFIX], littleEndian(big, 2));
  if (big > 0n && big <= 0xffff_ffffn) return concatBytes([AmlOp.DWORD_PREFIX], littleEndian(big, 4));
  return concatBytes([AmlOp.QWORD_PREFIX], littleEndian(big, 8));
}

/** A text: ASCII without NUL, ended by one. @throws RangeError otherwise. */
export function string(text: string): Aml {
  if (text.includes('\0')) throw new RangeError('a NUL ends an AML string');
  return concatBytes([AmlOp.STRING_PREFIX], ascii(text), [0]);
}

/** Buffer () {bytes}, its size being that of the bytes. */
export function buffer(bytes: Uint8Array): Aml {
  return packaged([AmlOp.BUFFER], integer(bytes.length), bytes);
}

/** Package () {elements}. @throws RangeError for more than 255. */
export function packageOp(elements: readonly Term[]): Aml {
  return packaged([AmlOp.PACKAGE], littleEndian(elements.length, 1), terms(...elements));
}

/**
 * A compressed EISA id such as 'PNP0501', as _HID and _CID take it (19.3.4).
 *
 * @throws RangeError when it is not three capital letters and four capital hexadecimal digits.
 */
export function eisaId(id: string): Aml {
  if (!/^[A-Z]{3}[0-9A-F]{4}$/.test(id)) throw new RangeError(`'${id}' is no EISA id`);
  const [first = 0, second = 0, third = 0] = [...id.slice(0, 3)].map((letter) => letter.charCodeAt(0) - 0x40);
  const product = parseInt(id.slice(3), 16);
  return concatBytes(
    [AmlOp.DWORD_PREFIX],
    [(first << 2) | (second >> 3), ((second & 7) << 5) | third, product >> 8, product & 0xff],
  );
}
