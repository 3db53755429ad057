/**
 * Checks on what callers hand in, made before any native code runs: misspelled option names are named,
 * with the nearest right one.
 */

/**
 * Refuses names in `given` that are not in `known`.
 *
 * @throws TypeError naming the first unknown option and the nearest known one.
 */
export function checkOptionNames(what: string, given: object, known: readonly string[]): void {
  for (const name of Object.keys(given)) {
    if (known.includes(name)) continue;
    const near = nearest(name, known);
    throw new TypeError(`${what}: unknown option '${name}'${near === undefined ? '' : `; did you mean '${near}'?`}`);
  }
}

/** The member of `known` that is at most two edits away from `name`, if there is one. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  let best: { name: string; distance: number } | undefined;
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance <= 2 && (best === undefined || distance < best.distance)) best = { name: candidate, distance };
  }
  return best?.name;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substitution = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      current.push(Math.min(substitution, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}

/**
 * A whole number within bounds, both included.
 *
 * @throws TypeError when it is no number; RangeError outside the bounds or with a fraction.
 */
export function checkInteger(name: string, value: unknown, minimum: number, maximum: number): number {
  if (typeof value !== 'number' || Number.isNaN(value)) throw new TypeError(`${name}: a number is wanted`);
  if (!Number.isInteger(value) || value < minimum || value > maximum) {
    throw new RangeError(`${name}: ${value} is not a whole number from ${minimum} to ${maximum}`);
  }
  return value;
}
