/**
 * Frames into a guest (virtio 1.2, 5.1.6.3 and 5.1.6.4), for net.ts. With merged buffers a frame fills as many as it
 * needs; without, one must hold it, and one that is too small costs the frame. Buffers that were taken for a frame and
 * are not enough stay here for the next.
 */
import { VirtioNetFeature as F, VirtioNetGso, VirtioNetHdr, VirtioNetHdrFlag } from '../abi/virtio.js';
import { Tcp, TcpFlag } from '../abi/inet.js';
import { layoutOf } from '../vsp/net/frame-layout.js';
import type { NetFrame, NetGuestEnd } from '../vsp/net/contract.js';
import type { NetContext } from './net.js';
import type { DescriptorChain, Virtqueue } from './virtqueue.js';

const SEGMENTS = F.GUEST_TSO4 | F.GUEST_TSO6 | F.GUEST_ECN;

/** What the device shows its driver in its configuration. */
export interface NetGuestEvents {
  link(up: boolean): void;
  announce(): void;
}

export class NetReceive implements NetGuestEnd {
  readonly #queue: Virtqueue;
  readonly #context: NetContext;
  readonly #events: NetGuestEvents;
  readonly #mergesBuffers: boolean;
  /** As negotiated, then as the driver sets them. */
  #offloads: bigint;
  /** Popped and not used yet, in order. */
  #held: DescriptorChain[] = [];
  #heldBytes = 0;
  readonly #header = new Uint8Array(VirtioNetHdr.SIZE);
  /** A header and what of its frame is in the same buffer, until it is in guest memory. */
  #first = new Uint8Array(0);
  /** The service was told that not all was taken. */
  #hasRefused = false;
  #isStopped = false;

  constructor(queue: Virtqueue, context: NetContext, events: NetGuestEvents) {
    this.#queue = queue;
    this.#context = context;
    this.#events = events;
    const { features } = context.activation;
    this.#mergesBuffers = (features & F.MRG_RXBUF) !== 0n;
    this.#offloads = features;
  }

  get checksum(): boolean {
    return (this.#offloads & F.GUEST_CSUM) !== 0n;
  }

  get segments(): boolean {
    return this.checksum && (this.#offloads & SEGMENTS) === SEGMENTS;
  }

  get offloads(): bigint {
    return this.#offloads;
  }

  /** The driver turns off some of what it agreed to, or on again (5.1.6.5.6). */
  setOffloads(offloads: bigint): void {
    this.#offloads = offloads;
  }

  stop(): void {
    this.#isStopped = true;
  }

  link(up: boolean): void {
    if (!this.#isStopped) this.#events.link(up);
  }

  announce(): void {
    if (!this.#isStopped) this.#events.announce();
  }

  /** The driver gave buffers. */
  notify(): void {
    if (!this.#hasRefused || this.#isStopped) return;
    this.#hasRefused = false;
    this.#context.service.onGuestReady();
  }

  receive(frames: readonly NetFrame[]): number {
    if (this.#isStopped) return 0;
    const queue = this.#queue;
    if (queue.held) {
      this.#hasRefused = true;
      return 0;
    }
    queue.disableNotifications();
    let taken = 0;
    while (taken < frames.length && this.#put(frames[taken]!)) taken++;
    if (queue.publish()) this.#context.activation.interrupt(queue.index);
    if (queue.broken !== undefined) this.#context.fail(queue.broken);
    if (taken < frames.length) this.#hasRefused = true;
    return taken;
  }

  /** False when the driver has no buffers for it now. */
  #put(frame: NetFrame): boolean {
    const wanted = VirtioNetHdr.SIZE + frame.bytes.length;
    if (!this.#gather(wanted)) {
      // All that a queue can hold is here, and still too little: it will never be enough.
      if (this.#held.length < this.#queue.size || this.#isStopped) return false;
      this.#context.counts.tooLarge++;
      return true;
    }
    if (!this.#mergesBuffers && this.#held[0]!.writable.lengthBytes < wanted) {
      this.#context.counts.tooLarge++;
      return true;
    }
    this.#fill(frame, wanted);
    this.#context.counts.received++;
    return true;
  }

  /** Takes buffers until those held have room for so many bytes; without merging, one. */
  #gather(wantedBytes: number): boolean {
    const queue = this.#queue;
    while (this.#mergesBuffers ? this.#heldBytes < wantedBytes : this.#held.length === 0) {
      const chain = queue.pop();
      if (chain === undefined) {
        if (queue.enableNotifications()) continue;
        return false;
      }
      if (chain.readable.lengthBytes > 0) {
        this.#context.fail('a readable descriptor in a receive queue');
        return false;
      }
      // 5.1.6.3.1: the first at least has room for the header.
      if (chain.writable.lengthBytes < VirtioNetHdr.SIZE) {
        this.#context.fail(`a receive buffer of ${chain.writable.lengthBytes} bytes`);
        return false;
      }
      this.#held.push(chain);
      this.#heldBytes += chain.writable.lengthBytes;
    }
    return true;
  }

  #fill(frame: NetFrame, wantedBytes: number): void {
    let buffers = 0;
    for (let room = 0; room < wantedBytes; buffers++) room += this.#held[buffers]!.writable.lengthBytes;
    describe(frame, this.#header.fill(0), buffers, this.checksum);
    for (let index = 0, at = -VirtioNetHdr.SIZE; index < buffers; index++) {
      const { head, writable } = this.#held[index]!;
      const end = Math.min(at + writable.lengthBytes, frame.bytes.length);
      writable.copyFrom(at < 0 ? this.#firstPart(frame, end) : frame.bytes.subarray(at, end));
      this.#queue.push(head, end - at);
      this.#heldBytes -= writable.lengthBytes;
      at = end;
    }
    if (buffers === this.#held.length) this.#held.length = 0;
    else this.#held.splice(0, buffers);
  }

  /** The header, and the frame up to `endAt`. Every buffer has room for the header. */
  #firstPart({ bytes }: NetFrame, endAt: number): Uint8Array {
    const lengthBytes = VirtioNetHdr.SIZE + endAt;
    if (this.#first.length < lengthBytes) this.#first = new Uint8Array(2 * lengthBytes);
    this.#first.set(this.#header);
    this.#first.set(endAt === bytes.length ? bytes : bytes.subarray(0, endAt), VirtioNetHdr.SIZE);
    return this.#first.subarray(0, lengthBytes);
  }
}

/** Writes the header of a frame to `all`, zeros. 5.1.6.4.1: no flag for a driver without GUEST_CSUM. */
function describe(frame: NetFrame, all: Uint8Array, buffers: number, hasChecksum: boolean): void {
  const { unfinished, segmentBytes, checked, bytes } = frame;
  const set16 = (at: number, value: number) => {
    all[at] = value;
    all[at + 1] = value >>> 8;
  };
  set16(VirtioNetHdr.NUM_BUFFERS, buffers);
  if (unfinished !== undefined) {
    all[VirtioNetHdr.FLAGS] = VirtioNetHdrFlag.NEEDS_CSUM;
    set16(VirtioNetHdr.CSUM_START, unfinished.startAt);
    set16(VirtioNetHdr.CSUM_OFFSET, unfinished.offset);
  } else if (checked === true && hasChecksum) {
    all[VirtioNetHdr.FLAGS] = VirtioNetHdrFlag.DATA_VALID;
  }
  const layout = segmentBytes === undefined ? undefined : layoutOf(bytes);
  if (segmentBytes === undefined || layout === undefined) return;
  const reducesWindow = (bytes[layout.transportAt + Tcp.FLAGS]! & TcpFlag.CWR) !== 0;
  const type = layout.version === 4 ? VirtioNetGso.TCPV4 : VirtioNetGso.TCPV6;
  all[VirtioNetHdr.GSO_TYPE] = type | (reducesWindow ? VirtioNetGso.ECN : 0);
  set16(VirtioNetHdr.HDR_LEN, layout.payloadAt);
  set16(VirtioNetHdr.GSO_SIZE, segmentBytes);
}
