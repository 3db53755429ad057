/**
 * HAL: a switch that joins the guests of one process: it learns which port an address is behind, and gives a frame to
 * that port, or to all others when it does not know or the frame is for a group. Frames are handed on as they are, with
 * what is unfinished about them: for a guest beside it no checksum is ever made. A port that takes none loses frames,
 * and holds nobody up. It looks at no more of a frame than its two addresses.
 */
import { Ether } from '../../abi/inet.js';
import { hostClock, type Clock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import type { BackendDescription } from '../contract.js';
import type { NetBackend, NetFrame, NetHostEnd } from './contract.js';
import { isGroupMac } from './mac-address.js';
import { macAt } from './mac-filter.js';

export interface NetSwitchOptions {
  readonly name: string;
  /** Default 1500. */
  readonly mtuBytes?: number;
  readonly clock?: Clock;
}

/** Addresses that are remembered: a guest that makes up new ones forgets its own first. */
const ADDRESSES_PER_PORT = 256;
/** As long as bridges do (IEEE 802.1D, 7.9.2). */
const AGEING_NS = 300_000_000_000n;
const MAX_PORTS = 1024;

interface Learned {
  readonly port: SwitchPort;
  seenNs: bigint;
}

export class NetSwitch {
  readonly name: string;
  readonly mtuBytes: number;
  readonly #clock: Clock;
  readonly #ports = new Set<SwitchPort>();
  readonly #learned = new Map<number, Learned>();
  #flooded = 0;
  #forwarded = 0;

  constructor(options: NetSwitchOptions) {
    this.name = options.name;
    this.mtuBytes = options.mtuBytes ?? 1500;
    this.#clock = options.clock ?? hostClock;
  }

  /** A port for one device. @throws VmmError ERR_STATE when the switch is full. */
  port(): NetBackend {
    return this.#newPort();
  }

  #newPort(): SwitchPort {
    if (this.#ports.size === MAX_PORTS) throw new VmmError('ERR_STATE', `switch ${this.name} has no more ports`);
    const port: SwitchPort = new SwitchPort(this.name, this.mtuBytes, {
      send: (frames) => this.#send(port, frames),
      close: () => this.#close(port),
    });
    this.#ports.add(port);
    return port;
  }

  /** A port for another network: `receive` hears whose frames they are; the port's host end gets none. */
  trunk(receive: (frames: readonly NetFrame[], from: NetBackend) => void): NetBackend {
    const port = this.#newPort();
    port.onFrames = receive;
    return port;
  }

  /** The port that an address was last seen behind. */
  behind(mac: number): NetBackend | undefined {
    return this.#portOf(mac, this.#clock.nowNs());
  }

  inspect(): unknown {
    const { size } = this.#learned;
    return { ports: this.#ports.size, addresses: size, forwarded: this.#forwarded, flooded: this.#flooded };
  }

  #send(from: SwitchPort, frames: readonly NetFrame[]): void {
    const nowNs = this.#clock.nowNs();
    const outgoing = new Map<SwitchPort, NetFrame[]>();
    const give = (port: SwitchPort, frame: NetFrame) => {
      const list = outgoing.get(port);
      if (list === undefined) outgoing.set(port, [frame]);
      else list.push(frame);
    };
    for (const frame of frames) {
      if (frame.bytes.length < Ether.HEADER_BYTES) continue;
      this.#learn(macAt(frame.bytes, Ether.SOURCE), from, nowNs);
      const to = this.#portOf(macAt(frame.bytes, Ether.DESTINATION), nowNs);
      if (to === undefined) {
        this.#flooded++;
        for (const port of this.#ports) if (port !== from) give(port, frame);
      } else if (to !== from) {
        this.#forwarded++;
        give(to, frame);
      }
    }
    for (const [port, list] of outgoing) port.deliver(list, from);
  }

  #learn(mac: number, port: SwitchPort, nowNs: bigint): void {
    if (isGroupMac(mac)) return;
    const known = this.#learned.get(mac);
    if (known?.port === port) {
      known.seenNs = nowNs;
      return;
    }
    if (known !== undefined) known.port.addresses.delete(mac);
    if (port.addresses.size === ADDRESSES_PER_PORT) {
      const oldest = port.addresses.values().next().value!;
      port.addresses.delete(oldest);
      this.#learned.delete(oldest);
    }
    port.addresses.add(mac);
    this.#learned.set(mac, { port, seenNs: nowNs });
  }

  #portOf(mac: number, nowNs: bigint): SwitchPort | undefined {
    const known = isGroupMac(mac) ? undefined : this.#learned.get(mac);
    if (known === undefined) return undefined;
    if (nowNs - known.seenNs <= AGEING_NS) return known.port;
    known.port.addresses.delete(mac);
    this.#learned.delete(mac);
    return undefined;
  }

  #close(port: SwitchPort): void {
    for (const mac of port.addresses) this.#learned.delete(mac);
    this.#ports.delete(port);
  }
}

/** The switch, as a port knows it. */
interface SwitchEnd {
  send(frames: readonly NetFrame[]): void;
  close(): void;
}

class SwitchPort implements NetBackend {
  readonly takes = { checksum: true, segments: true };
  /** What a guest sent is as right as the guest made it; segments come as they were sent. */
  readonly gives = { checked: false, merged: true };
  readonly mtuBytes: number;
  /** In the order in which they were learned. */
  readonly addresses = new Set<number>();
  /** Of a trunk. */
  onFrames: ((frames: readonly NetFrame[], from: NetBackend) => void) | undefined;
  readonly #switchName: string;
  readonly #on: SwitchEnd;
  #host: NetHostEnd | undefined;
  #paused = false;
  #isClosed = false;
  #lost = 0;

  constructor(switchName: string, mtuBytes: number, on: SwitchEnd) {
    this.#switchName = switchName;
    this.mtuBytes = mtuBytes;
    this.#on = on;
  }

  start(host: NetHostEnd): void {
    this.#host = host;
  }

  send(frames: readonly NetFrame[]): boolean {
    if (!this.#isClosed) this.#on.send(frames);
    return true;
  }

  deliver(frames: readonly NetFrame[], from: NetBackend): void {
    if (this.onFrames !== undefined) this.onFrames(frames, from);
    else if (this.#paused || this.#host === undefined) this.#lost += frames.length;
    else this.#host.receive(frames);
  }

  setPaused(paused: boolean): void {
    this.#paused = paused;
  }

  describe(): BackendDescription {
    return { kind: 'switch', name: this.#switchName, mtuBytes: this.mtuBytes, lost: this.#lost };
  }

  close(): Promise<void> {
    if (!this.#isClosed) this.#on.close();
    this.#isClosed = true;
    this.#host = undefined;
    return Promise.resolve();
  }
}
