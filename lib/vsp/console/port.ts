/**
 * One console port of the provider: between the guest's end (a proxy, vdp) and a backend on the host (HAL).
 *
 *   guest -> output() -> backend.write()            resolves when the backend takes more: the guest's queue waits
 *   guest <- offer()  <- pending <- host.input()    what the guest does not take waits here, and the backend is paused
 *
 * It must not look into the bytes. A port that no process in the guest has open gets nothing: the driver would drop it.
 */
import type { Clock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { RateLimit, type Logger } from '../../base/logger.js';
import { MiB } from '../../base/units.js';
import type { DeviceContract } from '../contract.js';
import { FunctionBooks } from '../function-books.js';
import { MAX_PENDING_CONSOLE_BYTES, type ConsolePortState } from '../state.js';
import { waitFor } from '../deadline.js';
import {
  CONSOLE_PATIENCE_NS,
  type ConsoleBackend,
  type ConsoleGuestEnd,
  type ConsolePortService,
  type ConsoleSize,
} from './contract.js';

/** What a backend may still hand over after it was paused; beyond it bytes are dropped, and that is logged. */
const MAX_PENDING_BYTES = MiB;

const PORTS = 0;
const RESIZE = 1;

export interface ConsolePortContext {
  readonly clock: Clock;
  readonly logger: Logger;
}

export class ConsolePort implements ConsolePortService {
  readonly name: string;
  readonly isConsole: boolean;
  readonly #clock: Clock;
  readonly #books = new FunctionBooks(['ports', 'resize']);
  readonly #complaints: RateLimit;
  readonly #logger: Logger;
  #backend: ConsoleBackend;
  #guest: ConsoleGuestEnd | undefined;
  #guestOpen: boolean;
  #hostOpen = false;
  #size: ConsoleSize | undefined;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #paused = false;
  #rebinds = 0;
  /** The last output while the backend has not taken it; `giveUp` ends it without the backend. */
  #writing: { readonly done: Promise<void>; readonly giveUp: () => void } | undefined;
  #closed: Promise<void> | undefined;

  constructor(name: string, isConsole: boolean, backend: ConsoleBackend, context: ConsolePortContext) {
    this.name = name;
    this.isConsole = isConsole;
    // A console is always open in the guest; a port when a process has it open.
    this.#guestOpen = isConsole;
    this.#clock = context.clock;
    this.#logger = context.logger;
    this.#complaints = new RateLimit(context.clock, { burst: 5, refillNs: 1_000_000_000n });
    this.#backend = backend;
    this.#start(backend);
    this.#refill();
  }

  /** Bytes that wait for the guest. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  get contract(): DeviceContract {
    return {
      class: 'console',
      functions: this.#books.report((name) =>
        name === 'ports' || this.#backend.size !== undefined ? 'native' : 'emulated',
      ),
      backend: this.#backend.describe(),
      rebinds: this.#rebinds,
    };
  }

  attach(guest: ConsoleGuestEnd | undefined): void {
    this.#guest = guest;
    if (!this.isConsole) this.#setGuestOpen(false);
    if (guest) {
      if (this.#hostOpen) guest.hostOpen(true);
      if (this.#size) guest.resize(this.#size);
    }
    this.#refill();
  }

  output(bytes: Uint8Array): Promise<void> | undefined {
    if (this.#closed !== undefined) return undefined;
    const startNs = this.#clock.nowNs();
    const ended = (): void => this.#books.book(PORTS, false, Number(this.#clock.nowNs() - startNs));
    const more = this.#backend.write(bytes);
    if (more === undefined) {
      ended();
      return undefined;
    }
    let giveUp!: () => void;
    const taken = new Promise<void>((resolve) => (giveUp = resolve));
    more.then(giveUp, giveUp);
    const done = taken.then(() => {
      ended();
      if (this.#writing === writing) this.#writing = undefined;
    });
    const writing = { done, giveUp };
    this.#writing = writing;
    return done;
  }

  get busy(): Promise<void> | undefined {
    return this.#writing?.done;
  }

  onGuestReady(): void {
    this.#refill();
  }

  guestOpen(open: boolean): void {
    this.#setGuestOpen(open);
    this.#refill();
  }

  /** The host sets the terminal's size, where the backend has no terminal of its own (emulated). */
  resize(size: ConsoleSize): void {
    this.#books.book(RESIZE, false, 0);
    this.#size = size;
    this.#guest?.resize(size);
  }

  /** Asks the backend for its terminal's size and tells the guest; the size, where there is one. */
  refreshSize(): ConsoleSize | undefined {
    const { size } = this.#backend;
    if (size) this.resize(size);
    return this.#size;
  }

  /**
   * Another stream of the host behind the same port. What the guest has written is taken by the old one, unless nobody
   * reads it: after CONSOLE_PATIENCE_NS it goes on with the new one. What waits for the guest stays.
   *
   * @throws VmmError ERR_CLOSED.
   */
  async rebind(backend: ConsoleBackend): Promise<void> {
    if (this.#closed !== undefined) throw new VmmError('ERR_CLOSED', `console port '${this.name}' is closed`);
    const old = this.#backend;
    const writing = this.#writing;
    this.#writing = undefined;
    this.#backend = backend;
    this.#rebinds++;
    this.#setHostOpen(old, false, true);
    this.#start(backend);
    this.#paused = false;
    this.#refill();
    if (writing !== undefined) {
      const limits = { clock: this.#clock, maxNs: CONSOLE_PATIENCE_NS, what: `console port '${this.name}'` };
      await waitFor(writing.done, limits).catch(writing.giveUp);
    }
    await old.close().catch((error: unknown) => {
      this.#logger.log('warn', `console port '${this.name}': a backend failed to close`, { error: String(error) });
    });
  }

  /** @throws VmmError ERR_SNAPSHOT_REFUSED when more waits for the guest than a snapshot takes. */
  state(): ConsolePortState {
    if (this.#pendingBytes > MAX_PENDING_CONSOLE_BYTES) {
      const message = `console port '${this.name}' can't be saved: ${this.#pendingBytes} bytes wait for the guest`;
      throw new VmmError('ERR_SNAPSHOT_REFUSED', message);
    }
    const size = this.#size && { columns: this.#size.columns, rows: this.#size.rows };
    const pending = Uint8Array.from(Buffer.concat(this.#pending));
    return { name: this.name, isConsole: this.isConsole, ...(size ? { size } : {}), pending };
  }

  /** What waited comes before anything that this port's own backend gives; the terminal's size is the backend's, if it has one. */
  restore({ size, pending }: ConsolePortState): void {
    if (size && !this.#backend.size) this.#size = { ...size };
    if (pending.length === 0 || this.#backend.startsOver === true) return;
    this.#pending.unshift(pending);
    this.#pendingBytes += pending.length;
    this.#setPaused(true);
  }

  /** Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#backend.close();
    return this.#closed;
  }

  #setGuestOpen(open: boolean): void {
    if (open === this.#guestOpen) return;
    this.#guestOpen = open;
    if (!open && this.#backend.startsOver === true) {
      this.#pending = [];
      this.#pendingBytes = 0;
    }
    this.#backend.guestOpen?.(open);
  }

  #start(backend: ConsoleBackend): void {
    if (backend.size) this.#size = backend.size;
    backend.start({
      input: (bytes) => this.#input(backend, bytes),
      open: (open) => this.#setHostOpen(backend, open),
      resize: (size) => {
        if (backend === this.#backend) this.resize(size);
      },
    });
    if (this.#guestOpen) backend.guestOpen?.(true);
  }

  #setHostOpen(from: ConsoleBackend, open: boolean, always = false): void {
    if ((from !== this.#backend && !always) || open === this.#hostOpen) return;
    this.#hostOpen = open;
    this.#guest?.hostOpen(open);
  }

  #input(from: ConsoleBackend, bytes: Uint8Array): void {
    // An old backend's last bytes after a rebind.
    if (from !== this.#backend || this.#closed !== undefined) return;
    this.#books.book(PORTS, false, 0);
    let rest = bytes;
    if (this.#pendingBytes === 0 && this.#takes) rest = rest.subarray(this.#guest!.offer(rest));
    if (rest.length === 0) return;
    // What came in one piece before it was paused is taken whole.
    if (this.#pendingBytes > 0 && this.#pendingBytes + rest.length > MAX_PENDING_BYTES) {
      this.#complaints.run((dropped) => {
        const message = `console port '${this.name}': a paused backend goes on sending; ${rest.length} bytes are dropped`;
        this.#logger.log('warn', message, { dropped });
      });
      return;
    }
    this.#pending.push(rest.slice());
    this.#pendingBytes += rest.length;
    this.#setPaused(true);
  }

  get #takes(): boolean {
    return this.#guest !== undefined && this.#guestOpen;
  }

  /** Gives the guest what waits, and lets the backend go on when nothing does. */
  #refill(): void {
    while (this.#takes && this.#pending.length > 0) {
      const chunk = this.#pending[0]!;
      const taken = this.#guest!.offer(chunk);
      this.#pendingBytes -= taken;
      if (taken < chunk.length) {
        this.#pending[0] = chunk.subarray(taken);
        break;
      }
      this.#pending.shift();
    }
    this.#setPaused(this.#pendingBytes > 0 || !this.#takes);
  }

  #setPaused(paused: boolean): void {
    if (paused === this.#paused || this.#closed !== undefined) return;
    this.#paused = paused;
    this.#backend.setPaused(paused);
  }
}
