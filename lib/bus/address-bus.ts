/**
 * The map from addresses to devices: one for ports, one for memory-mapped registers. The machine's exit loop hands it
 * an exit as KVM tells it (address, size, count, a view of the data), and it calls the devices and fills the view in.
 * Unclaimed reads answer all ones and unclaimed writes are dropped, as on a bus with pull-ups. It never throws on
 * behalf of a guest or a device: a device that throws or rejects is answered as a DeviceFault.
 */
import type { Clock } from '../base/clock.js';
import type { Logger } from '../base/logger.js';
import type { AccessSize, BusDevice } from './device.js';
import { type AddressRange, RangeTable } from './range-table.js';
import { UnclaimedCounter } from './unclaimed.js';

/** A device model of ours failed: the machine pauses with this. A value, never thrown. */
export interface DeviceFault {
  readonly kind: 'fault';
  readonly device: string;
  readonly cause: unknown;
  readonly address: number;
  readonly isWrite: boolean;
}

/** Undefined: done. A promise: the vCPU waits until it is done. It never rejects. */
export type AccessResult = DeviceFault | undefined | Promise<DeviceFault | undefined>;

export interface AddressBusOptions {
  readonly space: 'port' | 'mmio';
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface AddOptions {
  /**
   * Only accesses that lie wholly inside the range reach the device, never a part of a wider one; such a range may lie
   * over others and goes before them. The reset register needs it: port 0xCF9 in the middle of PCI's 32-bit port 0xCF8.
   */
  readonly wholeAccessOnly?: boolean;
  /** The offset that the device sees at the range's first address: for a device at several ranges. Default 0. */
  readonly firstOffset?: number;
}

interface Slot extends AddressRange {
  readonly device: BusDevice;
  /** The address at which the device's offset would be 0. */
  readonly base: number;
  readonly maxSize: number;
  reads: number;
  writes: number;
}

/** Ends of the address spaces; guest physical addresses are exact to 2^52. */
const LIMITS = { port: 0x1_0000, mmio: 2 ** 52 } as const;

export class AddressBus {
  readonly #space: 'port' | 'mmio';
  readonly #slots = new RangeTable<Slot>();
  readonly #overlays = new RangeTable<Slot>();
  readonly #unclaimed: UnclaimedCounter;
  #faults = 0;

  constructor(options: AddressBusOptions) {
    this.#space = options.space;
    this.#unclaimed = new UnclaimedCounter(options.space, options.clock, options.logger);
  }

  /**
   * Puts a device at a range. A device may stand at several ranges.
   *
   * @throws RangeError when the range is empty, beyond the space, or overlaps another device's.
   */
  add(range: AddressRange, device: BusDevice, options: AddOptions = {}): void {
    const { first, length } = range;
    if (!Number.isSafeInteger(first) || !Number.isSafeInteger(length) || first < 0 || length < 1) {
      throw new RangeError(
        `${device.name}: ${String(first)} and ${String(length)} are no range of ${this.#space} space`,
      );
    }
    if (first + length > LIMITS[this.#space]) {
      throw new RangeError(`${device.name}: ${describe(range)} ends beyond ${this.#space} space`);
    }
    const base = first - (options.firstOffset ?? 0);
    const slot: Slot = { first, length, device, base, maxSize: device.maxSize ?? 8, reads: 0, writes: 0 };
    const clash = (options.wholeAccessOnly === true ? this.#overlays : this.#slots).insert(slot);
    if (clash) {
      throw new RangeError(
        `${device.name} at ${this.#space} ${describe(range)} overlaps ${clash.device.name} at ${describe(clash)}`,
      );
    }
  }

  /** Takes a device away from all its ranges. */
  remove(device: BusDevice): void {
    for (const table of [this.#slots, this.#overlays]) {
      for (const slot of table.entries.filter((entry) => entry.device === device)) table.remove(slot);
    }
  }

  /**
   * One exit: `count` accesses of `size` bytes at the same address, their data in `data` (little endian, size * count
   * bytes). Reads are answered in place. `data` must stay valid until the result is there.
   */
  access(address: number, size: number, count: number, isWrite: boolean, data: Uint8Array): AccessResult {
    const slot = this.#claim(address, size);
    if (slot === undefined || size > slot.maxSize || !isAccessSize(size)) {
      return this.#accessSplit(address, size, count, isWrite, data);
    }
    const offset = address - slot.base;
    if (isWrite) slot.writes++;
    else slot.reads++;
    if (count === 1) return this.#once(slot, offset, size, isWrite, data, 0);
    try {
      if (isWrite) {
        if (slot.device.writeBlock) return this.#settle(slot, offset, true, slot.device.writeBlock(offset, size, data));
      } else if (slot.device.readBlock) {
        return this.#settle(slot, offset, false, slot.device.readBlock(offset, size, data));
      }
      return this.#sequence(count, (index) => this.#once(slot, offset, size, isWrite, data, index * size));
    } catch (cause) {
      return this.#fault(slot, offset, isWrite, cause);
    }
  }

  /** One write outside an exit: an entry of the posted ring, or of a coalesced zone. */
  write(address: number, size: number, value: number | bigint): AccessResult {
    const slot = this.#claim(address, size);
    if (slot === undefined || size > slot.maxSize || !isAccessSize(size)) {
      const data = new Uint8Array(8);
      new DataView(data.buffer).setBigUint64(0, BigInt(value), true);
      return this.#accessSplit(address, size, 1, true, data.subarray(0, size));
    }
    const offset = address - slot.base;
    slot.writes++;
    try {
      const done = slot.device.write(offset, size, value);
      return done === undefined ? undefined : this.#settle(slot, offset, true, done);
    } catch (cause) {
      return this.#fault(slot, offset, true, cause);
    }
  }

  /** Resets every device, each once. */
  reset(): void {
    for (const device of this.#devices()) device.reset();
  }

  inspect(): unknown {
    const ranges = [...this.#slots.entries, ...this.#overlays.entries]
      .sort((a, b) => a.first - b.first)
      .map((slot) => ({ range: describe(slot), device: slot.device.name, reads: slot.reads, writes: slot.writes }));
    return { ranges, unclaimed: this.#unclaimed.inspect(), faults: this.#faults };
  }

  #devices(): Set<BusDevice> {
    return new Set([...this.#slots.entries, ...this.#overlays.entries].map((slot) => slot.device));
  }

  /** The slot that holds the whole access. */
  #claim(address: number, size: number): Slot | undefined {
    const overlay = this.#overlays.find(address);
    if (overlay !== undefined && address + size <= overlay.first + overlay.length) return overlay;
    const slot = this.#slots.find(address);
    return slot !== undefined && address + size <= slot.first + slot.length ? slot : undefined;
  }

  #once(
    slot: Slot,
    offset: number,
    size: AccessSize,
    isWrite: boolean,
    data: Uint8Array,
    position: number,
  ): AccessResult {
    try {
      if (isWrite) {
        const done = slot.device.write(offset, size, load(data, position, size));
        return done === undefined ? undefined : this.#settle(slot, offset, true, done);
      }
      const value = slot.device.read(offset, size);
      if (typeof value === 'object') {
        return this.#settle(
          slot,
          offset,
          false,
          value.then((late) => store(data, position, size, late)),
        );
      }
      store(data, position, size, value);
      return undefined;
    } catch (cause) {
      return this.#fault(slot, offset, isWrite, cause);
    }
  }

  /** Runs `step` for 0 to count-1, going on later where one is a promise, and stops at a fault. */
  #sequence(count: number, step: (index: number) => AccessResult, from = 0): AccessResult {
    for (let index = from; index < count; index++) {
      const result = step(index);
      if (result instanceof Promise) {
        return result.then((fault) => fault ?? this.#sequence(count, step, index + 1));
      }
      if (result) return result;
    }
    return undefined;
  }

  /**
   * An access that no single device takes whole: it goes, lowest address first, in the largest naturally aligned parts
   * that a device takes. A 16-bit cycle to an 8-bit ISA device is two 8-bit cycles (IEEE P996, data bus conversion).
   */
  #accessSplit(address: number, size: number, count: number, isWrite: boolean, data: Uint8Array): AccessResult {
    const parts = this.#split(address, size);
    return this.#sequence(parts.length * count, (index) => {
      const part = parts[index % parts.length]!;
      const position = Math.floor(index / parts.length) * size + part.position;
      const { slot } = part;
      if (slot === undefined) {
        if (position < size) this.#unclaimed.count(address + part.position, part.size, isWrite);
        if (!isWrite) data.fill(0xff, position, position + part.size);
        return undefined;
      }
      const offset = address + part.position - slot.base;
      if (isWrite) slot.writes++;
      else slot.reads++;
      return this.#once(slot, offset, part.size as AccessSize, isWrite, data, position);
    });
  }

  #split(address: number, size: number): { slot: Slot | undefined; position: number; size: number }[] {
    const whole = this.#claim(address, size);
    const parts: { slot: Slot | undefined; position: number; size: number }[] = [];
    for (let position = 0; position < size;) {
      const at = address + position;
      // Only an access that the overlay holds as a whole may be split for it.
      const slot = whole ?? this.#slots.find(at);
      let part = 1;
      if (slot === undefined) {
        // Nothing here: as far as nothing is.
        while (position + part < size && this.#slots.find(at + part) === undefined) part++;
      } else {
        const room = Math.min(slot.maxSize, size - position, slot.first + slot.length - at);
        while (part * 2 <= room && at % (part * 2) === 0) part *= 2;
      }
      parts.push({ slot, position, size: part });
      position += part;
    }
    return parts;
  }

  #settle(slot: Slot, offset: number, isWrite: boolean, done: void | Promise<void>): AccessResult {
    if (done === undefined) return undefined;
    return done.then(
      () => undefined,
      (cause: unknown) => this.#fault(slot, offset, isWrite, cause),
    );
  }

  #fault(slot: Slot, offset: number, isWrite: boolean, cause: unknown): DeviceFault {
    this.#faults++;
    return { kind: 'fault', device: slot.device.name, cause, address: slot.base + offset, isWrite };
  }
}

function isAccessSize(size: number): size is AccessSize {
  return size === 1 || size === 2 || size === 4 || size === 8;
}

function load(data: Uint8Array, position: number, size: AccessSize): number | bigint {
  const low = data[position]!;
  if (size === 1) return low;
  if (size === 2) return low | (data[position + 1]! << 8);
  const view = new DataView(data.buffer, data.byteOffset + position, size);
  return size === 4 ? view.getUint32(0, true) : view.getBigUint64(0, true);
}

function store(data: Uint8Array, position: number, size: AccessSize, value: number | bigint): void {
  if (size === 8) {
    new DataView(data.buffer, data.byteOffset + position, 8).setBigUint64(0, BigInt(value), true);
    return;
  }
  const number = typeof value === 'number' ? value : Number(value & 0xffffffffn);
  for (let index = 0; index < size; index++) data[position + index] = number >>> (8 * index);
}

function describe(range: AddressRange): string {
  return `0x${range.first.toString(16)}-0x${(range.first + range.length - 1).toString(16)}`;
}
