/**
 * The I/O engine as backends hold it for a machine's life, over the one of the present guest memory: an engine moves
 * data to one mapping, and a reset of the guest brings another. Made when the first request needs it, since most
 * machines have no disk.
 */
import type { AddressSpace, AllocateMode, IoDone, IoEngine, IoVector } from '../memory/index.js';

export class IoEngineSlot implements IoEngine {
  readonly #make: (memory: AddressSpace) => IoEngine;
  #memory: AddressSpace | undefined;
  #engine: IoEngine | undefined;

  constructor(make: (memory: AddressSpace) => IoEngine) {
    this.#make = make;
  }

  /** The memory from now on. Resolves when the engine of the one before has ended. Requests wait for none. */
  async use(memory: AddressSpace | undefined): Promise<void> {
    const before = this.#engine;
    this.#engine = undefined;
    this.#memory = memory;
    await before?.close();
  }

  get kind(): IoEngine['kind'] {
    return this.#current().kind;
  }

  get inFlight(): number {
    return this.#engine?.inFlight ?? 0;
  }

  read(fd: number, offset: number, data: IoVector, done: IoDone): void {
    this.#current().read(fd, offset, data, done);
  }

  write(fd: number, offset: number, data: IoVector, done: IoDone): void {
    this.#current().write(fd, offset, data, done);
  }

  sync(fd: number, done: IoDone): void {
    this.#current().sync(fd, done);
  }

  allocate(fd: number, mode: AllocateMode, offset: number, lengthBytes: number, done: IoDone): void {
    this.#current().allocate(fd, mode, offset, lengthBytes, done);
  }

  flush(): void {
    this.#engine?.flush();
  }

  async drained(): Promise<void> {
    await this.#engine?.drained();
  }

  async close(): Promise<void> {
    await this.use(undefined);
  }

  #current(): IoEngine {
    if (this.#engine) return this.#engine;
    if (!this.#memory) throw new TypeError('the I/O engine has no guest memory yet');
    return (this.#engine = this.#make(this.#memory));
  }
}
