/**
 * What a UART sends, gathered into pieces for the host's sink: a guest writes byte by byte, the sink gets a piece for
 * each turn of the event loop. While the host can't take more (pause), a small amount is held, and then the guest is
 * told to wait by a transmitter that is not empty; it must not grow past that, whatever the guest does.
 */

const BUFFER_BYTES = 16 * 1024;

export class UartTransmitter {
  readonly #output: (bytes: Uint8Array) => void;
  /** Made for the first byte: most machines never use their second port. */
  #buffer: Uint8Array | undefined;
  #length = 0;
  #paused = false;
  /** Bytes lost because the guest went on while it was told to wait. */
  lostBytes = 0;

  constructor(output: (bytes: Uint8Array) => void) {
    this.#output = output;
  }

  /** The transmitter holding register is empty, as the guest sees it. */
  get ready(): boolean {
    return !this.#paused || this.#length === 0;
  }

  get paused(): boolean {
    return this.#paused;
  }

  get heldBytes(): number {
    return this.#length;
  }

  put(byte: number): void {
    if (this.#length === BUFFER_BYTES) {
      this.flush();
      if (this.#paused) {
        this.lostBytes++;
        return;
      }
    }
    this.#buffer ??= new Uint8Array(BUFFER_BYTES);
    this.#buffer[this.#length++] = byte;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.flush();
  }

  /** A copy of what is held back. */
  held(): Uint8Array {
    return this.#buffer?.slice(0, this.#length) ?? new Uint8Array(0);
  }

  /** Takes over what another transmitter held back, and hands it on. */
  takeOver(held: Uint8Array): void {
    for (const byte of held) this.put(byte);
    this.flush();
  }

  /** Hands on what has gathered, unless paused. */
  flush(): void {
    if (this.#paused || this.#length === 0 || this.#buffer === undefined) return;
    const bytes = this.#buffer.slice(0, this.#length);
    this.#length = 0;
    this.#output(bytes);
  }
}
