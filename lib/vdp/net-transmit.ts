/**
 * Frames out of a guest (virtio 1.2, 5.1.6.2), for net.ts: each is copied once, with its header, and what the header says
 * is held against that copy. What does not fit is dropped and counted, as a network would; buffers of another shape
 * break the rules. Chains are given back when they are copied, in batches; the driver is interrupted for them at the end of
 * the turn, behind what the network answered at once: a vCPU that is woken in between runs twice, and wants the CPU first.
 */
import { VirtioNetFeature as F, VirtioNetGso, VirtioNetHdr, VirtioNetHdrFlag } from '../abi/virtio.js';
import { atEndOfTurn } from '../base/turn.js';
import type { NetFrame } from '../vsp/net/contract.js';
import type { NetContext } from './net.js';
import type { DescriptorChain, Virtqueue } from './virtqueue.js';

/** Frames that are handed to the service at once; fewer where they are large. */
const BATCH = 64;
/** Frames in a row before others of the event loop have their turn. */
const FRAMES_PER_TURN = 512;
/** The largest packet with its Ethernet header and tags; anything longer is no frame and is not copied. */
const MAX_FRAME_BYTES = 65535 + 22;
const MAX_BYTES = VirtioNetHdr.SIZE + MAX_FRAME_BYTES;
/** Copies of a batch: four of the largest frames, or 64 ordinary ones. */
const ROOM_BYTES = 4 * MAX_BYTES;

export class NetTransmit {
  readonly #queue: Virtqueue;
  readonly #context: NetContext;
  readonly #features: bigint;
  /** The copies of one batch, which nobody has any more when the next begins. Made for the first frame. */
  #room = new Uint8Array(0);
  #roomAt = 0;
  #isStopped = false;
  /** The service takes no more for now. */
  #isBlocked = false;
  /** Others of the event loop have their turn. */
  #isYielding = false;
  #isRunning = false;
  #isTelling = false;
  readonly #turnEnds = (): void => {
    this.#isTelling = false;
    this.#tell();
  };

  constructor(queue: Virtqueue, context: NetContext) {
    this.#queue = queue;
    this.#context = context;
    this.#features = context.activation.features;
  }

  stop(): void {
    this.#isStopped = true;
  }

  /** The service takes frames again. */
  onWritable(): void {
    this.#isBlocked = false;
    this.run();
  }

  /** The driver sent. */
  run(): void {
    if (this.#isStopped || this.#isRunning || this.#isYielding) return;
    this.#isRunning = true;
    this.#queue.disableNotifications();
    let left = FRAMES_PER_TURN;
    while (!this.#isBlocked && left > 0 && this.#batch()) left -= BATCH;
    this.#isRunning = false;
    if (left > 0 || this.#isStopped) return;
    this.#isYielding = true;
    setImmediate(() => {
      this.#isYielding = false;
      this.run();
    });
  }

  /** Sends what there is, at most a batch. False when the queue is empty, or the session has ended. */
  #batch(): boolean {
    const queue = this.#queue;
    const { service, counts, fail } = this.#context;
    const frames: NetFrame[] = [];
    this.#roomAt = 0;
    let popped = 0;
    let wrong: string | undefined;
    while (popped < BATCH && this.#roomAt <= ROOM_BYTES - MAX_BYTES && wrong === undefined) {
      const chain = queue.pop();
      if (chain === undefined) break;
      popped++;
      const frame = this.#take(chain);
      if (typeof frame === 'string') wrong = frame;
      else if (frame === undefined) counts.badHeaders++;
      else frames.push(frame);
      queue.push(chain.head, 0);
    }
    queue.expose();
    counts.sent += frames.length;
    const more = frames.length === 0 || service.send(frames);
    if (popped === BATCH) this.#tell();
    else this.#tellLater();
    // Whoever got the frames may have reset the device.
    if (this.#isStopped) return false;
    wrong ??= queue.broken;
    if (wrong !== undefined) {
      this.#tell();
      fail(wrong);
      return false;
    }
    if (!more) this.#isBlocked = true;
    return popped > 0 || queue.enableNotifications();
  }

  #tellLater(): void {
    if (this.#isTelling) return;
    this.#isTelling = true;
    atEndOfTurn(this.#turnEnds);
  }

  #tell(): void {
    if (!this.#isStopped && this.#queue.publish()) this.#context.activation.interrupt(this.#queue.index);
  }

  /** The frame; undefined when its header does not fit it, and a text when the buffers break the rules. */
  #take({ readable, writable }: DescriptorChain): NetFrame | string | undefined {
    if (writable.lengthBytes > 0) return 'a writable descriptor in a transmit queue';
    const lengthBytes = readable.lengthBytes - VirtioNetHdr.SIZE;
    if (lengthBytes < 0) return `a frame of ${readable.lengthBytes} bytes with its header`;
    if (lengthBytes > MAX_FRAME_BYTES) return undefined;
    // Not inside Node's pool. What is not copied is never looked at.
    if (this.#room.length === 0) this.#room = new Uint8Array(Buffer.allocUnsafeSlow(ROOM_BYTES).buffer);
    const all = this.#room.subarray(this.#roomAt, this.#roomAt + readable.lengthBytes);
    this.#roomAt += readable.lengthBytes;
    readable.copyTo(all);
    return describedBy(all, this.#features);
  }
}

/** The frame behind a header, as the header says, if that can be. */
function describedBy(all: Uint8Array, features: bigint): NetFrame | undefined {
  const bytes = all.subarray(VirtioNetHdr.SIZE);
  const flags = all[VirtioNetHdr.FLAGS]!;
  const gso = all[VirtioNetHdr.GSO_TYPE]! & ~VirtioNetGso.ECN;
  if ((flags & VirtioNetHdrFlag.NEEDS_CSUM) === 0) return gso === VirtioNetGso.NONE ? { bytes } : undefined;
  const startAt = le16(all, VirtioNetHdr.CSUM_START);
  const offset = le16(all, VirtioNetHdr.CSUM_OFFSET);
  if ((features & F.CSUM) === 0n || startAt + offset + 2 > bytes.length) return undefined;
  const unfinished = { startAt, offset };
  if (gso === VirtioNetGso.NONE) return { bytes, unfinished };
  const wanted = gso === VirtioNetGso.TCPV4 ? F.HOST_TSO4 : gso === VirtioNetGso.TCPV6 ? F.HOST_TSO6 : undefined;
  const segmentBytes = le16(all, VirtioNetHdr.GSO_SIZE);
  if (wanted === undefined || (features & wanted) === 0n || segmentBytes === 0) return undefined;
  return { bytes, unfinished, segmentBytes };
}

function le16(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}
