/**
 * One guest's port of a shared network: a port of the switch, with the guest's flows to and from the uplink. What waits for the uplink holds
 * the guest's queue, and with it what it sends to other guests: a nic has one queue.
 */
import type { BackendDescription } from '../contract.js';
import type { NetBackend, NetFrame, NetHostEnd } from './contract.js';
import type { LinkFlow } from './fair-link.js';

export interface PortFlows {
  readonly send: LinkFlow;
  readonly receive: LinkFlow;
}

/** The shared network, as a port knows it. */
export interface SharedNetworkEnd {
  describe(): BackendDescription;
  /** This port was paused, or goes on. */
  paused(): void;
  closed(): Promise<void>;
}

export class SharedNetworkPort implements NetBackend {
  readonly takes: NetBackend['takes'];
  readonly gives: NetBackend['gives'];
  readonly mtuBytes: number;
  /** Of the switch. */
  readonly inner: NetBackend;
  readonly flows: PortFlows;
  isPaused = false;
  readonly #shared: SharedNetworkEnd;
  #host: NetHostEnd | undefined;
  #isUp = true;
  #closed: Promise<void> | undefined;

  constructor(inner: NetBackend, flows: PortFlows, shared: SharedNetworkEnd) {
    this.takes = inner.takes;
    this.gives = inner.gives;
    this.mtuBytes = inner.mtuBytes;
    this.inner = inner;
    this.flows = flows;
    this.#shared = shared;
    flows.send.onRoom = () => this.#host?.writable();
  }

  start(host: NetHostEnd): void {
    this.#host = host;
    if (!this.#isUp) host.link(false);
    this.inner.start(host);
  }

  send(frames: readonly NetFrame[]): boolean {
    this.inner.send(frames);
    return !this.flows.send.isFull;
  }

  setPaused(paused: boolean): void {
    this.isPaused = paused;
    this.inner.setPaused(paused);
    this.#shared.paused();
  }

  /** What the guest is told of its link. */
  setLink(up: boolean): void {
    if (up === this.#isUp) return;
    this.#isUp = up;
    this.#host?.link(up);
  }

  describe(): BackendDescription {
    return this.#shared.describe();
  }

  inspect(): unknown {
    return { send: this.flows.send.inspect(), receive: this.flows.receive.inspect() };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#host = undefined;
    this.flows.send.close();
    this.flows.receive.close();
    await this.inner.close();
    await this.#shared.closed();
  }
}
