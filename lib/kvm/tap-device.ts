/**
 * A tap interface: frames between the kernel's network stack and this process. Typed and awake: what JavaScript's event
 * loop finds readable reaches `onReady` on the JavaScript thread. Flags and what frames mean are the caller's (vsp/net).
 */
import { loadBinding } from './binding.js';
import type { NativeTap } from './native.js';

/** Whether this network namespace has an interface of that name. */
export function interfaceExists(name: string): boolean {
  return loadBinding().addon.interfaceIndex(name) !== 0;
}

export class TapDevice {
  /** There may be frames, or a change; called once for several that came close together. */
  onReady: (() => void) | undefined;
  readonly #native: NativeTap;
  readonly #sourceId: number;
  #isClosed = false;

  /**
   * Takes the interface, or makes it where there is none; one that was made goes with this object. `flags` of TUNSETIFF.
   *
   * @throws SystemError of `open` (of /dev/net/tun) or `TUNSETIFF`.
   */
  constructor(name: string, flags: number) {
    const { addon, dispatcher } = loadBinding();
    this.#native = new addon.Tap(name, flags);
    this.#sourceId = this.#native.sourceId;
    dispatcher.register(this.#sourceId, this, (tap) => tap.onReady?.());
  }

  /** What it is called now. @throws SystemError when it is gone, as all of these. */
  name(): string {
    return this.#native.name();
  }

  /** The size of the header in front of each frame. */
  setHeaderBytes(bytes: number): void {
    this.#native.setHeaderBytes(bytes);
  }

  /** What a reader takes beside plain frames, see TunOffload. */
  setOffloads(flags: number): void {
    this.#native.setOffloads(flags);
  }

  /** Of the interface, see InterfaceFlag. */
  interfaceFlags(): number {
    return this.#native.interfaceFlags();
  }

  setInterfaceFlags(flags: number): void {
    this.#native.setInterfaceFlags(flags);
  }

  mtuBytes(): number {
    return this.#native.mtuBytes();
  }

  /**
   * Reads frames with their headers, one behind the other, while there is room for one of `maxFrameBytes`: their lengths
   * go into `lengths`. How many; -1 less that number when there are no more, and then `onReady` follows when there are.
   */
  read(slab: Uint8Array, maxFrameBytes: number, lengths: Uint32Array): number {
    return this.#native.read(slab, maxFrameBytes, lengths);
  }

  /** Gives a frame to the kernel: 0, or the errno. */
  write(header: Uint8Array, frame: Uint8Array): number {
    return this.#native.write(header, frame);
  }

  /** Whether any interface of this namespace has changed since the last call; `onReady` follows the next change. */
  changed(): boolean {
    return this.#native.changed();
  }

  /** Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.onReady = undefined;
    loadBinding().dispatcher.unregister(this.#sourceId);
    this.#native.close();
  }
}
