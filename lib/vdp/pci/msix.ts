/**
 * MSI-X of one function (PCI 3.0, 6.8.2): the table and the pending bits in a BAR, the function's mask and those of the
 * vectors. It decides whether a message goes out or is kept pending; how a message reaches a CPU is the
 * InterruptVector's business.
 *
 *   BAR: 0x000 table, 16 bytes an entry | 0x800 pending bits          at most 128 vectors
 *   signal(v): off -> nothing; masked -> pending bit; else vector.signal()   unmask: pending -> vector.signal()
 */
import { MsixCap, MsixEntry, PciCapId } from '../../abi/pci.js';
import { VmmError } from '../../base/errors.js';
import type { Savable, SavedPart } from '../../base/saved-state.js';
import type { AccessSize, BusDevice } from '../../bus/device.js';
import type { ConfigSpace } from './config-space.js';
import { msixState } from './state.js';

/** A message that interrupts a CPU. */
export interface MsiMessage {
  readonly address: bigint;
  readonly data: number;
}

/** One message interrupt of a function, on its way to the guest. Neither call throws. */
export interface InterruptVector {
  /** What is sent from now on; called only when it changes, before the first signal. */
  configure(message: MsiMessage): void;
  signal(): void;
  close(): void;
}

const PENDING_OFFSET = 0x800;
export const MSIX_BAR_BYTES = 0x1000;
/** As many entries as stand before the pending bits. */
export const MAX_MSIX_VECTORS = PENDING_OFFSET / MsixEntry.SIZE;

export class Msix implements BusDevice, Savable {
  readonly name: string;
  readonly vectorCount: number;
  /** Called when software has switched MSI-X on or off. */
  onChange: (() => void) | undefined;

  readonly #config: ConfigSpace;
  readonly #capability: number;
  readonly #vectors: readonly InterruptVector[];
  readonly #table: DataView;
  readonly #pending: boolean[];
  /** Messages that the vectors were configured with. */
  readonly #configured: (MsiMessage | undefined)[];
  #enabled = false;
  #maskedAll = false;
  #maySend = true;
  readonly #counts = { signalled: 0, keptPending: 0, dropped: 0, badAccesses: 0 };

  /** Adds the capability and the BAR to `config`. @throws RangeError for more vectors than there is room for. */
  constructor(config: ConfigSpace, options: { name: string; bar: number; vectors: readonly InterruptVector[] }) {
    const count = options.vectors.length;
    if (count < 1 || count > MAX_MSIX_VECTORS) throw new RangeError(`${count} MSI-X vectors`);
    this.name = options.name;
    this.vectorCount = count;
    this.#config = config;
    this.#vectors = options.vectors;
    this.#table = new DataView(new ArrayBuffer(count * MsixEntry.SIZE));
    this.#pending = new Array<boolean>(count).fill(false);
    this.#configured = new Array<undefined>(count).fill(undefined);

    const body = new DataView(new ArrayBuffer(MsixCap.SIZE - 2));
    body.setUint16(MsixCap.CONTROL - 2, count - 1, true);
    body.setUint32(MsixCap.TABLE - 2, options.bar, true);
    body.setUint32(MsixCap.PENDING - 2, PENDING_OFFSET | options.bar, true);
    const writable = new Uint8Array(body.byteLength);
    writable[MsixCap.CONTROL - 2 + 1] = (MsixCap.CONTROL_ENABLE | MsixCap.CONTROL_MASK_ALL) >> 8;
    this.#capability = config.addCapability(PciCapId.MSIX, new Uint8Array(body.buffer), writable);
    config.addBar(options.bar, MSIX_BAR_BYTES);
    config.watch(this.#capability + MsixCap.CONTROL, 2, { onWrite: () => this.#controlWritten() });
    this.reset();
  }

  /** Software uses MSI-X, and not INTx. */
  get enabled(): boolean {
    return this.#enabled;
  }

  /** Whether the function may write messages; true at first. While not, interrupts are kept as if they were masked. */
  set maySend(may: boolean) {
    this.#maySend = may;
    for (let vector = 0; vector < this.vectorCount; vector++) this.#deliver(vector);
  }

  /** The function has an interrupt for this vector. Nothing happens for one that does not exist, or while MSI-X is off. */
  signal(vector: number): void {
    if (!this.#enabled || vector >= this.vectorCount) {
      this.#counts.dropped++;
    } else if (!this.#maySend || this.#isMasked(vector)) {
      this.#counts.keptPending++;
      this.#pending[vector] = true;
    } else {
      this.#send(vector);
    }
  }

  /** Aligned words of 4 and 8 bytes, as the specification demands; others of the table read as they are. */
  read(offset: number, size: AccessSize): number | bigint {
    let value = 0n;
    for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#readByte(offset + i));
    return size === 8 ? value : Number(value);
  }

  write(offset: number, size: AccessSize, value: number | bigint): void {
    if (size < 4 || offset % size !== 0 || offset + size > this.#table.byteLength) {
      this.#counts.badAccesses++;
      return;
    }
    if (size === 8) this.#table.setBigUint64(offset, BigInt(value), true);
    else this.#table.setUint32(offset, Number(value), true);
    this.#deliver(Math.floor(offset / MsixEntry.SIZE));
  }

  reset(): void {
    for (let vector = 0; vector < this.vectorCount; vector++) {
      for (let at = 0; at < MsixEntry.SIZE; at += 4) this.#table.setUint32(vector * MsixEntry.SIZE + at, 0, true);
      this.#table.setUint32(vector * MsixEntry.SIZE + MsixEntry.VECTOR_CONTROL, MsixEntry.MASKED, true);
    }
    this.#pending.fill(false);
    this.#enabled = false;
    this.#maskedAll = false;
  }

  /** Pending bits of a device that was reset mean nothing any more. */
  clearPending(): void {
    this.#pending.fill(false);
  }

  saveState(): SavedPart {
    return msixState.save({ table: new Uint8Array(this.#table.buffer.slice(0)), pending: [...this.#pending] });
  }

  /** After the configuration space, whose enable and mask bits it takes up; pending messages that may go go out. */
  restoreState(part: SavedPart): void {
    const { table, pending } = msixState.load(part);
    if (table.length !== this.#table.byteLength || pending.length !== this.vectorCount) {
      throw new VmmError(
        'ERR_SNAPSHOT',
        `${this.name} has ${this.vectorCount} vectors; the snapshot has ${pending.length}`,
      );
    }
    new Uint8Array(this.#table.buffer).set(table);
    pending.forEach((is, vector) => (this.#pending[vector] = is));
    this.#controlWritten();
  }

  close(): void {
    for (const vector of this.#vectors) vector.close();
  }

  inspect(): unknown {
    const vectors = Array.from({ length: this.vectorCount }, (_, vector) => {
      const { address, data } = this.#message(vector);
      return {
        address: `0x${address.toString(16)}`,
        data: `0x${data.toString(16)}`,
        masked: this.#isMasked(vector),
        pending: this.#pending[vector],
      };
    });
    return { enabled: this.#enabled, maskedAll: this.#maskedAll, vectors, counts: { ...this.#counts } };
  }

  #isMasked(vector: number): boolean {
    const control = this.#table.getUint32(vector * MsixEntry.SIZE + MsixEntry.VECTOR_CONTROL, true);
    return this.#maskedAll || (control & MsixEntry.MASKED) !== 0;
  }

  #message(vector: number): MsiMessage {
    const at = vector * MsixEntry.SIZE;
    return {
      address: this.#table.getBigUint64(at + MsixEntry.ADDRESS_LOW, true),
      data: this.#table.getUint32(at + MsixEntry.DATA, true),
    };
  }

  #controlWritten(): void {
    const control = this.#config.get(this.#capability + MsixCap.CONTROL, 2);
    const enabled = (control & MsixCap.CONTROL_ENABLE) !== 0;
    const changed = enabled !== this.#enabled;
    this.#enabled = enabled;
    this.#maskedAll = (control & MsixCap.CONTROL_MASK_ALL) !== 0;
    for (let vector = 0; vector < this.vectorCount; vector++) this.#deliver(vector);
    if (changed) this.onChange?.();
  }

  /** A mask may have gone: the vector learns its message, and what is pending goes out. */
  #deliver(vector: number): void {
    if (!this.#enabled || !this.#maySend || this.#isMasked(vector)) return;
    const message = this.#message(vector);
    const before = this.#configured[vector];
    if (before?.address !== message.address || before.data !== message.data) {
      this.#configured[vector] = message;
      this.#vectors[vector]!.configure(message);
    }
    if (!this.#pending[vector]) return;
    this.#pending[vector] = false;
    this.#send(vector);
  }

  #send(vector: number): void {
    this.#counts.signalled++;
    this.#vectors[vector]!.signal();
  }

  #readByte(offset: number): number {
    if (offset < this.#table.byteLength) return this.#table.getUint8(offset);
    const first = (offset - PENDING_OFFSET) * 8;
    if (first < 0) return 0;
    let byte = 0;
    for (let bit = 0; bit < 8; bit++) if (this.#pending[first + bit] === true) byte |= 1 << bit;
    return byte;
  }
}
