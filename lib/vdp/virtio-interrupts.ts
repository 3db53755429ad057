/**
 * How a virtio function on PCI interrupts (virtio 1.2, 4.1.5.3 and 4.1.5.4): a message by the event's MSI-X vector, or
 * with MSI-X off the ISR status and INTx, which is high while ISR has a bit and the command register allows it.
 */
import { PciCommand, PciHeader } from '../abi/pci.js';
import { VIRTIO_MSI_NO_VECTOR, VirtioIsr } from '../abi/virtio-pci.js';
import type { InterruptLine } from '../bus/index.js';
import type { ConfigSpace } from './pci/config-space.js';
import type { Msix } from './pci/msix.js';

export class VirtioInterrupts {
  readonly #config: ConfigSpace;
  readonly #msix: Msix;
  readonly #intx: InterruptLine;
  #isr = 0;
  #isHigh = false;

  constructor(config: ConfigSpace, msix: Msix, intx: InterruptLine) {
    this.#config = config;
    this.#msix = msix;
    this.#intx = intx;
    msix.onChange = () => this.#update();
    config.watch(PciHeader.COMMAND, 2, { onWrite: () => this.#update() });
  }

  /** What software wrote as an event's vector, as it is kept: one that does not exist is none. */
  acceptVector(vector: number): number {
    return vector < this.#msix.vectorCount ? vector : VIRTIO_MSI_NO_VECTOR;
  }

  /** Used buffers in a queue that has this vector. */
  queue(vector: number): void {
    if (this.#msix.enabled) return this.#message(vector);
    this.#isr |= VirtioIsr.QUEUE;
    this.#update();
  }

  /** The configuration changed. ISR says so in every mode (4.1.4.5.1). */
  config(vector: number): void {
    this.#isr |= VirtioIsr.CONFIG;
    if (this.#msix.enabled) this.#message(vector);
    else this.#update();
  }

  /** A read of ISR status takes it, and the line falls. */
  takeIsr(): number {
    const isr = this.#isr;
    this.#isr = 0;
    this.#update();
    return isr;
  }

  /** The device was reset: nothing is pending. */
  reset(): void {
    this.#isr = 0;
    this.#msix.clearPending();
    this.#update();
  }

  /** For a snapshot: ISR status. */
  get isr(): number {
    return this.#isr;
  }

  /** From a snapshot, after the configuration space: the line is set as that says. */
  restoreIsr(isr: number): void {
    this.#isr = isr & (VirtioIsr.QUEUE | VirtioIsr.CONFIG);
    this.#update();
  }

  inspect(): unknown {
    return { isr: this.#isr, intx: this.#isHigh, msix: this.#msix.inspect() };
  }

  #message(vector: number): void {
    if (vector !== VIRTIO_MSI_NO_VECTOR) this.#msix.signal(vector);
  }

  #update(): void {
    const pending = this.#isr !== 0 && !this.#msix.enabled;
    this.#config.interruptStatus = pending;
    const high = pending && (this.#config.command & PciCommand.INTX_DISABLE) === 0;
    if (high === this.#isHigh) return;
    this.#isHigh = high;
    this.#intx.set(high);
  }
}
