/**
 * The configuration space of one PCI function: 256 bytes, which of their bits software may change, the list of
 * capabilities and the base address registers. Sizing needs nothing special: the bits below a BAR's size can't be
 * written. It decodes no address and calls no device; who must know of an access watches the bytes.
 *
 *   0x00 header (ids, command, status, BARs, interrupt) | 0x40 capabilities, one behind the other
 */
import { BAR_COUNT, CONFIG_SPACE_BYTES, PciCommand, PciHeader, PciStatus } from '../../abi/pci.js';
import { VmmError } from '../../base/errors.js';
import type { Savable, SavedPart } from '../../base/saved-state.js';
import { configSpaceState } from './state.js';

export interface PciIdentity {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revision: number;
  /** Class, subclass and interface: 0x010000 for mass storage. */
  readonly classCode: number;
  readonly subsystemVendorId: number;
  readonly subsystemId: number;
}

/** Told of accesses that touch some bytes; offsets count from the start of the space. */
export interface ConfigWatch {
  /** Before the bytes are read. */
  onRead?(offset: number, size: number): void;
  /** After they were written. */
  onWrite?(offset: number, size: number): void;
}

const COMMAND_WRITABLE =
  PciCommand.MEMORY | PciCommand.MASTER | PciCommand.PARITY | PciCommand.SERR | PciCommand.INTX_DISABLE;
/** A BAR is at least a page, so that functions never share one. */
const MIN_BAR_BYTES = 4096;

export class ConfigSpace implements Savable {
  readonly #bytes = new Uint8Array(CONFIG_SPACE_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #writable = new Uint8Array(CONFIG_SPACE_BYTES);
  readonly #watches: { first: number; end: number; watch: ConfigWatch }[] = [];
  readonly #barSizes = new Array<number>(BAR_COUNT).fill(0);
  #capabilityEnd: number = PciHeader.END;
  /** The place of the pointer to the next capability. */
  #link: number = PciHeader.CAPABILITY_LIST;
  #powerOn: Uint8Array | undefined;

  constructor(identity: PciIdentity) {
    const view = this.#view;
    view.setUint16(PciHeader.VENDOR_ID, identity.vendorId, true);
    view.setUint16(PciHeader.DEVICE_ID, identity.deviceId, true);
    view.setUint8(PciHeader.REVISION_ID, identity.revision);
    view.setUint16(PciHeader.CLASS_CODE, identity.classCode & 0xffff, true);
    view.setUint8(PciHeader.CLASS_CODE + 2, identity.classCode >> 16);
    view.setUint16(PciHeader.SUBSYSTEM_VENDOR_ID, identity.subsystemVendorId, true);
    view.setUint16(PciHeader.SUBSYSTEM_ID, identity.subsystemId, true);
    this.#allow(PciHeader.COMMAND, 2, COMMAND_WRITABLE);
    this.#allow(PciHeader.CACHE_LINE_SIZE, 1, 0xff);
    this.#allow(PciHeader.LATENCY_TIMER, 1, 0xff);
    this.#allow(PciHeader.INTERRUPT_LINE, 1, 0xff);
  }

  /**
   * Declares a 32-bit memory BAR, not prefetchable.
   *
   * @throws RangeError for a size that is no power of two from 4096 on, or a BAR that exists.
   */
  addBar(index: number, sizeBytes: number): void {
    if (!Number.isInteger(Math.log2(sizeBytes)) || sizeBytes < MIN_BAR_BYTES || sizeBytes > 2 ** 31) {
      throw new RangeError(`a BAR of ${sizeBytes} bytes`);
    }
    if (this.#barSizes[index] !== 0) throw new RangeError(`BAR ${index} can't be had`);
    this.#barSizes[index] = sizeBytes;
    this.#allow(PciHeader.BASE_ADDRESS_0 + 4 * index, 4, 2 ** 32 - sizeBytes);
  }

  /**
   * Appends a capability: its bytes behind id and link, and which of their bits are writable.
   *
   * @returns where it starts.
   * @throws RangeError when there is no room.
   */
  addCapability(id: number, body: Uint8Array, writable?: Uint8Array): number {
    const at = this.#capabilityEnd;
    const end = at + 2 + body.length;
    if (end > CONFIG_SPACE_BYTES) throw new RangeError('no room for a capability');
    this.#bytes[at] = id;
    this.#bytes.set(body, at + 2);
    if (writable) this.#writable.set(writable, at + 2);
    this.#bytes[this.#link] = at;
    this.#link = at + 1;
    this.#capabilityEnd = (end + 3) & ~3;
    this.#view.setUint16(PciHeader.STATUS, this.#view.getUint16(PciHeader.STATUS, true) | PciStatus.CAP_LIST, true);
    return at;
  }

  watch(first: number, length: number, watch: ConfigWatch): void {
    this.#watches.push({ first, end: first + length, watch });
  }

  /** What firmware does: an address for a BAR, an interrupt line, a pin. It stays over a reset of the machine. */
  set(offset: number, size: 1 | 2 | 4, value: number): void {
    for (let i = 0; i < size; i++) this.#bytes[offset + i] = value >>> (8 * i);
  }

  get(offset: number, size: 1 | 2 | 4): number {
    let value = 0;
    for (let i = 0; i < size; i++) value += this.#bytes[offset + i]! * 2 ** (8 * i);
    return value;
  }

  /** Software reads: 1, 2 or 4 bytes at any offset; bytes behind the end are all ones. */
  read(offset: number, size: number): number {
    for (const { first, end, watch } of this.#watches) {
      if (offset < end && first < offset + size) watch.onRead?.(offset, size);
    }
    let value = 0;
    for (let i = 0; i < size; i++) value += (this.#bytes[offset + i] ?? 0xff) * 2 ** (8 * i);
    return value;
  }

  /** Software writes: the bits that are writable. */
  write(offset: number, size: number, value: number): void {
    // The first write ends the time of the firmware, which is us.
    this.#powerOn ??= this.#bytes.slice();
    for (let i = 0; i < size && offset + i < CONFIG_SPACE_BYTES; i++) {
      const mask = this.#writable[offset + i]!;
      this.#bytes[offset + i] = (this.#bytes[offset + i]! & ~mask) | ((value >>> (8 * i)) & mask);
    }
    for (const { first, end, watch } of this.#watches) {
      if (offset < end && first < offset + size) watch.onWrite?.(offset, size);
    }
  }

  get command(): number {
    return this.#view.getUint16(PciHeader.COMMAND, true);
  }

  /** The status register's Interrupt Status: INTx is asserted, or would be. */
  set interruptStatus(pending: boolean) {
    const status = this.#bytes[PciHeader.STATUS]!;
    this.#bytes[PciHeader.STATUS] = pending ? status | PciStatus.INTERRUPT : status & ~PciStatus.INTERRUPT;
  }

  /** Where a BAR stands now; whether it is decoded is the command register's business. */
  barAddress(index: number): number {
    const value = this.#view.getUint32(PciHeader.BASE_ADDRESS_0 + 4 * index, true);
    return value - (value % Math.max(this.barSize(index), 1));
  }

  /** 0 for a BAR that does not exist. */
  barSize(index: number): number {
    return this.#barSizes[index] ?? 0;
  }

  /** Back to what the firmware left. */
  reset(): void {
    if (this.#powerOn) this.#bytes.set(this.#powerOn);
  }

  saveState(): SavedPart {
    return configSpaceState.save({
      bytes: this.#bytes.slice(),
      ...(this.#powerOn ? { powerOn: this.#powerOn.slice() } : {}),
    });
  }

  /** Watches are told nothing: whoever has them looks at the registers afterwards. */
  restoreState(part: SavedPart): void {
    const { bytes, powerOn } = configSpaceState.load(part);
    this.#checkSame(bytes);
    if (powerOn) this.#checkSame(powerOn);
    this.#bytes.set(bytes);
    this.#powerOn = powerOn?.slice();
  }

  /** Ids, capabilities and sizes of BARs are what the devices are, and no state of theirs. */
  #checkSame(saved: Uint8Array): void {
    for (let at = 0; at < CONFIG_SPACE_BYTES; at++) {
      const dynamic = this.#writable[at]! | (at === PciHeader.STATUS ? PciStatus.INTERRUPT : 0);
      if (((saved[at]! ^ this.#bytes[at]!) & ~dynamic) === 0) continue;
      const id = this.get(PciHeader.DEVICE_ID, 2).toString(16);
      throw new VmmError(
        'ERR_SNAPSHOT',
        `the snapshot's PCI function is not this one (0x${id}): it differs at 0x${at.toString(16)}`,
      );
    }
  }

  #allow(offset: number, size: number, mask: number): void {
    for (let i = 0; i < size; i++) this.#writable[offset + i] = mask >>> (8 * i);
  }
}
