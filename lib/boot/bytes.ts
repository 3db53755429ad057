/**
 * Little-endian bytes, put together and taken apart: the alphabet of the boot structures and tables.
 * Values are checked, never cut: a number that does not fit its width is a mistake of the caller.
 */

/** One buffer holding all parts, in order. */
export function concatBytes(...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

/**
 * `value` in `widthBytes` little-endian bytes.
 *
 * @throws RangeError when the value is negative, has a fraction, or does not fit.
 */
export function littleEndian(value: number | bigint, widthBytes: number): Uint8Array {
  let rest = BigInt(value);
  if (rest < 0n || rest >> BigInt(8 * widthBytes) !== 0n) {
    throw new RangeError(`${value} does not fit ${widthBytes} bytes`);
  }
  const out = new Uint8Array(widthBytes);
  for (let index = 0; index < widthBytes; index++) {
    out[index] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return out;
}

/** The characters as bytes, one each. @throws RangeError for a character outside ASCII. */
export function ascii(text: string): Uint8Array {
  const out = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code > 0x7f) throw new RangeError(`'${text}' holds a character outside ASCII`);
    out[index] = code;
  }
  return out;
}

/** A DataView over exactly these bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
