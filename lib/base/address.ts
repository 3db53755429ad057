/**
 * Guest physical addresses as a type of their own, so that they can't be confused with offsets or host addresses.
 * They are numbers, exact to 2^52 (the widest physical address of x86-64), and never go through 32-bit operators.
 */

declare const gpaBrand: unique symbol;

/** A guest physical address. */
export type Gpa = number & { readonly [gpaBrand]: true };

export const MAX_GPA = 2 ** 52;

/**
 * Makes a guest physical address of a number or bigint.
 *
 * @throws RangeError when it is negative, not whole, or at or over 2^52.
 */
export function gpa(value: number | bigint): Gpa {
  const number = Number(value);
  if (!Number.isSafeInteger(number) || number < 0 || number >= MAX_GPA) {
    throw new RangeError(`${String(value)} is no guest physical address`);
  }
  return number as Gpa;
}

/** An address for people: 0x with at least eight digits. */
export function formatGpa(address: number | bigint): string {
  return `0x${address.toString(16).padStart(8, '0')}`;
}
