/**
 * The one owner of dirty bits. KVM's bits, and user space's, are gone when they are read, so they are read here alone,
 * joined, and added to a bitmap of each consumer's own: live rounds, the parent of the next snapshot, counters. What a
 * consumer takes or leaves is its own affair. Nothing is logged while there is no consumer.
 */
import { VmmError } from '../base/errors.js';
import { DirtyBitmap } from './dirty-bitmap.js';

/** Adds pages: bit 0 of `bits[0]` is `firstPage`, by offset into the mapping. */
export type AddBits = (firstPage: number, bits: Uint32Array) => void;

/** Where dirty bits come from: a machine's log, user space's bitmap. */
export interface DirtySource {
  /** From now on what is written is noted, or is not. */
  setLogging(on: boolean): void;
  /** Gives every page written since the last call, and forgets them. Nothing written after it returns is forgotten. */
  harvest(add: AddBits): void;
}

export interface DirtyConsumer {
  readonly name: string;
  /**
   * Pages written since the last take, or since the consumer began. What is read of them afterwards is at least as new
   * as their bits.
   */
  take(): DirtyBitmap;
  /** Ends it; nobody else's bits are touched. Idempotent. */
  close(): void;
}

class Consumer implements DirtyConsumer {
  readonly name: string;
  readonly #epochs: DirtyEpochs;
  pending: DirtyBitmap;

  constructor(name: string, epochs: DirtyEpochs) {
    this.name = name;
    this.#epochs = epochs;
    this.pending = new DirtyBitmap(epochs.pages);
  }

  take(): DirtyBitmap {
    return this.#epochs.takeFor(this);
  }

  close(): void {
    this.#epochs.leave(this);
  }
}

export class DirtyEpochs {
  readonly pages: number;
  readonly #consumers = new Set<Consumer>();
  readonly #sources = new Set<DirtySource>();
  /** Counted in, for inspect(). */
  harvests = 0;

  /** @param pages of guest memory */
  constructor(pages: number) {
    this.pages = pages;
  }

  get consumers(): readonly string[] {
    return [...this.#consumers].map(({ name }) => name);
  }

  /** A source joins: a machine's board came to be. */
  addSource(source: DirtySource): void {
    if (this.#consumers.size > 0) source.setLogging(true);
    this.#sources.add(source);
  }

  /** A source leaves, before it is closed: its last bits are kept. */
  removeSource(source: DirtySource): void {
    if (!this.#sources.has(source)) return;
    if (this.#consumers.size > 0) {
      this.#harvest();
      source.setLogging(false);
    }
    this.#sources.delete(source);
  }

  /** @throws what turning the log on throws: KvmError */
  consumer(name: string): DirtyConsumer {
    if (this.#consumers.size > 0) this.#harvest();
    else this.#begin();
    const consumer = new Consumer(name, this);
    this.#consumers.add(consumer);
    return consumer;
  }

  /** For Consumer alone. */
  takeFor(consumer: Consumer): DirtyBitmap {
    if (!this.#consumers.has(consumer)) throw new VmmError('ERR_CLOSED', `dirty epochs: ${consumer.name} was closed`);
    this.#harvest();
    const taken = consumer.pending;
    consumer.pending = new DirtyBitmap(this.pages);
    return taken;
  }

  /** For Consumer alone. */
  leave(consumer: Consumer): void {
    if (!this.#consumers.delete(consumer) || this.#consumers.size > 0) return;
    for (const source of this.#sources) source.setLogging(false);
  }

  #begin(): void {
    const on: DirtySource[] = [];
    try {
      for (const source of this.#sources) {
        source.setLogging(true);
        on.push(source);
        // What stood in it from before concerns nobody.
        source.harvest(() => {});
      }
    } catch (error) {
      for (const source of on) source.setLogging(false);
      throw error;
    }
  }

  #harvest(): void {
    this.harvests++;
    const consumers = [...this.#consumers];
    for (const source of this.#sources) {
      source.harvest((firstPage, bits) => {
        for (const { pending } of consumers) pending.addBits(firstPage, bits);
      });
    }
  }
}
