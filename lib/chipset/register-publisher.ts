/**
 * Tells FastRegisters only what changed, for a device with a block of byte registers at a base port. Devices call it on
 * every change of state; most change nothing that is published.
 */
import type { FastRegisters } from '../bus/device.js';

const NOT_PUBLISHED = -1;

export class RegisterPublisher {
  readonly #fast: FastRegisters;
  readonly #basePort: number;
  readonly #published: Int16Array;
  readonly #posted: Uint8Array;

  constructor(fast: FastRegisters, basePort: number, registers: number) {
    this.#fast = fast;
    this.#basePort = basePort;
    this.#published = new Int16Array(registers).fill(NOT_PUBLISHED);
    this.#posted = new Uint8Array(registers);
  }

  /** Reads of the register are answered with `value`, or come to the device where it is undefined. */
  publish(register: number, value: number | undefined): void {
    const next = value ?? NOT_PUBLISHED;
    if (this.#published[register] === next) return;
    this.#published[register] = next;
    if (value === undefined) this.#fast.withdraw(this.#basePort + register);
    else this.#fast.publish(this.#basePort + register, value);
  }

  /** The guest does not wait for its writes to the register, or does again. */
  post(register: number, on: boolean): void {
    if ((this.#posted[register] === 1) === on) return;
    this.#posted[register] = on ? 1 : 0;
    this.#fast.post(this.#basePort + register, on);
  }
}
