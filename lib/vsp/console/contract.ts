/**
 * The contract of the class *console*: byte streams between a guest and something on the host.
 *
 * | function | meaning                                                                              |
 * |----------|--------------------------------------------------------------------------------------|
 * | ports    | named streams, each open or closed on either side, both directions, with backpressure |
 * | resize   | columns and rows of the terminal behind a port that is a console                      |
 *
 * Who validates: the proxy checks queues and control messages; the provider hands bytes on as they are, bounded by
 * windows: what a backend does not take stays with the guest, what the guest does not take stays with the backend.
 */
import type { BackendDescription, DeviceContract } from '../contract.js';

export interface ConsoleSize {
  readonly columns: number;
  readonly rows: number;
}

/** What a proxy gives a port of the provider: the guest's side. */
export interface ConsoleGuestEnd {
  /** Bytes for the guest; how many were taken. After fewer than all, `onGuestReady` of the port follows. */
  offer(bytes: Uint8Array): number;
  /** The host's side was opened or closed: the guest is told. */
  hostOpen(open: boolean): void;
  resize(size: ConsoleSize): void;
}

/** One port as the provider offers it to a proxy. */
export interface ConsolePortService {
  /** As in /dev/virtio-ports/NAME: letters, digits, '.', '_' and '-'; empty for a console without a name. */
  readonly name: string;
  /** It is a terminal (hvc) in the guest, not a plain port (vport). */
  readonly isConsole: boolean;
  /** Ties the guest's side; undefined unties it. */
  attach(guest: ConsoleGuestEnd | undefined): void;
  /** From the guest; resolves when more may come. The array is only valid during the call. */
  output(bytes: Uint8Array): Promise<void> | undefined;
  /** The answer to the last output as long as it is not there: also a guest's side that is new waits for it. */
  readonly busy?: Promise<void> | undefined;
  /** The guest takes bytes again. */
  onGuestReady(): void;
  /** A process in the guest opened or closed the port. */
  guestOpen(open: boolean): void;
  readonly contract: DeviceContract;
}

/**
 * A stream of the host before it is opened: what `fileConsole(path)` and its siblings return, what a machine's
 * configuration and `rebind` take.
 */
export interface ConsoleSource {
  readonly class: 'console';
  describe(): BackendDescription;
  /** @throws VmmError ERR_STATE when it can't be opened now, ERR_SYSTEM for what the system refused. */
  open(): ConsoleBackend | Promise<ConsoleBackend>;
}

/** A stream of the host behind one port (HAL). */
export interface ConsoleBackend {
  /**
   * Bytes from the guest; resolves when more may come, undefined at once. Copy what is kept. It never rejects: where
   * nobody listens, or the other end failed, bytes are dropped.
   */
  write(bytes: Uint8Array): Promise<void> | undefined;
  /**
   * What it has sent is meant for the process that has the port open in the guest now: it is dropped when that one goes, and when
   * another machine is made of a snapshot.
   */
  readonly startsOver?: boolean;
  /** Ties the provider's side; called once, before anything else. */
  start(host: ConsoleHostEnd): void;
  /** A process in the guest has opened or closed the port; of a console, that its driver is there. Told once it is known. */
  guestOpen?(open: boolean): void;
  /** Holds input while the guest takes none. */
  setPaused(paused: boolean): void;
  /** The size of the terminal behind it, where there is one (native resize). */
  readonly size?: ConsoleSize | undefined;
  describe(): BackendDescription;
  /** Ends what is still being written, at the latest after CONSOLE_PATIENCE_NS; writes that wait end then. */
  close(): Promise<void>;
}

/** As long as somebody who takes no more output is waited for when a port is closed or rebound. */
export const CONSOLE_PATIENCE_NS = 1_000_000_000n;

/** What a backend tells the provider. */
export interface ConsoleHostEnd {
  /** Bytes for the guest. */
  input(bytes: Uint8Array): void;
  /** Somebody is at the other end, or no longer. */
  open(open: boolean): void;
  resize(size: ConsoleSize): void;
}
