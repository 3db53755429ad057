/**
 * Port 0x61, system control port B of the PC/AT: gate and output of the PIT's channel 2, the speaker, and the refresh
 * toggle that old delay loops count. KVM answers this port itself where its PIT is made with KVM_PIT_SPEAKER_DUMMY;
 * this device is for a machine without that. It does not own the PIT.
 */
import * as v from 'valibot';
import { stateFormat, u8, type Savable, type SavedPart } from '../base/saved-state.js';
import type { AccessSize, BusDevice } from '../bus/device.js';

/** Channel 2 of the PIT, as this port reaches it. */
export interface TimerChannel2 {
  setGate(high: boolean): void;
  output(): boolean;
}

const Bit = { GATE: 0x01, SPEAKER: 0x02, CHECKS: 0x0c, REFRESH: 0x10, OUTPUT: 0x20 } as const;
const WRITABLE = Bit.GATE | Bit.SPEAKER | Bit.CHECKS;

const systemControlFormat = stateFormat({
  type: 'system-control-b',
  version: 1,
  schema: v.strictObject({ control: u8, refresh: v.boolean() }),
});

export class SystemControlB implements BusDevice, Savable {
  readonly name = 'system-control-b';
  readonly maxSize = 1;
  readonly #timer: TimerChannel2;
  #control = 0;
  #refresh = false;

  constructor(timer: TimerChannel2) {
    this.#timer = timer;
  }

  read(): number {
    this.#refresh = !this.#refresh;
    return this.#control | (this.#refresh ? Bit.REFRESH : 0) | (this.#timer.output() ? Bit.OUTPUT : 0);
  }

  write(_offset: number, _size: AccessSize, value: number | bigint): void {
    const control = Number(value) & WRITABLE;
    if (((control ^ this.#control) & Bit.GATE) !== 0) this.#timer.setGate((control & Bit.GATE) !== 0);
    this.#control = control;
  }

  reset(): void {
    this.write(0, 1, 0);
  }

  saveState(): SavedPart {
    return systemControlFormat.save({ control: this.#control, refresh: this.#refresh });
  }

  /** The timer itself is its owner's to restore. */
  restoreState(part: SavedPart): void {
    const { control, refresh } = systemControlFormat.load(part);
    this.#control = control & WRITABLE;
    this.#refresh = refresh;
  }

  inspect(): unknown {
    return { control: this.#control };
  }
}
