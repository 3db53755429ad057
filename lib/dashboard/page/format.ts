/** Numbers as people read them. */

const SI = ['', 'k', 'M', 'G', 'T'];

/** In steps of 1000, with three digits or so: '12.3 k'. */
export function formatCount(value: number): string {
  return scaled(value, 1000, SI).trim();
}

/** In steps of 1024: '4 KiB'. */
export function formatBytes(bytes: number): string {
  return scaled(bytes, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);
}

function scaled(value: number, step: number, units: readonly string[]): string {
  let at = 0;
  let rest = value;
  while (Math.abs(rest) >= step && at < units.length - 1) {
    rest /= step;
    at++;
  }
  const digits = Math.abs(rest) >= 100 || Number.isInteger(rest) ? 0 : Math.abs(rest) >= 10 ? 1 : 2;
  return `${rest.toFixed(digits)} ${units[at] ?? ''}`;
}
