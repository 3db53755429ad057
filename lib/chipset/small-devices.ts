/**
 * Devices of one register: reset control, pvpanic, debug exit, and the ports that only cost time. Each reports what the
 * guest did to a callback of the machine and decides nothing.
 */
import * as v from 'valibot';
import { RESET_CPU } from '../abi/acpi-pm.js';
import { PVPANIC_EVENTS, PvpanicEvent } from '../abi/pvpanic.js';
import { integer, stateFormat, u8, type Savable, type SavedPart } from '../base/saved-state.js';
import type { AccessSize, BusDevice } from '../bus/device.js';

const resetControlFormat = stateFormat({
  type: 'reset-control',
  version: 1,
  schema: v.strictObject({ value: u8 }),
});
const pvpanicFormat = stateFormat({
  type: 'pvpanic',
  version: 1,
  schema: v.strictObject({ panics: integer(0, Number.MAX_SAFE_INTEGER) }),
});
const debugExitFormat = stateFormat({ type: 'debug-exit', version: 1, schema: v.strictObject({}) });
const delayPortFormat = stateFormat({ type: 'delay-port', version: 1, schema: v.strictObject({ last: u8 }) });

/** Port 0xCF9 of Intel's south bridges: setting RST_CPU resets the machine. Only single bytes reach it. */
export class ResetControl implements BusDevice, Savable {
  readonly name = 'reset-control';
  readonly maxSize = 1;
  readonly #onReset: () => void;
  #value = 0;

  constructor(onReset: () => void) {
    this.#onReset = onReset;
  }

  read(): number {
    return this.#value;
  }

  write(_offset: number, _size: AccessSize, value: number | bigint): void {
    const byte = Number(value);
    // The reset bit itself does not stay.
    this.#value = byte & ~RESET_CPU;
    if ((byte & RESET_CPU) !== 0) this.#onReset();
  }

  reset(): void {
    this.#value = 0;
  }

  saveState(): SavedPart {
    return resetControlFormat.save({ value: this.#value });
  }

  restoreState(part: SavedPart): void {
    this.#value = resetControlFormat.load(part).value;
  }

  inspect(): unknown {
    return { value: this.#value };
  }
}

/** 'panicked': the guest's kernel is lost. 'crash-loaded': it is, and a crash kernel takes over. */
export type PanicKind = 'panicked' | 'crash-loaded';

/** QEMU's pvpanic device: reads tell the events it knows, a write of them reports one. */
export class Pvpanic implements BusDevice, Savable {
  readonly name = 'pvpanic';
  readonly maxSize = 1;
  readonly #onPanic: (kind: PanicKind) => void;
  #panics = 0;

  constructor(onPanic: (kind: PanicKind) => void) {
    this.#onPanic = onPanic;
  }

  read(): number {
    return PVPANIC_EVENTS;
  }

  write(_offset: number, _size: AccessSize, value: number | bigint): void {
    const events = Number(value);
    if ((events & PVPANIC_EVENTS) === 0) return;
    this.#panics++;
    this.#onPanic((events & PvpanicEvent.PANICKED) !== 0 ? 'panicked' : 'crash-loaded');
  }

  reset(): void {
    this.#panics = 0;
  }

  saveState(): SavedPart {
    return pvpanicFormat.save({ panics: this.#panics });
  }

  restoreState(part: SavedPart): void {
    this.#panics = pvpanicFormat.load(part).panics;
  }

  inspect(): unknown {
    return { panics: this.#panics };
  }
}

/** Port 0xF4: the byte written ends the machine with it as the code. */
export class DebugExit implements BusDevice, Savable {
  readonly name = 'debug-exit';
  readonly maxSize = 1;
  readonly #onExit: (code: number) => void;

  constructor(onExit: (code: number) => void) {
    this.#onExit = onExit;
  }

  read(): number {
    return 0;
  }

  write(_offset: number, _size: AccessSize, value: number | bigint): void {
    this.#onExit(Number(value) & 0xff);
  }

  reset(): void {}

  saveState(): SavedPart {
    return debugExitFormat.save({});
  }

  restoreState(part: SavedPart): void {
    debugExitFormat.load(part);
  }

  inspect(): unknown {
    return {};
  }
}

/**
 * Ports written to for the microsecond that it took on a real bus. They are ignored natively; here what gets through.
 */
export class DelayPort implements BusDevice, Savable {
  readonly name: string;
  readonly maxSize = 1;
  #last = 0;

  constructor(name: string) {
    this.name = name;
  }

  read(): number {
    return this.#last;
  }

  write(_offset: number, _size: AccessSize, value: number | bigint): void {
    this.#last = Number(value) & 0xff;
  }

  reset(): void {
    this.#last = 0;
  }

  saveState(): SavedPart {
    return delayPortFormat.save({ last: this.#last });
  }

  restoreState(part: SavedPart): void {
    this.#last = delayPortFormat.load(part).last;
  }

  inspect(): unknown {
    return { last: this.#last };
  }
}
