/**
 * The control queues of the virtio console with several ports (virtio 1.2, 5.3.6.2), for console.ts.
 *
 *   driver DEVICE_READY -> PORT_ADD of each port
 *   driver PORT_READY   -> CONSOLE_PORT, PORT_NAME, PORT_OPEN, RESIZE of that port, each where there is something to say
 *   driver PORT_OPEN    -> the guest's side of the port is open or closed
 *
 * What the driver is to be told is kept as a state for each port, not as a list of messages: it is bounded however
 * rarely the driver gives buffers, and what changed twice is told once. Messages of the driver that make no sense are
 * ignored and counted.
 */
import { VIRTIO_CONSOLE_CONTROL_BYTES, VirtioConsoleEvent } from '../abi/virtio.js';
import type { ConsoleSize } from '../vsp/console/contract.js';
import type { ConsoleControlState } from './device-states.js';
import type { VirtioActivation } from './virtio-device.js';
import type { Virtqueue } from './virtqueue.js';

export interface ConsoleControlOptions {
  readonly activation: VirtioActivation;
  readonly ports: readonly { readonly name: string; readonly isConsole: boolean }[];
  /** The control receive queue and the control transmit queue. */
  readonly toDriver: Virtqueue;
  readonly fromDriver: Virtqueue;
  /** RESIZE holds rows before columns, as Linux took it before it followed the specification. */
  readonly resizeRowsFirst: boolean;
  guestOpen(port: number, open: boolean): void;
  fail(reason: string): void;
  /** A message of the driver was ignored, or one of ours did not fit into its buffer. */
  ignored(): void;
}

/** What the driver knows of a port, and is to know. */
interface PortState {
  isAdded: boolean;
  isReady: boolean;
  /** What still has to be told, in this order. */
  add: boolean;
  console: boolean;
  name: boolean;
  hostOpen: boolean;
  toldOpen: boolean;
  resize: ConsoleSize | undefined;
}

export class ConsoleControl {
  readonly #options: ConsoleControlOptions;
  readonly #ports: readonly PortState[];
  #isReady = false;
  #isStopped = false;
  #isContinued = false;

  constructor(options: ConsoleControlOptions) {
    this.#options = options;
    this.#ports = options.ports.map(({ name, isConsole }) => ({
      isAdded: false,
      isReady: false,
      add: false,
      console: isConsole,
      name: name !== '',
      hostOpen: false,
      toldOpen: false,
      resize: undefined,
    }));
  }

  stop(): void {
    this.#isStopped = true;
  }

  state(): ConsoleControlState {
    return {
      isReady: this.#isReady,
      ports: this.#ports.map(({ isAdded, isReady, add, console, name, toldOpen, resize }) => {
        return { isAdded, isReady, add, console, name, toldOpen, ...(resize ? { resize: { ...resize } } : {}) };
      }),
    };
  }

  /** What the driver knew; whether the host's side is open is told by the ports. */
  restore({ isReady, ports }: ConsoleControlState): void {
    this.#isReady = isReady;
    ports.forEach((saved, id) => Object.assign(this.#ports[id] ?? {}, { ...saved, resize: saved.resize }));
  }

  hostOpen(port: number, open: boolean): void {
    this.#ports[port]!.hostOpen = open;
    this.notifyReceive();
  }

  resize(port: number, size: ConsoleSize): void {
    if (!this.#options.ports[port]!.isConsole) return;
    this.#ports[port]!.resize = size;
    this.notifyReceive();
  }

  /** The driver sent messages. */
  notifyTransmit(): void {
    const queue = this.#options.fromDriver;
    if (this.#isStopped) return;
    queue.disableNotifications();
    for (let left = queue.size; ;) {
      const chain = queue.pop();
      if (chain === undefined) {
        if (queue.enableNotifications()) continue;
        break;
      }
      if (chain.writable.lengthBytes > 0) return this.#options.fail('a writable descriptor in the control queue');
      const message = new DataView(new ArrayBuffer(VIRTIO_CONSOLE_CONTROL_BYTES));
      if (chain.readable.lengthBytes < message.byteLength) {
        this.#options.ignored();
      } else {
        chain.readable.copyTo(new Uint8Array(message.buffer));
        this.#take(message.getUint32(0, true), message.getUint16(4, true), message.getUint16(6, true));
      }
      queue.push(chain.head, 0);
      if (--left === 0) {
        this.#continue();
        break;
      }
    }
    if (queue.publish()) this.#options.activation.interrupt(queue.index);
    if (queue.broken !== undefined) return this.#options.fail(queue.broken);
    this.notifyReceive();
  }

  /** The driver gave buffers, or there is something new to tell. */
  notifyReceive(): void {
    const queue = this.#options.toDriver;
    if (this.#isStopped) return;
    queue.disableNotifications();
    for (const [id, port] of this.#ports.entries()) {
      for (let message = this.#next(id, port); message !== undefined; message = this.#next(id, port)) {
        let chain = queue.pop();
        while (chain === undefined && queue.enableNotifications()) chain = queue.pop();
        if (chain === undefined) return this.#told();
        if (chain.readable.lengthBytes > 0) return this.#options.fail('a readable descriptor in the control queue');
        message.told();
        const fits = chain.writable.lengthBytes >= message.bytes.length;
        if (fits) chain.writable.copyFrom(message.bytes);
        else this.#options.ignored();
        queue.push(chain.head, fits ? message.bytes.length : 0);
      }
    }
    this.#told();
  }

  #told(): void {
    const queue = this.#options.toDriver;
    if (queue.publish()) this.#options.activation.interrupt(queue.index);
    if (queue.broken !== undefined) this.#options.fail(queue.broken);
  }

  #take(id: number, event: number, value: number): void {
    const port = this.#ports[id];
    if (event === VirtioConsoleEvent.DEVICE_READY && value === 1 && !this.#isReady) {
      this.#isReady = true;
      for (const each of this.#ports) each.add = true;
    } else if (event === VirtioConsoleEvent.PORT_READY && value === 1 && port?.isAdded === true && !port.isReady) {
      port.isReady = true;
    } else if (event === VirtioConsoleEvent.PORT_OPEN && port?.isAdded === true) {
      this.#options.guestOpen(id, value !== 0);
    } else {
      this.#options.ignored();
    }
  }

  /** What the driver is to be told next of a port; `told` says that it was. */
  #next(id: number, port: PortState): { bytes: Uint8Array; told: () => void } | undefined {
    const { ADD, CONSOLE, NAME, OPEN, RESIZE } = EVENT;
    if (port.add) {
      return {
        bytes: control(id, ADD, 0),
        told: () => {
          port.add = false;
          port.isAdded = true;
        },
      };
    }
    if (!port.isReady) return undefined;
    if (port.console) return { bytes: control(id, CONSOLE, 1), told: () => (port.console = false) };
    if (port.name) {
      const name = Buffer.from(this.#options.ports[id]!.name, 'utf8');
      return { bytes: control(id, NAME, 1, name), told: () => (port.name = false) };
    }
    const { hostOpen, resize } = port;
    if (hostOpen !== port.toldOpen) {
      return { bytes: control(id, OPEN, hostOpen ? 1 : 0), told: () => (port.toldOpen = hostOpen) };
    }
    if (resize === undefined) return undefined;
    const { columns, rows } = resize;
    const words = Uint16Array.from(this.#options.resizeRowsFirst ? [rows, columns] : [columns, rows]);
    return {
      bytes: control(id, RESIZE, 0, new Uint8Array(words.buffer)),
      told: () => (port.resize = undefined),
    };
  }

  /** Goes on with the driver's messages after others of the event loop had their turn. */
  #continue(): void {
    if (this.#isContinued) return;
    this.#isContinued = true;
    setImmediate(() => {
      this.#isContinued = false;
      this.notifyTransmit();
    });
  }
}

const EVENT = {
  ADD: VirtioConsoleEvent.PORT_ADD,
  CONSOLE: VirtioConsoleEvent.CONSOLE_PORT,
  NAME: VirtioConsoleEvent.PORT_NAME,
  OPEN: VirtioConsoleEvent.PORT_OPEN,
  RESIZE: VirtioConsoleEvent.RESIZE,
} as const;

function control(id: number, event: number, value: number, payload = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(VIRTIO_CONSOLE_CONTROL_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, id, true);
  view.setUint16(4, event, true);
  view.setUint16(6, value, true);
  bytes.set(payload, VIRTIO_CONSOLE_CONTROL_BYTES);
  return bytes;
}
