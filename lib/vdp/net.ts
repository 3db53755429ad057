/**
 * The virtio network device (virtio 1.2, 5.1): the guest's side of a NetService. Frames out are in net-transmit.ts, frames
 * in in net-receive.ts, the control queue in net-control.ts; this file joins them for the life of the device.
 *
 *   queue 0 receive      1 transmit      2 control
 */
import {
  VIRTIO_NET_S_ANNOUNCE,
  VIRTIO_NET_S_LINK_UP,
  VirtioDeviceId,
  VirtioNetConfig,
  VirtioNetFeature as F,
} from '../abi/virtio.js';
import type { SavedPart } from '../base/saved-state.js';
import type { NetService } from '../vsp/net/contract.js';
import { macBytes } from '../vsp/net/mac-filter.js';
import { ConfigBytes } from './config-bytes.js';
import { netState } from './device-states.js';
import { NetControl } from './net-control.js';
import { NetReceive, type NetGuestEvents } from './net-receive.js';
import { NetTransmit } from './net-transmit.js';
import type { VirtioActivation, VirtioDevice } from './virtio-device.js';

const QUEUE_SIZE = 256;
const CONTROL_QUEUE_SIZE = 64;
const RECEIVE = 0;
const TRANSMIT = 1;
const CONTROL = 2;

/** What is offered over every backend: the provider does what the backend can't. */
const FEATURES =
  F.CSUM |
  F.GUEST_CSUM |
  F.CTRL_GUEST_OFFLOADS |
  F.MTU |
  F.MAC |
  F.GUEST_TSO4 |
  F.GUEST_TSO6 |
  F.GUEST_ECN |
  F.HOST_TSO4 |
  F.HOST_TSO6 |
  F.HOST_ECN |
  F.MRG_RXBUF |
  F.STATUS |
  F.CTRL_VQ |
  F.CTRL_RX |
  F.CTRL_RX_EXTRA |
  F.GUEST_ANNOUNCE |
  F.CTRL_MAC_ADDR;

/** Frames and what became of them, over all sessions. */
export interface NetCounts {
  sent: number;
  received: number;
  /** What a driver said of a frame did not fit the frame. */
  badHeaders: number;
  /** Frames for which no buffer of the driver's was large enough. */
  tooLarge: number;
  controls: number;
  refusedControls: number;
}

export class NetDevice implements VirtioDevice {
  readonly name: string;
  readonly deviceId = VirtioDeviceId.NETWORK;
  /** An Ethernet controller. */
  readonly pciClass = 0x020000;
  readonly features = FEATURES;
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE, CONTROL_QUEUE_SIZE];
  readonly config = new ConfigBytes(VirtioNetConfig.SIZE);
  readonly #service: NetService;
  readonly #counts: NetCounts = {
    sent: 0,
    received: 0,
    badHeaders: 0,
    tooLarge: 0,
    controls: 0,
    refusedControls: 0,
  };
  #session: NetSession | undefined;
  /** From a snapshot, until the device is activated. */
  #restored: ReturnType<typeof netState.load> | undefined;
  #status = 0;

  constructor(name: string, service: NetService) {
    this.name = name;
    this.#service = service;
    this.#setAddress(macBytes(service.mac));
    this.config.set16(VirtioNetConfig.MAX_VIRTQUEUE_PAIRS, 1);
    this.config.set16(VirtioNetConfig.MTU, service.mtuBytes);
    this.#setStatus(VIRTIO_NET_S_LINK_UP, service.linkUp);
  }

  activate(activation: VirtioActivation): void {
    const restored = this.#restored;
    this.#restored = undefined;
    const session = new NetSession(this.#service, activation, this.#counts, {
      link: (up) => {
        if (restored !== undefined && up === ((this.#status & VIRTIO_NET_S_LINK_UP) !== 0)) return;
        this.#setStatus(VIRTIO_NET_S_LINK_UP, up);
        if ((activation.features & F.STATUS) !== 0n) activation.configChanged();
      },
      announce: () => {
        if ((activation.features & F.GUEST_ANNOUNCE) === 0n) return;
        this.#setStatus(VIRTIO_NET_S_ANNOUNCE, true);
        activation.configChanged();
      },
      announced: () => this.#setStatus(VIRTIO_NET_S_ANNOUNCE, false),
      address: (bytes) => this.#setAddress(bytes),
    });
    this.#session = session;
    if (restored?.offloads !== undefined) session.setOffloads(restored.offloads);
    // Not inside the transport's call.
    queueMicrotask(() => session.start());
  }

  notify(queueIndex: number): void {
    this.#session?.notify(queueIndex);
  }

  /** At once: frames go to and from guest memory only inside a call. */
  reset(): Promise<void> {
    this.#session?.stop();
    this.#session = this.#restored = undefined;
    this.#setAddress(macBytes(this.#service.mac));
    this.#setStatus(VIRTIO_NET_S_ANNOUNCE, false);
    return Promise.resolve();
  }

  /** Which frames the guest wants is kept by the provider, with the address that it gave itself. */
  saveState(): SavedPart {
    const mac = Uint8Array.from({ length: 6 }, (_, index) => this.config.get8(VirtioNetConfig.MAC + index));
    const offloads = this.#session?.offloads;
    return netState.save({ mac, status: this.#status, ...(offloads === undefined ? {} : { offloads }) });
  }

  /** The link is as the guest saw it last; if it is another now, the guest is told when the device goes on. */
  restoreState(part: SavedPart): void {
    this.#restored = netState.load(part);
    this.#setAddress(this.#restored.mac);
    this.#setStatus(VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE, false);
    this.#setStatus(this.#restored.status, true);
  }

  close(): void {
    void this.reset();
  }

  inspect(): unknown {
    return { active: this.#session !== undefined, ...this.#counts };
  }

  #setAddress(bytes: Uint8Array): void {
    bytes.forEach((byte, index) => this.config.set8(VirtioNetConfig.MAC + index, byte));
  }

  #setStatus(bit: number, on: boolean): void {
    this.#status = on ? this.#status | bit : this.#status & ~bit;
    this.config.set16(VirtioNetConfig.STATUS, this.#status);
  }
}

/** What changes the device's configuration. */
interface NetEvents extends NetGuestEvents {
  readonly address: (bytes: Uint8Array) => void;
  readonly announced: () => void;
}

/** From one activate() to the reset behind it. */
class NetSession {
  readonly #service: NetService;
  readonly #activation: VirtioActivation;
  readonly #transmit: NetTransmit | undefined;
  readonly #receive: NetReceive | undefined;
  readonly #control: NetControl | undefined;
  #isStopped = false;

  constructor(service: NetService, activation: VirtioActivation, counts: NetCounts, events: NetEvents) {
    this.#service = service;
    this.#activation = activation;
    const fail = (reason: string) => this.#fail(reason);
    const context = { service, activation, counts, fail };
    const [receive, transmit, control] = activation.queues;
    this.#transmit = transmit && new NetTransmit(transmit, context);
    this.#receive = receive && new NetReceive(receive, context, events);
    const offloads = (features: bigint) => this.#receive?.setOffloads(features);
    const { address, announced } = events;
    this.#control = control && new NetControl(control, { ...context, offloads, address, announced });
  }

  get offloads(): bigint | undefined {
    return this.#receive?.offloads;
  }

  setOffloads(offloads: bigint): void {
    this.#receive?.setOffloads(offloads);
  }

  start(): void {
    if (this.#isStopped) return;
    this.#service.onWritable = () => this.#transmit?.onWritable();
    if (this.#receive) this.#service.attach(this.#receive);
    this.#control?.run();
    this.#transmit?.run();
  }

  notify(queueIndex: number): void {
    if (this.#isStopped) return;
    if (queueIndex === RECEIVE) this.#receive?.notify();
    else if (queueIndex === TRANSMIT) this.#transmit?.run();
    else if (queueIndex === CONTROL) this.#control?.run();
  }

  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#transmit?.stop();
    this.#receive?.stop();
    this.#control?.stop();
    this.#service.onWritable = undefined;
    this.#service.attach(undefined);
  }

  #fail(reason: string): void {
    if (this.#isStopped) return;
    this.stop();
    this.#activation.needsReset(reason);
  }
}

/** What the three queues of a session share. */
export interface NetContext {
  readonly service: NetService;
  readonly activation: VirtioActivation;
  readonly counts: NetCounts;
  /** The driver broke the rules. */
  readonly fail: (reason: string) => void;
}
