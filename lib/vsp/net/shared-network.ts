/**
 * `sharedNetwork(network)`: one network of the host, such as a tap, lent to several guests at once (row D7). A switch joins their ports with
 * it (switch.ts); where it is the bottleneck, each guest has its fair share of each direction by bytes. The host can take it
 * back in the middle of traffic: the guests still reach each other, and find it again when it is given back.
 *
 *   guest's provider -> [limits] port -> switch -> fair link by guest -> HEL (adapt) -> the network | its stand-in | nobody
 *                       [limits] port <- switch <- fair link by guest <- HEL (merge) <-
 */
import { hostClock, type Clock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { checkInteger, checkOptionNames } from '../../base/options.js';
import { TurnQueue } from '../../base/turn-queue.js';
import { checkDirectionLimits, type DirectionLimits, type TrafficLimits } from '../sharing/budget.js';
import { FairQueue } from '../sharing/fair-queue.js';
import type { NetBackend } from './contract.js';
import { NetLimiter } from './limiter.js';
import { SharedNetworkPort } from './shared-network-port.js';
import type { NetOpenContext, NetSource } from './source.js';
import { NetSwitch } from './switch.js';
import { Uplink } from './uplink.js';

export interface SharedNetworkOptions {
  /** The most behind the header of a frame, 68 to 65521; the network must have as much. Default 1500. */
  readonly mtuBytes?: number;
  /** What may pass between the network and all guests together. Default: what it takes. */
  readonly limits?: TrafficLimits | DirectionLimits;
  readonly clock?: Clock;
}

export interface SharedNetworkGuestOptions {
  /** Its share of the network against that of others, in each direction. Default 1. */
  readonly weight?: number;
  /** What may pass its port, from and to other guests too. Default: all. */
  readonly limits?: TrafficLimits | DirectionLimits;
}

export interface TakeNetworkBackOptions {
  /** What the guests have in its place. Default: each other. */
  readonly standIn?: NetSource;
  /** Takes the guests' links down until it is given back. Default false: they are told nothing. */
  readonly linkDown?: boolean;
  readonly signal?: AbortSignal;
}

/**
 * One network for several guests of this process. It is opened for the first of them and closed with the last.
 *
 * @throws TypeError for what is no network; RangeError for one that can have only one guest (passt), an MTU or limits that are none.
 * @example
 * const lan = sharedNetwork(tap('tap0'));
 * const nics = [{ id: 'net0', backend: lan.guest({ weight: 2 }) }];
 */
export function sharedNetwork(network: NetSource, options: SharedNetworkOptions = {}): SharedNetwork {
  checkOptionNames('sharedNetwork', options, ['mtuBytes', 'limits', 'clock']);
  checkNetwork('sharedNetwork', network);
  const { limits = {}, clock = hostClock } = options;
  const mtuBytes = checkInteger('sharedNetwork: mtuBytes', options.mtuBytes ?? 1500, 68, 65521);
  return new SharedNetwork(network, mtuBytes, checkDirectionLimits('sharedNetwork: limits', limits), clock);
}

export class SharedNetwork {
  readonly #network: NetSource;
  readonly #switch: NetSwitch;
  readonly #uplink: Uplink;
  readonly #clock: Clock;
  readonly #ports = new Set<SharedNetworkPort>();
  /** Openings, taking and giving back come one after another. */
  readonly #turns = new TurnQueue();
  #takenBack: { readonly standIn: NetSource | undefined; readonly linkDown: boolean } | undefined;
  #takeBacks = 0;
  /** Of the guest that was there first. */
  #context: NetOpenContext | undefined;

  /** Made by sharedNetwork(). */
  constructor(network: NetSource, mtuBytes: number, limits: DirectionLimits, clock: Clock) {
    this.#network = network;
    this.#clock = clock;
    this.#switch = new NetSwitch({ name: 'shared', mtuBytes, clock });
    this.#uplink = new Uplink(this.#switch, limits, clock);
  }

  /** For one guest's nic. @throws TypeError, RangeError for a weight or limits that are none. */
  guest(options: SharedNetworkGuestOptions = {}): NetSource {
    checkOptionNames('guest', options, ['weight', 'limits']);
    const { weight = 1 } = options;
    const limits = options.limits && checkDirectionLimits('guest.limits', options.limits);
    new FairQueue(1).flow(weight); // throws for what is none
    const limiter = limits && new NetLimiter(limits, this.#clock);
    const open = async (context: NetOpenContext): Promise<NetBackend> => {
      if (this.#ports.size === 0) {
        this.#context = { ...context, signal: undefined };
        const source = this.#takenBack === undefined ? this.#network : this.#takenBack.standIn;
        if (source !== undefined) await this.#uplink.join(await this.#opened(source, context.signal));
      }
      const port: SharedNetworkPort = new SharedNetworkPort(this.#switch.port(), this.#uplink.flows(weight), {
        describe: () => ({
          kind: 'shared',
          withdrawn: this.#takenBack !== undefined,
          network: this.#uplink.describe(),
        }),
        paused: () => this.#uplink.setPaused([...this.#ports].every(({ isPaused }) => isPaused)),
        closed: () => this.#closed(port),
      });
      this.#uplink.add(port);
      this.#ports.add(port);
      if (this.#takenBack?.linkDown === true) port.setLink(false);
      return limiter?.around(port) ?? port;
    };
    return {
      class: 'network',
      describe: () => ({ kind: 'shared', weight, network: this.#network.describe() }),
      open: (context) => this.#turns.run(() => open(context), context.signal),
    };
  }

  /**
   * Takes the network back for a use of the host's own; it is closed when this resolves. Frames between guests and it are lost from
   * then on, or go to `standIn`; those between guests are not.
   *
   * @throws VmmError ERR_STATE when it is taken back already; of the stand-in, ERR_DEVICE for one of a smaller MTU; AbortError. The
   *   guests keep the network then.
   */
  async takeBack(options: TakeNetworkBackOptions = {}): Promise<void> {
    checkOptionNames('takeBack', options, ['standIn', 'linkDown', 'signal']);
    const { standIn, linkDown = false, signal } = options;
    if (typeof linkDown !== 'boolean') throw new TypeError('takeBack: linkDown: true or false is wanted');
    if (standIn !== undefined) checkNetwork('takeBack: standIn', standIn);
    await this.#turns.run(async () => {
      if (this.#takenBack) throw new VmmError('ERR_STATE', 'the network is taken back already');
      const next = standIn && this.#context && (await this.#opened(standIn, signal));
      this.#takenBack = { standIn, linkDown };
      this.#takeBacks++;
      const left = this.#uplink.join(next);
      if (linkDown) for (const port of this.#ports) port.setLink(false);
      await left;
    }, signal);
  }

  /** Gives it to the guests again. @throws VmmError ERR_STATE when they have it; of the network, and nothing has changed then. */
  async giveBack(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    checkOptionNames('giveBack', options, ['signal']);
    await this.#turns.run(async () => {
      if (!this.#takenBack) throw new VmmError('ERR_STATE', 'the network is not taken back');
      const next = this.#context && (await this.#opened(this.#network, options.signal));
      this.#takenBack = undefined;
      const left = this.#uplink.join(next);
      for (const port of this.#ports) port.setLink(true);
      await left;
    }, options.signal);
  }

  /** Who has had how much of the network, in each direction, and what waits. */
  inspect(): unknown {
    return {
      isTakenBack: this.#takenBack !== undefined,
      takeBacks: this.#takeBacks,
      switch: this.#switch.inspect(),
      uplink: this.#uplink.inspect(),
      guests: [...this.#ports].map((port) => port.inspect()),
    };
  }

  async #opened(source: NetSource, signal: AbortSignal | undefined): Promise<NetBackend> {
    const backend = await source.open({ ...this.#context!, signal });
    if (backend.mtuBytes >= this.#switch.mtuBytes) return backend;
    await backend.close();
    const found = `an MTU of ${backend.mtuBytes} bytes, where ${this.#switch.mtuBytes} are wanted`;
    throw new VmmError('ERR_DEVICE', `shared network: ${found}`, {
      cure: `sharedNetwork(network, { mtuBytes: ${backend.mtuBytes} })`,
    });
  }

  /** With the last guest the network goes. */
  #closed(port: SharedNetworkPort): Promise<void> {
    return this.#turns.run(async () => {
      this.#uplink.remove(port);
      this.#ports.delete(port);
      if (this.#ports.size > 0) return;
      this.#context = undefined;
      await this.#uplink.join(undefined);
    });
  }
}

function checkNetwork(what: string, network: NetSource): void {
  if (typeof network !== 'object' || (network as NetSource | null)?.class !== 'network') {
    throw new TypeError(`${what}: a network is wanted, such as tap(name)`);
  }
  if (network.onlyOneGuest !== undefined) {
    throw new RangeError(
      `${what}: it can't have several guests: ${network.onlyOneGuest}; give each guest one of its own`,
    );
  }
}
