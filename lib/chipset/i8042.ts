/**
 * The keyboard controller at ports 0x60 and 0x64: the reset pulse that kernels fall back on, A20 for old loaders, and
 * answers to a driver's probe, with a keyboard that nobody types on and no auxiliary device. The FADT and the DSDT do
 * not name it, so a Linux with ACPI does not probe at all. It reports a reset and never performs one.
 */
import * as v from 'valibot';
import { I8042Answer, I8042Command, I8042Control, I8042OutputPort, I8042Status } from '../abi/i8042.js';
import { bytes, integer, stateFormat, u8, type Savable, type SavedPart } from '../base/saved-state.js';
import type { AccessSize, BusDevice, InterruptLine } from '../bus/device.js';
import { Keyboard } from './keyboard.js';

export interface I8042Options {
  /** Interrupt 1. The auxiliary port's, 12, is never raised: nothing is plugged in there. */
  readonly keyboardIrq: InterruptLine;
  readonly onReset: () => void;
}

/** The offsets that the device is mapped with: port 0x60 and port 0x64. */
export const I8042_DATA_OFFSET = 0;
export const I8042_COMMAND_OFFSET = 4;

/** More answers than any driver leaves unread; further ones are lost, as on the real controller. */
const MAX_WAITING = 16;
const RAM_BYTES = 32;

function powerOn() {
  const ram = new Uint8Array(RAM_BYTES);
  // As firmware leaves it: interrupts from the keyboard, translation, the auxiliary port off.
  ram[0] = I8042Control.KEYBOARD_INTERRUPT | I8042Control.SYSTEM | I8042Control.AUX_DISABLED | I8042Control.TRANSLATE;
  return {
    /** Byte 0 is the command byte. */
    ram,
    outputPort: I8042OutputPort.NOT_RESET | I8042OutputPort.A20,
    waiting: [] as { byte: number; status: number }[],
    lastByte: 0,
    lastWasCommand: false,
    /** The command that waits for its data byte. */
    awaiting: undefined as number | undefined,
  };
}

const i8042Format = stateFormat({
  type: 'i8042',
  version: 1,
  schema: v.strictObject({
    ram: bytes({ length: RAM_BYTES }),
    outputPort: u8,
    waiting: v.pipe(v.array(v.strictObject({ byte: u8, status: u8 })), v.maxLength(MAX_WAITING)),
    lastByte: u8,
    lastWasCommand: v.boolean(),
    awaiting: v.optional(u8),
    interrupt: v.boolean(),
    keyboard: v.strictObject({ awaiting: v.optional(u8), scanCodeSet: integer(1, 3) }),
  }),
});

export class I8042 implements BusDevice, Savable {
  readonly name = 'i8042';
  readonly maxSize = 1;

  readonly #options: I8042Options;
  readonly #keyboard = new Keyboard();
  #state = powerOn();
  #lineIsHigh = false;

  constructor(options: I8042Options) {
    this.#options = options;
  }

  read(offset: number): number {
    return offset === I8042_COMMAND_OFFSET ? this.#status() : this.#takeByte();
  }

  write(offset: number, _size: AccessSize, value: number | bigint): void {
    const byte = Number(value) & 0xff;
    this.#state.lastWasCommand = offset === I8042_COMMAND_OFFSET;
    if (this.#state.lastWasCommand) {
      this.#state.awaiting = undefined;
      this.#command(byte);
    } else {
      const { awaiting } = this.#state;
      this.#state.awaiting = undefined;
      if (awaiting === undefined) this.#toKeyboard(byte);
      else this.#argument(awaiting, byte);
    }
    this.#updateLine();
  }

  reset(): void {
    this.#state = powerOn();
    this.#keyboard.reset();
    this.#updateLine();
  }

  saveState(): SavedPart {
    const { ram, waiting, ...state } = this.#state;
    return i8042Format.save({
      ...state,
      ram: ram.slice(),
      waiting: waiting.map((answer) => ({ ...answer })),
      interrupt: this.#lineIsHigh,
      keyboard: this.#keyboard.state,
    });
  }

  restoreState(part: SavedPart): void {
    const { interrupt, keyboard, ram, awaiting, ...state } = i8042Format.load(part);
    this.#state = { ...state, ram: ram.slice(), awaiting };
    this.#keyboard.restore(keyboard);
    this.#setLine(interrupt);
  }

  inspect(): unknown {
    const { ram, outputPort, waiting } = this.#state;
    return { control: ram[0], outputPort, waitingBytes: waiting.length, interrupt: this.#lineIsHigh };
  }

  get #control(): number {
    return this.#state.ram[0] ?? 0;
  }

  #status(): number {
    const { waiting, lastWasCommand } = this.#state;
    const [first] = waiting;
    return (
      (first === undefined ? 0 : I8042Status.OUTPUT_FULL | first.status) |
      ((this.#control & I8042Control.SYSTEM) !== 0 ? I8042Status.SYSTEM : 0) |
      (lastWasCommand ? I8042Status.LAST_WAS_COMMAND : 0) |
      I8042Status.UNLOCKED
    );
  }

  #takeByte(): number {
    const state = this.#state;
    const first = state.waiting.shift();
    if (first !== undefined) {
      state.lastByte = first.byte;
      // The buffer is empty for a moment: the next byte makes an edge of its own.
      this.#setLine(false);
      this.#updateLine();
    }
    return state.lastByte;
  }

  #command(command: number): void {
    const state = this.#state;
    if (command >= I8042Command.PULSE) {
      if ((command & I8042OutputPort.NOT_RESET) === 0) this.#options.onReset();
      return;
    }
    if (command >= I8042Command.READ_RAM && command < I8042Command.READ_RAM + RAM_BYTES) {
      this.#answer(state.ram[command - I8042Command.READ_RAM] ?? 0);
      return;
    }
    if (command >= I8042Command.WRITE_RAM && command < I8042Command.WRITE_RAM + RAM_BYTES) {
      state.awaiting = command;
      return;
    }
    switch (command) {
      case I8042Command.AUX_DISABLE:
        this.#setControl(I8042Control.AUX_DISABLED, true);
        break;
      case I8042Command.AUX_ENABLE:
        this.#setControl(I8042Control.AUX_DISABLED, false);
        break;
      case I8042Command.AUX_TEST:
        // What a controller without an auxiliary port answers; drivers take it as such at once.
        this.#answer(I8042Answer.CLOCK_STUCK);
        break;
      case I8042Command.SELF_TEST:
        state.waiting.length = 0;
        this.#setControl(I8042Control.SYSTEM, true);
        this.#answer(I8042Answer.SELF_TEST_PASSED);
        break;
      case I8042Command.KEYBOARD_TEST:
        this.#answer(I8042Answer.TEST_PASSED);
        break;
      case I8042Command.KEYBOARD_DISABLE:
        this.#setControl(I8042Control.KEYBOARD_DISABLED, true);
        break;
      case I8042Command.KEYBOARD_ENABLE:
        this.#setControl(I8042Control.KEYBOARD_DISABLED, false);
        break;
      case I8042Command.READ_INPUT_PORT:
        this.#answer(0x80); // the keyboard is not inhibited
        break;
      case I8042Command.READ_OUTPUT_PORT:
        this.#answer(state.outputPort);
        break;
      case I8042Command.WRITE_OUTPUT_PORT:
      case I8042Command.WRITE_KEYBOARD_BUFFER:
      case I8042Command.WRITE_AUX_BUFFER:
      case I8042Command.WRITE_AUX:
        state.awaiting = command;
        break;
      case I8042Command.A20_OFF:
        state.outputPort &= ~I8042OutputPort.A20;
        break;
      case I8042Command.A20_ON:
        state.outputPort |= I8042OutputPort.A20;
        break;
      default: // unknown commands do nothing, as on the real controller
        break;
    }
  }

  #argument(command: number, byte: number): void {
    const state = this.#state;
    switch (command) {
      case I8042Command.WRITE_OUTPUT_PORT:
        // The line from bit 0 resets while it is low. A20 is only remembered: memory never wraps here.
        if ((byte & I8042OutputPort.NOT_RESET) === 0) this.#options.onReset();
        state.outputPort = byte | I8042OutputPort.NOT_RESET;
        break;
      case I8042Command.WRITE_KEYBOARD_BUFFER:
      case I8042Command.WRITE_AUX_BUFFER:
        // Without an auxiliary port the byte comes back as the keyboard's, which tells a driver so.
        this.#answer(byte);
        break;
      case I8042Command.WRITE_AUX:
        // Nothing is plugged in: the transmission times out.
        this.#answer(0xfe, I8042Status.AUX_DATA | I8042Status.TIMEOUT);
        break;
      default:
        state.ram[command - I8042Command.WRITE_RAM] = byte;
    }
  }

  /** A byte for the keyboard turns its interface on. */
  #toKeyboard(byte: number): void {
    this.#setControl(I8042Control.KEYBOARD_DISABLED, false);
    const translated = (this.#control & I8042Control.TRANSLATE) !== 0;
    for (const answer of this.#keyboard.receive(byte, translated)) this.#answer(answer);
  }

  #setControl(bit: number, on: boolean): void {
    this.#state.ram[0] = on ? this.#control | bit : this.#control & ~bit;
  }

  #answer(byte: number, status = 0): void {
    if (this.#state.waiting.length < MAX_WAITING) this.#state.waiting.push({ byte, status });
  }

  #updateLine(): void {
    const [first] = this.#state.waiting;
    const isKeyboard = first !== undefined && (first.status & I8042Status.AUX_DATA) === 0;
    this.#setLine(isKeyboard && (this.#control & I8042Control.KEYBOARD_INTERRUPT) !== 0);
  }

  #setLine(high: boolean): void {
    if (high === this.#lineIsHigh) return;
    this.#lineIsHigh = high;
    this.#options.keyboardIrq.set(high);
  }
}
