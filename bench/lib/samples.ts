/** Samples by the name of their figure, while a program runs. */
import type { Figures } from './bench.js';
import { quantile, summarise } from './stats.js';

export class Samples {
  readonly #lists = new Map<string, number[]>();

  add(name: string, value: number): void {
    const list = this.#lists.get(name);
    if (list) list.push(value);
    else this.#lists.set(name, [value]);
  }

  median(name: string): number {
    return quantile(this.#lists.get(name) ?? [], 0.5);
  }

  figures(): Figures {
    return Object.fromEntries([...this.#lists].map(([name, list]) => [name, summarise(list)]));
  }
}
