/**
 * A guest without a CPU: a mock driver on a virtio disk, whose provider and I/O engine are the real ones, over files.
 * For tests of what a guest sees when its disk's file is in trouble.
 */
import { VirtioBlkType } from '../../lib/abi/virtio.js';
import { gpa as toGpa } from '../../lib/base/address.js';
import { silentLogger } from '../../lib/base/logger.js';
import { AddressSpace, NativeIoEngine } from '../../lib/memory/index.js';
import { BlockDevice } from '../../lib/vdp/block.js';
import { FakeActivation } from '../../lib/vdp/fake-activation.js';
import { MockDriver, type Piece } from '../../lib/vdp/mock-driver.js';
import { SplitQueue } from '../../lib/vdp/split-queue.js';
import { BlockProvider } from '../../lib/vsp/block/provider.js';
import type { BlockSource } from '../../lib/vsp/index.js';

export const OK = 0;
export const IOERR = 1;
/** Bytes of a request's data. */
export const DATA_BYTES = 64 * 1024;

const SLOTS = 16;
const SLOTS_GPA = 0x10_0000;
const SLOT_BYTES = 2 * DATA_BYTES;

export type IoKind = 'io_uring' | 'threads';

export class DiskGuest {
  readonly disk: BlockProvider;
  readonly activation: FakeActivation;
  readonly #memory: AddressSpace;
  readonly #engine: NativeIoEngine;
  readonly #device: BlockDevice;
  readonly #driver: MockDriver;
  readonly #free = Array.from({ length: SLOTS }, (_, slot) => slot);
  readonly #waiting = new Map<number, () => void>();

  static async boot(source: BlockSource, kind: IoKind): Promise<DiskGuest> {
    const memory = new AddressSpace({ ranges: [{ gpa: toGpa(0), sizeBytes: SLOTS_GPA + SLOTS * SLOT_BYTES }] });
    const engine = new NativeIoEngine(memory, { kind });
    try {
      const disk = await BlockProvider.open(source, { id: 'root', engine, logger: silentLogger });
      return new DiskGuest(memory, engine, disk);
    } catch (error) {
      await engine.close();
      memory.close();
      throw error;
    }
  }

  private constructor(memory: AddressSpace, engine: NativeIoEngine, disk: BlockProvider) {
    this.#memory = memory;
    this.#engine = engine;
    this.disk = disk;
    this.#device = new BlockDevice(disk, { queueSize: 64 });
    this.#driver = new MockDriver(memory, { size: 64, gpa: 0x1000, indirect: false });
    const queue = new SplitQueue(this.#driver.queueOptions);
    this.activation = new FakeActivation(this.#device.features, [queue]);
    const { interrupt } = this.activation;
    this.activation.interrupt = (index) => {
      interrupt.call(this.activation, index);
      for (const { head } of this.#driver.collect()) this.#waiting.get(head)?.();
    };
    this.#device.activate(this.activation);
  }

  /** The status, and what was read. */
  async read(sector: number, lengthBytes = DATA_BYTES): Promise<{ status: number; bytes: Uint8Array }> {
    return this.#slot(async (at) => {
      this.#memory.fill(at + 4096, 0xee, lengthBytes);
      const data = { gpa: at + 4096, length: lengthBytes, writable: true };
      const status = await this.#request(at, VirtioBlkType.IN, sector, [data]);
      return { status, bytes: this.#memory.read(at + 4096, lengthBytes) };
    });
  }

  write(sector: number, bytes: Uint8Array): Promise<number> {
    return this.#slot((at) => {
      this.#memory.write(at + 4096, bytes);
      return this.#request(at, VirtioBlkType.OUT, sector, [{ gpa: at + 4096, length: bytes.length }]);
    });
  }

  flush(): Promise<number> {
    return this.#slot((at) => this.#request(at, VirtioBlkType.FLUSH, 0, []));
  }

  async close(): Promise<void> {
    await this.#device.reset();
    await this.disk.close();
    await this.#engine.close();
    this.#memory.close();
  }

  async #slot<T>(use: (at: number) => Promise<T>): Promise<T> {
    const slot = this.#free.pop();
    if (slot === undefined) throw new RangeError(`more than ${SLOTS} requests at once`);
    try {
      return await use(SLOTS_GPA + slot * SLOT_BYTES);
    } finally {
      this.#free.push(slot);
    }
  }

  async #request(at: number, type: number, sector: number, data: readonly Piece[]): Promise<number> {
    const header = new DataView(new ArrayBuffer(16));
    header.setUint32(0, type, true);
    header.setBigUint64(8, BigInt(sector), true);
    this.#memory.write(at, new Uint8Array(header.buffer));
    const head = this.#driver.add([{ gpa: at, length: 16 }, ...data, { gpa: at + 64, length: 1, writable: true }])!;
    await new Promise<void>((resolve) => {
      this.#waiting.set(head, resolve);
      this.#driver.publish();
      this.#device.notify(0);
    });
    this.#waiting.delete(head);
    return this.#memory.read(at + 64, 1)[0]!;
  }
}
