/**
 * Two small orders among asynchronous tasks: Mutex, one at a time; Generations, which tells when everything that began
 * before a moment has ended, so that a cluster is given to a new owner only after the last reader of the old one.
 */

export class Mutex {
  #last: Promise<unknown> = Promise.resolve();

  run<T>(task: () => Promise<T> | T): Promise<T> {
    const result = this.#last.then(task);
    this.#last = result.catch(() => undefined);
    return result;
  }
}

export class Generations {
  #current = 0;
  /** How many of each generation are in flight; ascending, since keys are only added at the end. */
  readonly #active = new Map<number, number>();

  enter(): number {
    this.#active.set(this.#current, (this.#active.get(this.#current) ?? 0) + 1);
    return this.#current;
  }

  leave(generation: number): void {
    const left = (this.#active.get(generation) ?? 1) - 1;
    if (left === 0) this.#active.delete(generation);
    else this.#active.set(generation, left);
  }

  /** Closes the current generation and returns it: later ones can't have seen what was replaced before. */
  turn(): number {
    return this.#current++;
  }

  /** True when nothing of `generation` or before is in flight. */
  isOver(generation: number): boolean {
    for (const active of this.#active.keys()) return active > generation;
    return true;
  }
}
