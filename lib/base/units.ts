/**
 * Sizes: parsing what users write ('256M', '256MiB', 4096), page arithmetic, and their names.
 * Everything is in bytes as a number, exact up to 2^53.
 */

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const PAGE_SIZE = 4096;

const SUFFIXES = new Map<string, number>([
  ['', 1],
  ['b', 1],
  ['k', KiB],
  ['kib', KiB],
  ['m', MiB],
  ['mib', MiB],
  ['g', GiB],
  ['gib', GiB],
  ['t', 1024 * GiB],
  ['tib', 1024 * GiB],
]);

/**
 * Reads a size: a number of bytes, or text such as '256M', '256MiB', '1g'. Suffixes are powers of 1024.
 *
 * @throws TypeError for something that is not a size; RangeError for one that is negative or not a whole number of bytes.
 * @example parseSize('256M') // 268435456
 */
export function parseSize(value: number | string, name = 'size'): number {
  if (typeof value !== 'number' && typeof value !== 'string') {
    throw new TypeError(`${name}: a number of bytes or a text such as '256MiB' is wanted`);
  }
  let bytes: number;
  if (typeof value === 'number') {
    bytes = value;
  } else {
    const match = /^\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*$/.exec(value);
    const factor = match ? SUFFIXES.get((match[2] ?? '').toLowerCase()) : undefined;
    if (!match || factor === undefined)
      throw new TypeError(`${name}: '${value}' is no size; write it as 256M or 256MiB`);
    bytes = Number(match[1]) * factor;
  }
  if (!Number.isSafeInteger(bytes) || bytes < 0) {
    throw new RangeError(`${name}: ${String(value)} is not a whole, positive number of bytes`);
  }
  return bytes;
}

/** A size for people: the largest binary unit in which it is a short number, such as '256 MiB'. */
export function formatSize(bytes: number): string {
  for (const [unit, size] of [
    ['GiB', GiB],
    ['MiB', MiB],
    ['KiB', KiB],
  ] as const) {
    if (bytes >= size) return `${Number((bytes / size).toFixed(1))} ${unit}`;
  }
  return `${bytes} bytes`;
}

/** The next multiple of `alignment` (a power of two or any positive number) at or above `value`. */
export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

/** The multiple of `alignment` at or below `value`. */
export function alignDown(value: number, alignment: number): number {
  return Math.floor(value / alignment) * alignment;
}
