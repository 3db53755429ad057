/**
 * The end of a shared network's switch that leads to the host's network: a fair link in each direction, and what that network lacks done in
 * software. There may be none: then what is for it is lost, counted, as where a cable is unplugged.
 */
import { Ether } from '../../abi/inet.js';
import type { Clock } from '../../base/clock.js';
import { KiB, MiB } from '../../base/units.js';
import type { BackendDescription } from '../contract.js';
import { Budget, type DirectionLimits, type TrafficLimits } from '../sharing/budget.js';
import { adapt, mergedFrames, type AdaptCounts } from './adapt.js';
import type { NetBackend, NetFrame } from './contract.js';
import { FairLink, type LinkFlow } from './fair-link.js';
import { macAt } from './mac-filter.js';
import type { PortFlows, SharedNetworkPort } from './shared-network-port.js';
import type { NetSwitch } from './switch.js';

/** A proxy hands on 64 packets of up to 64 KiB until it hears that it has to wait. */
const MAX_SEND_BYTES = 5 * MiB;
/** Nobody on the other side can be held for one guest. */
const MAX_RECEIVE_BYTES = 512 * KiB;

export class Uplink {
  readonly #trunk: NetBackend;
  readonly #switch: NetSwitch;
  readonly #out: FairLink;
  readonly #in: FairLink;
  /** Of ports of the switch. */
  readonly #ports = new Map<NetBackend, SharedNetworkPort>();
  /** Frames for a group, or for an address that nobody has been seen to have. */
  readonly #forAll: LinkFlow;
  #network: NetBackend | undefined;
  #isUp = true;
  #isPaused = false;
  #lost = 0;

  constructor(net: NetSwitch, limits: DirectionLimits, clock: Clock) {
    const budget = (of: TrafficLimits | undefined) => {
      const made = of && new Budget(of, clock.nowNs());
      return made?.isUnlimited === false ? made : undefined;
    };
    const [send, receive] = [budget(limits.send), budget(limits.receive)];
    this.#switch = net;
    this.#trunk = net.trunk((frames, from) => this.#ports.get(from)?.flows.send.push(frames));
    this.#out = new FairLink({
      ...{ clock, budget: send, maxWaitingBytes: MAX_SEND_BYTES },
      give: (frames) => this.#send(frames),
    });
    this.#in = new FairLink({
      ...{ clock, budget: receive, maxWaitingBytes: MAX_RECEIVE_BYTES },
      give: (frames) => this.#trunk.send(frames),
    });
    this.#forAll = this.#in.flow(1);
  }

  /** For a port that is made next. @throws RangeError for a weight that is none. */
  flows(weight: number): PortFlows {
    return { send: this.#out.flow(weight), receive: this.#in.flow(weight) };
  }

  add(port: SharedNetworkPort): void {
    this.#ports.set(port.inner, port);
  }

  remove(port: SharedNetworkPort): void {
    this.#ports.delete(port.inner);
  }

  /** Another network from now on, or none; resolves when the one before is closed. */
  async join(network: NetBackend | undefined): Promise<void> {
    const before = this.#network;
    this.#network = network;
    this.#isUp = true;
    network?.start({
      receive: (frames) => {
        if (network === this.#network) this.#receive(frames);
      },
      writable: () => {
        if (network === this.#network) this.#out.open();
      },
      link: (up) => {
        if (network === this.#network) this.#isUp = up;
      },
    });
    if (this.#isPaused) network?.setPaused(true);
    // Whatever made the guests wait is gone.
    this.#out.open();
    await before?.close();
  }

  /** No guest takes frames. */
  setPaused(paused: boolean): void {
    if (paused === this.#isPaused) return;
    this.#isPaused = paused;
    this.#network?.setPaused(paused);
  }

  describe(): BackendDescription {
    return this.#network?.describe() ?? { kind: 'none' };
  }

  /** `lost`: frames for the network while there was none. */
  inspect(): unknown {
    return { up: this.#network !== undefined && this.#isUp, lost: this.#lost, forAll: this.#forAll.inspect() };
  }

  #send(frames: readonly NetFrame[]): boolean {
    const network = this.#network;
    if (network === undefined) {
      this.#lost += frames.length;
      return true;
    }
    const counts: AdaptCounts = { checksums: 0, segmented: 0, dropped: 0 };
    const out: NetFrame[] = [];
    for (const frame of frames) adapt(frame, network.takes, false, out, counts);
    this.#lost += counts.dropped;
    return out.length === 0 || network.send(out);
  }

  #receive(frames: readonly NetFrame[]): void {
    const merged = this.#network!.gives.merged ? frames : mergedFrames(frames);
    for (let at = 0; at < merged.length;) {
      const from = at;
      const flow = this.#flowOf(merged[at++]!);
      while (at < merged.length && this.#flowOf(merged[at]!) === flow) at++;
      flow.push(merged.slice(from, at));
    }
  }

  #flowOf({ bytes }: NetFrame): LinkFlow {
    if (bytes.length < Ether.HEADER_BYTES) return this.#forAll;
    const port = this.#switch.behind(macAt(bytes, Ether.DESTINATION));
    return (port && this.#ports.get(port)?.flows.receive) ?? this.#forAll;
  }
}
