/**
 * Tells a panic from an ordinary end: a kernel with panic=-1 reboots after one. It is seen by the pvpanic device, or by
 * the line that Linux prints on its console, with the kernel's own time stamp in front so that a user's text isn't taken
 * for it. A kernel that panics and then does nothing ends the machine after a grace for its last words.
 */
import type { Clock, Timer } from '../base/clock.js';

const LINE = /(?:^|\n)(?:<\d>)?\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? (Kernel panic - not syncing[^\r\n]*)/;
const WINDOW = 512;
const GRACE_NS = 3_000_000_000n;

export class PanicWatch {
  readonly #clock: Clock;
  readonly #onSettled: () => void;
  #window = '';
  #message: string | undefined;
  #timer: Timer | undefined;

  constructor(options: { clock: Clock; onSettled: () => void }) {
    this.#clock = options.clock;
    this.#onSettled = options.onSettled;
  }

  /** What the kernel said, once it panicked. */
  get message(): string | undefined {
    return this.#message;
  }

  /** Console output, in order. */
  look(bytes: Uint8Array): void {
    if (this.#message !== undefined) return;
    const text = this.#window + Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    const match = LINE.exec(text);
    if (match) this.panicked(match[1] ?? 'kernel panic');
    else this.#window = text.slice(-WINDOW);
  }

  /** The pvpanic device was written to, or the console said it. */
  panicked(message: string): void {
    if (this.#message !== undefined) return;
    this.#message = message;
    this.#timer = this.#clock.setTimer(GRACE_NS, this.#onSettled);
  }

  /** The guest starts anew, or the machine has ended. */
  reset(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#message = undefined;
    this.#window = '';
  }
}
