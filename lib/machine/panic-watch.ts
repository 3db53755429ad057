/**
 * Tells a panic from an ordinary end: a kernel with panic=-1 reboots after one. It is seen by the pvpanic device, or by
 * the line that Linux prints on its console, with the kernel's own time stamp in front so that a user's text isn't taken
 * for it. A kernel that panics and then does nothing ends the machine after a grace for its last words; one that starts
 * a crash kernel (kdump) has all the time that this one takes.
 */
import type { Clock, Timer } from '../base/clock.js';

const STAMP = String.raw`(?:^|\n)(?:<\d>)?\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? `;
const PANIC = new RegExp(`${STAMP}(Kernel panic - not syncing[^\\r\\n]*)`);
/** The first line of a kernel's log: that of the crash kernel, when it comes after a panic. */
const BANNER = new RegExp(`${STAMP}Linux version `);
const WINDOW = 512;
const GRACE_NS = 3_000_000_000n;

export class PanicWatch {
  readonly #clock: Clock;
  readonly #onSettled: () => void;
  #window = '';
  #message: string | undefined;
  /** The message is the console's, and its line has not ended yet. */
  #lineIsOpen = false;
  #crashKernel = false;
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
    if (this.#crashKernel) return;
    const added = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    if (this.#lineIsOpen) this.#readOn(added);
    const text = this.#window + added;
    this.#window = text.slice(-WINDOW);
    if (this.#message !== undefined) {
      if (BANNER.test(text)) this.crashKernelStarts();
      return;
    }
    const match = PANIC.exec(text);
    if (!match) return;
    this.#lineIsOpen = match.index + match[0].length === text.length;
    this.#window = this.#lineIsOpen ? '' : text.slice(match.index + match[0].length).slice(-WINDOW);
    this.panicked(match[1] ?? 'kernel panic');
  }

  /** The pvpanic device was written to, or the console said it. */
  panicked(message: string): void {
    if (this.#message !== undefined) return;
    this.#message = message;
    this.#timer = this.#clock.setTimer(GRACE_NS, this.#onSettled);
  }

  /** A crash kernel takes over: it writes its dump, and reboots by itself. */
  crashKernelStarts(message = 'kernel panic'): void {
    this.#message ??= message;
    this.#crashKernel = true;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** The guest starts anew, or the machine has ended. */
  reset(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#message = undefined;
    this.#lineIsOpen = false;
    this.#crashKernel = false;
    this.#window = '';
  }

  #readOn(added: string): void {
    const end = added.search(/[\r\n]/);
    const rest = end < 0 ? added : added.slice(0, end);
    this.#message = ((this.#message ?? '') + rest).slice(0, WINDOW);
    this.#lineIsOpen = end < 0;
  }
}
