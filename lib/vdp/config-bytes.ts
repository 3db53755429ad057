/**
 * A device's configuration space (virtio 1.2, 2.5) as little-endian bytes, which the device sets and the driver reads;
 * fields that the driver may write are named. For the devices of this room.
 */
import type { VirtioConfigSpace } from './virtio-device.js';

export class ConfigBytes implements VirtioConfigSpace {
  readonly #bytes: DataView;
  readonly #onWrite: ((offset: number, value: number) => void) | undefined;

  /** @param onWrite called for each byte that the driver writes; without it the space is read-only. */
  constructor(sizeBytes: number, onWrite?: (offset: number, value: number) => void) {
    this.#bytes = new DataView(new ArrayBuffer(sizeBytes));
    this.#onWrite = onWrite;
  }

  get sizeBytes(): number {
    return this.#bytes.byteLength;
  }

  read(offset: number, size: number): number | bigint {
    let value = 0n;
    for (let at = size - 1; at >= 0; at--) value = (value << 8n) | BigInt(this.#byte(offset + at));
    return size === 8 ? value : Number(value);
  }

  write(offset: number, size: number, value: number | bigint): void {
    if (this.#onWrite === undefined) return;
    const bytes = BigInt(value);
    for (let at = 0; at < size; at++) {
      if (offset + at < this.sizeBytes) this.#onWrite(offset + at, Number((bytes >> BigInt(8 * at)) & 0xffn));
    }
  }

  get8(offset: number): number {
    return this.#bytes.getUint8(offset);
  }

  set8(offset: number, value: number): void {
    this.#bytes.setUint8(offset, value);
  }

  set16(offset: number, value: number): void {
    this.#bytes.setUint16(offset, value, true);
  }

  set32(offset: number, value: number): void {
    this.#bytes.setUint32(offset, value, true);
  }

  set64(offset: number, value: number): void {
    this.#bytes.setBigUint64(offset, BigInt(value), true);
  }

  #byte(offset: number): number {
    return offset >= 0 && offset < this.sizeBytes ? this.#bytes.getUint8(offset) : 0;
  }
}
