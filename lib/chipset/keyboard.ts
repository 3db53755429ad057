/**
 * An AT keyboard that nobody types on: it answers what a driver's probe sends, so that the probe ends at once instead
 * of in a timeout. i8042.ts stands before it.
 */
import { KeyboardAnswer, KeyboardCommand } from '../abi/i8042.js';

const { ACK, RESEND, TEST_PASSED } = KeyboardAnswer;

export class Keyboard {
  /** The command that waits for its argument. */
  #awaiting: number | undefined;
  #scanCodeSet = 2;

  /** The bytes that the keyboard sends on receiving one. `translated`: the controller translates to scan code set 1. */
  receive(byte: number, translated: boolean): readonly number[] {
    const awaiting = this.#awaiting;
    if (awaiting !== undefined && byte < KeyboardCommand.SET_LEDS) {
      this.#awaiting = undefined;
      return this.#argument(awaiting, byte);
    }
    this.#awaiting = undefined;
    switch (byte) {
      case KeyboardCommand.SET_LEDS:
      case KeyboardCommand.SCAN_CODE_SET:
      case KeyboardCommand.SET_RATE:
        this.#awaiting = byte;
        return [ACK];
      case KeyboardCommand.ECHO:
        return [KeyboardCommand.ECHO];
      case KeyboardCommand.IDENTIFY:
        // An MF2 keyboard is AB 83; translation makes 83 a 41.
        return [ACK, 0xab, translated ? 0x41 : 0x83];
      case KeyboardCommand.ENABLE:
        return [ACK];
      case KeyboardCommand.DISABLE:
      case KeyboardCommand.DEFAULTS:
        this.reset();
        return [ACK];
      case KeyboardCommand.RESET:
        this.reset();
        return [ACK, TEST_PASSED];
      default:
        return [RESEND];
    }
  }

  /** For i8042.ts, which saves it with its own. */
  get state(): { readonly awaiting: number | undefined; readonly scanCodeSet: number } {
    return { awaiting: this.#awaiting, scanCodeSet: this.#scanCodeSet };
  }

  restore({ awaiting, scanCodeSet }: { readonly awaiting?: number | undefined; readonly scanCodeSet: number }): void {
    this.#awaiting = awaiting;
    this.#scanCodeSet = scanCodeSet;
  }

  reset(): void {
    this.#awaiting = undefined;
    this.#scanCodeSet = 2;
  }

  #argument(command: number, byte: number): readonly number[] {
    if (command !== KeyboardCommand.SCAN_CODE_SET) return [ACK];
    if (byte === 0) return [ACK, this.#scanCodeSet];
    if (byte > 3) return [RESEND];
    this.#scanCodeSet = byte;
    return [ACK];
  }
}
