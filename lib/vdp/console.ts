/**
 * The virtio console device (virtio 1.2, 5.3): the guest's side of one or more ConsolePortServices. The ports' bytes are
 * in console-port.ts, the control queues in console-control.ts; this file joins them for the life of the device.
 *
 *   queue 0, 1  port 0 receive, transmit       2, 3  control receive, transmit       4, 5  port 1 ...
 *
 * One console without a name is offered without MULTIPORT: then its size is in the configuration space, which drivers
 * agree on (of RESIZE messages Linux took columns and rows in the other order for years).
 * No emergency write: the machine has a 16550 for that.
 */
import { VirtioConsoleConfig, VirtioConsoleFeature, VirtioDeviceId } from '../abi/virtio.js';
import { VmmError } from '../base/errors.js';
import type { SavedPart } from '../base/saved-state.js';
import type { ConsolePortService, ConsoleSize } from '../vsp/console/contract.js';
import { ConfigBytes } from './config-bytes.js';
import { ConsoleControl } from './console-control.js';
import { ConsolePort } from './console-port.js';
import { consoleState } from './device-states.js';
import type { VirtioActivation, VirtioConfigSpace, VirtioDevice } from './virtio-device.js';

const QUEUE_SIZE = 64;
const CONTROL_QUEUE_SIZE = 32;
/** As many as Linux has minor numbers for in one go, and fewer queues than MSI-X vectors. */
const MAX_PORTS = 31;

const CONTROL_RECEIVE = 2;
const CONTROL_TRANSMIT = 3;

export interface ConsoleDeviceOptions {
  /** RESIZE messages hold rows before columns, for guests with a Linux that reads them so. */
  readonly resizeRowsFirst?: boolean;
}

type ConsoleState = ReturnType<typeof consoleState.load>;

export class ConsoleDevice implements VirtioDevice {
  readonly name: string;
  readonly deviceId = VirtioDeviceId.CONSOLE;
  readonly pciClass = 0x078000;
  readonly features: bigint;
  readonly queueSizes: readonly number[];
  readonly #services: readonly ConsolePortService[];
  readonly #config = new ConfigBytes(VirtioConsoleConfig.SIZE);
  readonly #resizeRowsFirst: boolean;
  readonly #counts = { ignored: 0, resets: 0 };
  #session: ConsoleSession | undefined;
  /** From a snapshot, until the device is activated. */
  #restored: ConsoleState | undefined;

  /** @throws RangeError without a port, or with more than 31. */
  constructor(name: string, services: readonly ConsolePortService[], options: ConsoleDeviceOptions = {}) {
    const [first] = services;
    if (first === undefined || services.length > MAX_PORTS) {
      throw new RangeError(`console ${name}: ${services.length} ports, where 1 to ${MAX_PORTS} can be`);
    }
    const hasControl = services.length > 1 || !first.isConsole || first.name !== '';
    this.name = name;
    this.#services = services;
    this.#resizeRowsFirst = options.resizeRowsFirst ?? false;
    this.features = VirtioConsoleFeature.SIZE | (hasControl ? VirtioConsoleFeature.MULTIPORT : 0n);
    const pairs = services.map(() => [QUEUE_SIZE, QUEUE_SIZE]);
    if (hasControl) pairs.splice(1, 0, [CONTROL_QUEUE_SIZE, CONTROL_QUEUE_SIZE]);
    this.queueSizes = pairs.flat();
    this.#config.set32(VirtioConsoleConfig.MAX_NR_PORTS, services.length);
  }

  get config(): VirtioConfigSpace {
    return this.#config;
  }

  activate(activation: VirtioActivation): void {
    const restored = this.#restored;
    this.#restored = undefined;
    const session = new ConsoleSession(this.#services, activation, this.#resizeRowsFirst, {
      ignored: () => this.#counts.ignored++,
      sizeOfFirst: (size) => {
        const before = this.#size;
        if (restored !== undefined && size.columns === before.columns && size.rows === before.rows) return;
        this.#config.set16(VirtioConsoleConfig.COLS, size.columns);
        this.#config.set16(VirtioConsoleConfig.ROWS, size.rows);
        if ((activation.features & VirtioConsoleFeature.SIZE) !== 0n) activation.configChanged();
      },
    });
    this.#session = session;
    if (restored) session.restore(restored);
    // Not inside the transport's call.
    queueMicrotask(() => session.start());
  }

  notify(queueIndex: number): void {
    this.#session?.notify(queueIndex);
  }

  /** At once: bytes go to and from guest memory only inside a call. */
  reset(): Promise<void> {
    this.#session?.stop();
    this.#session = this.#restored = undefined;
    this.#counts.resets++;
    return Promise.resolve();
  }

  saveState(): SavedPart {
    return consoleState.save({ ...this.#size, ...this.#session?.state() });
  }

  /** @throws VmmError ERR_SNAPSHOT for another number of ports. */
  restoreState(part: SavedPart): void {
    const restored = consoleState.load(part);
    for (const count of [restored.ports?.length ?? 0, restored.control?.ports.length ?? 0]) {
      if (count > this.#services.length) {
        throw new VmmError(
          'ERR_SNAPSHOT',
          `${this.name} has ${this.#services.length} ports; the snapshot has ${count}`,
        );
      }
    }
    this.#restored = restored;
    this.#config.set16(VirtioConsoleConfig.COLS, restored.columns);
    this.#config.set16(VirtioConsoleConfig.ROWS, restored.rows);
  }

  get #size(): ConsoleSize {
    return {
      columns: Number(this.#config.read(VirtioConsoleConfig.COLS, 2)),
      rows: Number(this.#config.read(VirtioConsoleConfig.ROWS, 2)),
    };
  }

  close(): void {
    void this.reset();
  }

  inspect(): unknown {
    return { active: this.#session !== undefined, ports: this.#services.map(({ name }) => name), ...this.#counts };
  }
}

interface SessionEvents {
  ignored(): void;
  sizeOfFirst(size: ConsoleSize): void;
}

/** From one activate() to the reset behind it. */
class ConsoleSession {
  readonly #activation: VirtioActivation;
  readonly #ports: readonly ConsolePort[];
  readonly #control: ConsoleControl | undefined;
  #isStopped = false;

  constructor(
    services: readonly ConsolePortService[],
    activation: VirtioActivation,
    resizeRowsFirst: boolean,
    events: SessionEvents,
  ) {
    this.#activation = activation;
    const { queues } = activation;
    const isMultiport = (activation.features & VirtioConsoleFeature.MULTIPORT) !== 0n;
    const toDriver = queues[CONTROL_RECEIVE];
    const fromDriver = queues[CONTROL_TRANSMIT];
    this.#ports = (isMultiport ? services : services.slice(0, 1)).map((service, id) => {
      const first = id === 0 ? 0 : 2 + 2 * id;
      return new ConsolePort(service, activation, queues[first], queues[first + 1], {
        hostOpen: (open) => this.#control?.hostOpen(id, open),
        resize: (size) => {
          if (id === 0) events.sizeOfFirst(size);
          this.#control?.resize(id, size);
        },
        fail: (reason) => this.#fail(reason),
      });
    });
    if (!isMultiport || toDriver === undefined || fromDriver === undefined) return;
    this.#control = new ConsoleControl({
      activation,
      ports: services,
      toDriver,
      fromDriver,
      resizeRowsFirst,
      guestOpen: (id, open) => this.#ports[id]?.setGuestOpen(open),
      fail: (reason) => this.#fail(reason),
      ignored: () => events.ignored(),
    });
  }

  state(): Pick<ConsoleState, 'ports' | 'control'> {
    const control = this.#control?.state();
    return { ports: this.#ports.map((port) => port.state()), ...(control ? { control } : {}) };
  }

  /** Before start(). */
  restore({ ports, control }: ConsoleState): void {
    ports?.forEach((state, id) => this.#ports[id]?.restore(state));
    if (control) this.#control?.restore(control);
  }

  start(): void {
    if (this.#isStopped) return;
    for (const port of this.#ports) port.start();
    // Without control queues nobody says that the port is open: it is.
    if (this.#control === undefined) this.#ports[0]?.setGuestOpen(true);
    this.#control?.notifyTransmit();
    for (const port of this.#ports) port.notifyTransmit();
  }

  notify(queueIndex: number): void {
    if (this.#isStopped) return;
    if (queueIndex === CONTROL_RECEIVE) this.#control?.notifyReceive();
    else if (queueIndex === CONTROL_TRANSMIT) this.#control?.notifyTransmit();
    else {
      const port = this.#ports[queueIndex < 2 ? 0 : (queueIndex >> 1) - 1];
      if ((queueIndex & 1) === 0) port?.notifyReceive();
      else port?.notifyTransmit();
    }
  }

  stop(): void {
    this.#isStopped = true;
    this.#control?.stop();
    for (const port of this.#ports) port.stop();
  }

  #fail(reason: string): void {
    if (this.#isStopped) return;
    this.stop();
    this.#activation.needsReset(reason);
  }
}
