/**
 * An eventfd: the signal that KVM and user space give each other without an exit (irqfd, ioeventfd).
 * Its counter can be read at any time; who watches it is told of signals and leaves the counter as it is.
 */
import { loadBinding } from './binding.js';
import type { NativeEventFd } from './native.js';

export class EventFd {
  /** For Vm.irqfd and Vm.ioeventfd. */
  readonly native: NativeEventFd;
  #sourceId = 0;
  #callback: (() => void) | undefined;

  /** @throws SystemError when no descriptor is left. */
  constructor(initialCount = 0) {
    this.native = new (loadBinding().addon.EventFd)(initialCount);
  }

  /** Adds to the counter, which signals; 1 when no count is given. */
  signal(count?: bigint): void {
    this.native.write(count);
  }

  /** Takes the counter: what was signalled since the last read, 0n for nothing. Never blocks. */
  read(): bigint {
    return this.native.read();
  }

  /**
   * Calls back on the JavaScript thread after it was signalled, once for what came in the meantime: also for what stands in
   * the counter now.
   */
  watch(callback: () => void): void {
    const { dispatcher } = loadBinding();
    if (this.#sourceId !== 0) throw new TypeError('this eventfd is watched already');
    const sourceId = dispatcher.runtime.watch(this.native);
    this.#sourceId = sourceId;
    this.#callback = callback;
    dispatcher.register(sourceId, this, (event) => event.#callback?.());
  }

  unwatch(): void {
    if (this.#sourceId === 0) return;
    const { dispatcher } = loadBinding();
    dispatcher.unregister(this.#sourceId);
    dispatcher.runtime.unwatch(this.#sourceId);
    this.#sourceId = 0;
    this.#callback = undefined;
  }

  close(): void {
    this.unwatch();
    this.native.close();
  }
}
