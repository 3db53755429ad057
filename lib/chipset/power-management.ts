/**
 * ACPI fixed power management: PM1a event and control blocks, the GPE0 block and the system control interrupt, as in
 * ACPI 6.5, section 4.8. The machine is always in ACPI mode (the FADT's SMI_CMD is 0), so SCI_EN reads as 1. It reports
 * soft off to the machine and never ends anything by itself.
 *
 *   powerButton() -> PWRBTN_STS -> (PWRBTN_EN) -> SCI -> guest writes SLP_TYP = S5 and SLP_EN -> onPowerOff()
 */
import * as v from 'valibot';
import { Pm1Control, Pm1Event, SLEEP_TYPE_S5 } from '../abi/acpi-pm.js';
import { GPE0_LENGTH_BYTES, Port } from '../abi/ports.js';
import { bytes, integer, stateFormat, u16, type Savable, type SavedPart } from '../base/saved-state.js';
import type { AccessSize, BusDevice, InterruptLine } from '../bus/device.js';
import type { PmTimer } from './pm-timer.js';

export interface PowerManagementOptions {
  /** The system control interrupt: level, high while an enabled event is pending. */
  readonly sci: InterruptLine;
  readonly timer: PmTimer;
  /** The guest asked for soft off (S5). */
  readonly onPowerOff: () => void;
}

/** PM1a event and control stand together at offset 0, the GPE0 block is the device's second range. */
export const PM1A_PORT_COUNT = Port.PM1A_CONTROL + 2 - Port.PM1A_EVENT;
export const GPE0_OFFSET = Port.GPE0 - Port.PM1A_EVENT;

const PM1_STATUS_BITS = Pm1Event.TIMER | Pm1Event.GLOBAL | Pm1Event.POWER_BUTTON | Pm1Event.WAKE;
/** Linux enables the clock's event too and complains when it does not stay so; here the clock has IRQ 8 only. */
const PM1_ENABLE_BITS =
  Pm1Event.TIMER | Pm1Event.GLOBAL | Pm1Event.POWER_BUTTON | Pm1Event.SLEEP_BUTTON | Pm1Event.CLOCK;
const GPE_COUNT = (GPE0_LENGTH_BYTES / 2) * 8;

function powerOn() {
  return {
    status: 0,
    enable: 0,
    control: Pm1Control.SCI_ENABLE as number,
    gpeStatus: new Uint8Array(GPE0_LENGTH_BYTES / 2),
    gpeEnable: new Uint8Array(GPE0_LENGTH_BYTES / 2),
  };
}

const powerFormat = stateFormat({
  type: 'acpi-pm',
  version: 1,
  schema: v.strictObject({
    status: u16,
    enable: u16,
    control: u16,
    gpeStatus: bytes({ length: GPE0_LENGTH_BYTES / 2 }),
    gpeEnable: bytes({ length: GPE0_LENGTH_BYTES / 2 }),
    sci: v.boolean(),
    powerButtonPresses: integer(0, Number.MAX_SAFE_INTEGER),
  }),
});

export class PowerManagement implements BusDevice, Savable {
  readonly name = 'acpi-pm';
  /** Status bits are cleared byte by byte, as the specification allows for every width. */
  readonly maxSize = 1;

  readonly #options: PowerManagementOptions;
  #state = powerOn();
  #sciIsHigh = false;
  #powerButtonPresses = 0;

  constructor(options: PowerManagementOptions) {
    this.#options = options;
    options.timer.onOverflow = () => this.#update();
  }

  /** Presses the fixed power button. A guest that has enabled it powers off, when it wants to. */
  powerButton(): void {
    this.#powerButtonPresses++;
    this.#state.status |= Pm1Event.POWER_BUTTON;
    this.#update();
  }

  /**
   * Raises a general purpose event, for which the DSDT has a method in \_GPE.
   *
   * @throws RangeError when there is no such event.
   */
  raiseGpe(event: number): void {
    if (!Number.isInteger(event) || event < 0 || event >= GPE_COUNT)
      throw new RangeError(`GPE ${event} does not exist`);
    this.#state.gpeStatus[event >> 3]! |= 1 << (event & 7);
    this.#update();
  }

  read(offset: number): number {
    const state = this.#state;
    if (offset >= GPE0_OFFSET) return this.#readGpe(offset - GPE0_OFFSET);
    // Status, enable, control: three 16-bit registers.
    const register = [this.#status(), state.enable, state.control][offset >> 1] ?? 0;
    return (register >> (8 * (offset & 1))) & 0xff;
  }

  write(offset: number, _size: AccessSize, value: number | bigint): void {
    const state = this.#state;
    if (offset >= GPE0_OFFSET) {
      this.#writeGpe(offset - GPE0_OFFSET, Number(value) & 0xff);
      return;
    }
    const shift = 8 * (offset & 1);
    const bits = (Number(value) & 0xff) << shift;
    const kept = 0xff00 >> shift;
    switch (offset >> 1) {
      case 0:
        state.status &= ~bits;
        if ((bits & Pm1Event.TIMER) !== 0) this.#options.timer.clearOverflow();
        break;
      case 1:
        state.enable = ((state.enable & kept) | bits) & PM1_ENABLE_BITS;
        this.#options.timer.watchOverflow((state.enable & Pm1Event.TIMER) !== 0);
        break;
      default:
        this.#writeControl((state.control & kept) | bits);
    }
    this.#update();
  }

  reset(): void {
    this.#state = powerOn();
    this.#options.timer.watchOverflow(false);
    this.#options.timer.clearOverflow();
    this.#update();
  }

  saveState(): SavedPart {
    const { gpeStatus, gpeEnable, ...registers } = this.#state;
    return powerFormat.save({
      ...registers,
      gpeStatus: gpeStatus.slice(),
      gpeEnable: gpeEnable.slice(),
      sci: this.#sciIsHigh,
      powerButtonPresses: this.#powerButtonPresses,
    });
  }

  /** After the timer, which it watches where the guest wants that. */
  restoreState(part: SavedPart): void {
    const { sci, powerButtonPresses, gpeStatus, gpeEnable, ...registers } = powerFormat.load(part);
    this.#state = { ...registers, gpeStatus: gpeStatus.slice(), gpeEnable: gpeEnable.slice() };
    this.#powerButtonPresses = powerButtonPresses;
    if (sci !== this.#sciIsHigh) this.#options.sci.set(sci);
    this.#sciIsHigh = sci;
    this.#options.timer.watchOverflow((registers.enable & Pm1Event.TIMER) !== 0);
  }

  inspect(): unknown {
    const { enable, control, gpeStatus, gpeEnable } = this.#state;
    return {
      status: this.#status(),
      enable,
      control,
      gpeStatus: [...gpeStatus],
      gpeEnable: [...gpeEnable],
      sci: this.#sciIsHigh,
      powerButtonPresses: this.#powerButtonPresses,
    };
  }

  #status(): number {
    const status = this.#state.status | (this.#options.timer.overflowed ? Pm1Event.TIMER : 0);
    return status & PM1_STATUS_BITS;
  }

  #writeControl(value: number): void {
    // SLP_EN reads as 0; SCI_EN is not the guest's to clear where there is no SMI_CMD.
    this.#state.control = (value & ~Pm1Control.SLEEP_ENABLE) | Pm1Control.SCI_ENABLE;
    if ((value & Pm1Control.SLEEP_ENABLE) === 0) return;
    const sleepType = (value >> Pm1Control.SLEEP_TYPE_SHIFT) & Pm1Control.SLEEP_TYPE_MASK;
    if (sleepType === SLEEP_TYPE_S5) this.#options.onPowerOff();
  }

  #readGpe(offset: number): number {
    const half = GPE0_LENGTH_BYTES / 2;
    return (offset < half ? this.#state.gpeStatus[offset] : this.#state.gpeEnable[offset - half]) ?? 0;
  }

  #writeGpe(offset: number, value: number): void {
    const half = GPE0_LENGTH_BYTES / 2;
    if (offset < half) this.#state.gpeStatus[offset]! &= ~value;
    else this.#state.gpeEnable[offset - half] = value;
    this.#update();
  }

  #update(): void {
    const { gpeStatus, gpeEnable, enable } = this.#state;
    const high =
      (this.#status() & enable) !== 0 || gpeStatus.some((status, index) => (status & (gpeEnable[index] ?? 0)) !== 0);
    if (high === this.#sciIsHigh) return;
    this.#sciIsHigh = high;
    this.#options.sci.set(high);
  }
}
