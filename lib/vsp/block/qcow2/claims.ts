/**
 * Guest clusters whose place is being changed: one change at a time for each, others wait for its end and look again.
 * Requests to other clusters go on.
 */
export class Claims {
  readonly #busy = new Map<number, Promise<void>>();

  /** Resolves when the present claim on the cluster ends; undefined without one. */
  of(cluster: number): Promise<void> | undefined {
    return this.#busy.get(cluster);
  }

  /** How many of `count` clusters from `cluster` on are free. */
  free(cluster: number, count: number): number {
    if (this.#busy.size === 0) return count;
    for (let index = 0; index < count; index++) if (this.#busy.has(cluster + index)) return index;
    return count;
  }

  /** Claims clusters that are free until `task` ends. */
  async hold(cluster: number, count: number, task: () => Promise<void>): Promise<void> {
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    for (let index = 0; index < count; index++) this.#busy.set(cluster + index, held);
    try {
      await task();
    } finally {
      for (let index = 0; index < count; index++) this.#busy.delete(cluster + index);
      release();
    }
  }
}
