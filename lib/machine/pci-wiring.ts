/**
 * KVM's side of PCI functions: an interrupt vector is an eventfd with an irqfd on a GSI of its own, a doorbell an
 * eventfd with an ioeventfd at the queue's notify address, watched by the event loop. What KVM or the host refuses
 * costs speed, never a machine: vectors then go by KVM_SIGNAL_MSI, notifications by an exit.
 */
import { Cap } from '../abi/kvm.js';
import { VmmError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import { EventFd, type IoeventfdOptions, type Vm } from '../kvm/index.js';
import type { Doorbell, InterruptVector } from '../vdp/index.js';
import type { GsiRouter, Message } from './gsi-router.js';

/** Length 0 lets KVM signal without decoding the instruction, where it can (KVM_CAP_IOEVENTFD_ANY_LENGTH). */
const ANY_LENGTH = 0;
/** Drivers notify by 16-bit writes (virtio 1.2, 4.1.5.2). */
const NOTIFY_BYTES = 2;

export class PciWiring {
  readonly #vm: Vm;
  readonly #router: GsiRouter;
  readonly #logger: Logger;
  readonly #notifyLength: number;
  readonly #counts = { vectors: 0, doorbells: 0, refused: 0 };

  constructor(vm: Vm, router: GsiRouter, logger: Logger) {
    this.#vm = vm;
    this.#router = router;
    this.#logger = logger;
    this.#notifyLength = vm.checkExtension(Cap.IOEVENTFD_ANY_LENGTH) > 0 ? ANY_LENGTH : NOTIFY_BYTES;
  }

  /** Costs nothing until it is configured: most vectors of most functions never are. */
  makeVector(): InterruptVector {
    let message: Message | undefined;
    let gsi: number | undefined;
    let event: EventFd | undefined;
    let isClosed = false;
    return {
      configure: (to) => {
        message = undefined;
        gsi ??= this.#router.allocate();
        if (isClosed || gsi === undefined) return;
        const from = gsi;
        this.#attempt('a vector', () => {
          if (this.#router.route(from, to)) message = to;
        });
        if (message && !event) event = this.#attempt('an irqfd', () => this.#irqfd(from));
      },
      signal: () => {
        if (!message) return;
        const { address, data } = message;
        if (event) event.signal();
        else this.#attempt('a message', () => this.#vm.signalMsi(address, data));
      },
      close: () => {
        isClosed = true;
        message = undefined;
        event?.close();
        event = undefined;
      },
    };
  }

  makeDoorbell(ring: () => void): Doorbell {
    const event = this.#attempt('a doorbell', () => new EventFd());
    event?.watch(ring);
    if (event) this.#counts.doorbells++;
    let place: IoeventfdOptions | undefined;
    const lift = (): void => {
      const from = place;
      place = undefined;
      if (from) this.#attempt('the end of an ioeventfd', () => this.#vm.removeIoeventfd(event!, from));
    };
    return {
      place: (gpa) => {
        if (!event || gpa === place?.address) return;
        lift();
        if (gpa === undefined) return;
        const to: IoeventfdOptions = { address: gpa, length: this.#notifyLength, space: 'mmio' };
        if (this.#attempt('an ioeventfd', () => (this.#vm.ioeventfd(event, to), true))) place = to;
      },
      close: () => {
        lift();
        event?.close();
      },
    };
  }

  inspect(): unknown {
    return { ...this.#counts, routes: this.#router.inspect() };
  }

  #irqfd(gsi: number): EventFd {
    const event = new EventFd();
    try {
      this.#vm.irqfd(event, gsi);
    } catch (error) {
      event.close();
      throw error;
    }
    this.#counts.vectors++;
    return event;
  }

  #attempt<T>(what: string, action: () => T): T | undefined {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof VmmError)) throw error;
      this.#counts.refused++;
      this.#logger.log('warn', `${what} was refused: ${error.message}`);
      return undefined;
    }
  }
}
