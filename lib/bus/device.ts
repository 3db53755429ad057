/**
 * What a device model is to the bus: something that answers reads and writes of its registers with a value, an error,
 * or later. Devices know no hypervisor: they take an InterruptLine, a Clock, a sink, and optionally FastRegisters,
 * by which the vCPU's own thread answers for them.
 */

/** Size of one register access in bytes. */
export type AccessSize = 1 | 2 | 4 | 8;

/**
 * A device on the bus. `offset` counts from the start of the range that the device was mapped at.
 * A read answers with the value (sizes 1, 2 and 4: an unsigned number; 8: a bigint is allowed) or with a promise of it:
 * the vCPU then waits without blocking the event loop. A write that returns a promise holds the vCPU the same way.
 * A device that throws has a bug of ours: the bus turns it into a typed fault that pauses this machine.
 */
export interface BusDevice {
  /** Short and unique in a machine: 'com1', 'rtc', 'i8042'. */
  readonly name: string;
  /** The widest access that the device takes; the bus splits a wider one into these, lowest first, as ISA does. */
  readonly maxSize?: AccessSize;
  read(offset: number, size: AccessSize): number | bigint | Promise<number | bigint>;
  write(offset: number, size: AccessSize, value: number | bigint): void | Promise<void>;
  /** String input (`rep ins`): fills `data`. Without it the bus calls `read` once for each element. */
  readBlock?(offset: number, size: AccessSize, data: Uint8Array): void | Promise<void>;
  /** String output (`rep outs`). `data` is only valid during the call. Without it the bus calls `write` for each. */
  writeBlock?(offset: number, size: AccessSize, data: Uint8Array): void | Promise<void>;
  /** Back to the power-on state. */
  reset(): void;
  /** A JSON value for `vm.inspect()`: registers and counters, no secrets. */
  inspect(): unknown;
}

/** An input of an interrupt controller. Level and edge are the line's business; a device says high or low. */
export interface InterruptLine {
  set(high: boolean): void;
}

/**
 * Registers that the vCPU's thread serves without JavaScript. A *published* port answers one-byte reads with the value
 * last published. A *posted* port takes one-byte writes and lets the vCPU go on; the device's `write` is called later,
 * in order, and always before any other access of the same vCPU reaches a device.
 */
export interface FastRegisters {
  publish(port: number, value: number): void;
  withdraw(port: number): void;
  post(port: number, on: boolean): void;
  /** One-byte writes to an ignored port are dropped without any device seeing them. */
  ignore(port: number, on: boolean): void;
  /** Asked for once in a port's life: reads of it are answered from the queue first. */
  queue(port: number): ReadQueue;
}

/** Bytes that reads of one port take one by one on the vCPU's thread; the device learns afterwards which were taken. */
export interface ReadQueue {
  /** Puts bytes[from] to bytes[to - 1] behind those that wait; how many there was room for. */
  offer(bytes: ArrayLike<number>, from: number, to: number): number;
  /** How many were taken since the last call. */
  takenBytes(): number;
  /** Takes back what waits. */
  clear(): void;
}

const emptyQueue: ReadQueue = { offer: () => 0, takenBytes: () => 0, clear: () => undefined };

/** For devices that are used without a vCPU thread: nothing is fast, everything is exact. */
export const noFastRegisters: FastRegisters = {
  publish: () => undefined,
  withdraw: () => undefined,
  post: () => undefined,
  ignore: () => undefined,
  queue: () => emptyQueue,
};
