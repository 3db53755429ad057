/**
 * HAL: a console port whose other end is in this process: the client of QEMU's guest agent (lib/agent/qemu), which is handed the bytes and
 * told whether a process in the guest has the port open.
 */
import type { QemuAgentPort } from '../../agent/qemu/port.js';
import { VmmError } from '../../base/errors.js';
import type { BackendDescription } from '../contract.js';
import type { ConsoleBackend, ConsoleHostEnd, ConsoleSource } from './contract.js';

export class AgentPortBackend implements ConsoleSource, ConsoleBackend, QemuAgentPort {
  readonly class = 'console';
  /** A request is never served by another agent than the one that it was sent to. */
  readonly startsOver = true;
  isOpen = false;
  onOpen: ((isOpen: boolean) => void) | undefined;
  onReceive: ((bytes: Uint8Array) => void) | undefined;
  #host: ConsoleHostEnd | undefined;
  #isPaused = false;
  #waiting: (() => void)[] = [];

  /** @throws VmmError ERR_STATE while a port has it */
  open(): ConsoleBackend {
    if (this.#host !== undefined) throw new VmmError('ERR_STATE', "the agent's end was opened before");
    return this;
  }

  start(host: ConsoleHostEnd): void {
    this.#host = host;
    host.open(true);
  }

  send(bytes: Uint8Array): Promise<void> {
    this.#host?.input(bytes);
    return this.#isPaused ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve();
  }

  guestOpen(isOpen: boolean): void {
    if (isOpen === this.isOpen) return;
    this.isOpen = isOpen;
    this.onOpen?.(isOpen);
  }

  write(bytes: Uint8Array): undefined {
    this.onReceive?.(bytes);
  }

  setPaused(paused: boolean): void {
    this.#isPaused = paused;
    if (!paused) for (const resolve of this.#waiting.splice(0)) resolve();
  }

  describe(): BackendDescription {
    return { kind: 'qemu-agent' };
  }

  close(): Promise<void> {
    this.guestOpen(false);
    this.setPaused(false);
    this.#host = undefined;
    return Promise.resolve();
  }
}
