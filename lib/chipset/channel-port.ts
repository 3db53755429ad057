/**
 * The guest channel: a duplex byte stream between the guest agent and its host end (lib/agent). Register map, transfer
 * page and ring are in lib/abi/guest-channel.ts. Both directions are bounded: the host may send up to a window ahead
 * of the guest, the guest as much as the host has given credit for. It must not trust a number of the guest's.
 */
import * as v from 'valibot';
import { bytes, integer, stateFormat, u32, type Savable, type SavedPart } from '../base/saved-state.js';
import type { AccessSize, BusDevice } from '../bus/device.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { Logger, RateLimit } from '../base/logger.js';
import { GuestChannel, GuestChannelValue, TransferPage } from '../abi/guest-channel.js';
import { PAGE_SIZE } from '../base/units.js';
import { ByteQueue } from './byte-queue.js';
import { gather, readSegments, scatter, totalBytes, type Segment } from './channel-transfer.js';

export interface ChannelPortOptions {
  /** Tells the guest to look: the machine puts GuestChannelValue.RING_BYTE into COM2's receiver. */
  readonly ring: () => void;
  readonly logger: Logger;
  /** Bounds what the guest's mistakes may log. */
  readonly rateLimit: RateLimit;
  /** Guest RAM for RECEIVE and SEND; without it only DATA moves bytes. */
  readonly memory?: GuestMemory;
  /** Bytes waiting for the guest from which `send` answers false. Default 256 KiB. */
  readonly highWaterBytes?: number;
}

/** What the host end of the channel (lib/agent) works with. */
export interface ChannelHostEnd {
  /**
   * Queues a copy of `bytes` for the guest. False asks the caller to stop until `onDrain`; the bytes were taken still.
   */
  send(bytes: Uint8Array): boolean;
  /** Lets the guest send `bytes` more. Nothing arrives before the first credit. */
  credit(bytes: number): void;
  /** Bytes that wait for the guest. */
  readonly pendingBytes: number;
  /** Bytes that the guest may still send. */
  readonly creditBytes: number;
  /** Called with bytes from the guest; the array is the callee's to keep. Their size is taken off the credit. */
  onReceive: ((bytes: Uint8Array) => void) | undefined;
  /** Called when at most half the high-water mark waits again, after a `send` that answered false. */
  onDrain: (() => void) | undefined;
  /**
   * Called when an agent in the guest opens a session: what waited is gone, credit is 0 until given again. One that was opened
   * while nobody listened is told to the first who does.
   */
  onOpen: (() => void) | undefined;
}

/** All state of the device, in one plain object. */
interface ChannelState {
  page: number;
  creditBytes: number;
  /** The guest was told 0 and sleeps on it, for each direction. */
  owesReadable: boolean;
  owesWritable: boolean;
  sessions: number;
  receivedBytes: number;
  sentBytes: number;
  rings: number;
  guestMistakes: number;
}

export class ChannelPort implements BusDevice, ChannelHostEnd, Savable {
  readonly name = 'channel';
  onReceive: ((bytes: Uint8Array) => void) | undefined;
  onDrain: (() => void) | undefined;
  #onOpen: (() => void) | undefined;
  #isUnheard = false;
  /** The session's host end went with the process that had it. */
  #isCut = false;

  readonly #options: ChannelPortOptions;
  readonly #highWaterBytes: number;
  readonly #toGuest = new ByteQueue();
  readonly #state: ChannelState = {
    page: 0,
    creditBytes: 0,
    owesReadable: false,
    owesWritable: false,
    sessions: 0,
    receivedBytes: 0,
    sentBytes: 0,
    rings: 0,
    guestMistakes: 0,
  };
  #wantsDrain = false;

  constructor(options: ChannelPortOptions) {
    this.#options = options;
    this.#highWaterBytes = options.highWaterBytes ?? 256 * 1024;
  }

  // The host's side.

  get onOpen(): (() => void) | undefined {
    return this.#onOpen;
  }

  set onOpen(callback: (() => void) | undefined) {
    this.#onOpen = callback;
    if (callback === undefined || !this.#isUnheard) return;
    this.#isUnheard = false;
    callback();
  }

  /** Tells an agent that has a session open that it has to open another: its host end is a new one, which knows nothing of it. */
  cut(): void {
    if (this.#state.sessions === 0) return;
    // Transfers that come before it knows still answer in its page.
    const { page } = this.#state;
    this.reset();
    this.#state.page = page;
    this.#isCut = true;
    this.#ring();
  }

  get pendingBytes(): number {
    return this.#toGuest.length;
  }

  get creditBytes(): number {
    return this.#state.creditBytes;
  }

  send(bytes: Uint8Array): boolean {
    // There is nobody yet: the next session would find the rest of a frame.
    if (this.#isCut) return true;
    this.#toGuest.push(bytes);
    if (this.#state.owesReadable && this.#toGuest.length > 0) {
      this.#state.owesReadable = false;
      this.#ring();
    }
    if (this.#toGuest.length < this.#highWaterBytes) return true;
    this.#wantsDrain = true;
    return false;
  }

  credit(bytes: number): void {
    if (!Number.isSafeInteger(bytes) || bytes < 0) throw new RangeError(`credit of ${bytes} bytes`);
    if (this.#isCut) return;
    this.#state.creditBytes = Math.min(this.#state.creditBytes + bytes, MAX_CREDIT_BYTES);
    if (this.#state.owesWritable && this.#state.creditBytes > 0) {
      this.#state.owesWritable = false;
      this.#ring();
    }
  }

  // The guest's side.

  read(offset: number, size: AccessSize): number {
    if (offset === GuestChannel.DATA && size !== 8) {
      const bytes = new Uint8Array(4);
      this.#takeForGuest(bytes.subarray(0, size));
      return new DataView(bytes.buffer).getUint32(0, true);
    }
    if (size !== 4) return ALL_ONES[size] ?? 0xffffffff;
    switch (offset) {
      case GuestChannel.ID:
        return GuestChannelValue.ID;
      case GuestChannel.VERSION:
        return GuestChannelValue.VERSION | (this.#options.memory ? GuestChannelValue.FEATURE_MEMORY : 0);
      case GuestChannel.READABLE:
        return this.#tellReadable();
      case GuestChannel.WRITABLE:
        return this.#tellWritable();
      default:
        return 0xffffffff;
    }
  }

  write(offset: number, size: AccessSize, value: number | bigint): void {
    const number = Number(value);
    if (offset === GuestChannel.DATA && size !== 8) {
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setUint32(0, number, true);
      this.#takeFromGuest(bytes.subarray(0, size));
    } else if (size !== 4) {
      this.#mistake('a register was written with another size than 4 bytes');
    } else if (offset === GuestChannel.PAGE) {
      this.#state.page = number;
    } else if (offset === GuestChannel.COMMAND) {
      this.#command(number);
    } else {
      this.#mistake('a register was written that can only be read');
    }
  }

  readBlock(offset: number, size: AccessSize, data: Uint8Array): void {
    if (offset === GuestChannel.DATA) {
      this.#takeForGuest(data);
      return;
    }
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    for (let at = 0; at + size <= data.length; at += size) {
      const value = this.read(offset, size);
      for (let byte = 0; byte < size; byte++) view.setUint8(at + byte, byte < 4 ? value >>> (8 * byte) : 0xff);
    }
  }

  writeBlock(offset: number, size: AccessSize, data: Uint8Array): void {
    if (offset === GuestChannel.DATA) this.#takeFromGuest(data.slice());
    else this.#mistake(`string output of ${size} bytes an element to offset ${offset}`);
  }

  reset(): void {
    this.#toGuest.clear();
    this.#state.page = 0;
    this.#state.creditBytes = 0;
    this.#state.owesReadable = this.#state.owesWritable = false;
    this.#isCut = this.#isUnheard = false;
    this.#drained();
  }

  saveState(): SavedPart {
    return channelFormat.save({ ...this.#state, toGuest: this.#toGuest.copy() });
  }

  /** For the guest the session goes on, until cut() tells it otherwise. */
  restoreState(part: SavedPart): void {
    const { toGuest, ...state } = channelFormat.load(part);
    Object.assign(this.#state, state);
    this.#toGuest.clear();
    this.#toGuest.push(toGuest);
    this.#wantsDrain = toGuest.length >= this.#highWaterBytes;
  }

  inspect(): unknown {
    return { ...this.#state, pendingBytes: this.#toGuest.length };
  }

  #command(command: number): void {
    switch (command) {
      case GuestChannelValue.COMMAND_OPEN:
        this.reset();
        this.#state.sessions++;
        this.#isUnheard = this.#onOpen === undefined;
        this.#onOpen?.();
        return;
      case GuestChannelValue.COMMAND_RECEIVE:
      case GuestChannelValue.COMMAND_SEND:
        if (this.#options.memory) this.#transfer(this.#options.memory, command);
        else this.#mistake('a transfer through memory that is not offered');
        return;
      default:
        this.#mistake(`unknown command ${command}`);
    }
  }

  #transfer(memory: GuestMemory, command: number): void {
    const pageGpa = this.#state.page * PAGE_SIZE;
    if (!memory.contains(pageGpa, PAGE_SIZE)) {
      this.#mistake('the transfer page is not in guest memory');
      return;
    }
    // One copy; only the copy is checked and used.
    const page = memory.read(pageGpa, PAGE_SIZE);
    const segments = readSegments(memory, page);
    let moved: number = GuestChannelValue.REFUSED;
    if (segments === undefined) this.#mistake('a segment list that is empty, too long, or not in guest memory');
    else if (command === GuestChannelValue.COMMAND_RECEIVE) moved = this.#receiveInto(memory, segments);
    else moved = this.#sendFrom(memory, segments);
    const answer = new DataView(new ArrayBuffer(12));
    answer.setUint32(0, moved, true);
    answer.setUint32(4, this.#tellReadable(), true);
    answer.setUint32(8, this.#tellWritable(), true);
    memory.write(pageGpa + TransferPage.MOVED, new Uint8Array(answer.buffer));
  }

  #receiveInto(memory: GuestMemory, segments: readonly Segment[]): number {
    const bytes = new Uint8Array(Math.min(totalBytes(segments), this.#toGuest.length));
    this.#takeForGuest(bytes);
    scatter(memory, segments, bytes);
    return bytes.length;
  }

  #sendFrom(memory: GuestMemory, segments: readonly Segment[]): number {
    const bytes = new Uint8Array(Math.min(totalBytes(segments), this.#state.creditBytes));
    gather(memory, segments, bytes);
    this.#takeFromGuest(bytes);
    return bytes.length;
  }

  #takeForGuest(target: Uint8Array): void {
    const count = this.#toGuest.take(target);
    this.#state.sentBytes += count;
    if (count < target.length) {
      target.fill(0, count);
      this.#mistake('DATA was read with nothing to read');
    }
    if (this.#toGuest.length <= this.#highWaterBytes / 2) this.#drained();
  }

  /** `bytes` are the channel's own to give away. */
  #takeFromGuest(bytes: Uint8Array): void {
    const count = Math.min(bytes.length, this.#state.creditBytes);
    if (count < bytes.length) this.#mistake('DATA was written without room');
    if (count === 0) return;
    this.#state.creditBytes -= count;
    this.#state.receivedBytes += count;
    this.onReceive?.(bytes.subarray(0, count));
  }

  #tellReadable(): number {
    if (this.#isCut) return GuestChannelValue.CUT;
    const waiting = Math.min(this.#toGuest.length, 0xffffffff);
    this.#state.owesReadable = waiting === 0;
    return waiting;
  }

  #tellWritable(): number {
    if (this.#isCut) return GuestChannelValue.CUT;
    this.#state.owesWritable = this.#state.creditBytes === 0;
    return this.#state.creditBytes;
  }

  #drained(): void {
    if (!this.#wantsDrain) return;
    this.#wantsDrain = false;
    this.onDrain?.();
  }

  #ring(): void {
    this.#state.rings++;
    this.#options.ring();
  }

  #mistake(what: string): void {
    this.#state.guestMistakes++;
    this.#options.rateLimit.run((droppedBefore) =>
      this.#options.logger.log('warn', `guest channel: ${what}`, { device: this.name, droppedBefore }),
    );
  }
}

/** Whether an agent in the guest had opened the channel, by what saveState() gave. */
export function isChannelOpened(part: SavedPart): boolean {
  return channelFormat.load(part).sessions > 0;
}

const MAX_CREDIT_BYTES = 0x7fffffff;
/** The host end sends no more than a window ahead of each stream. */
const MAX_WAITING_BYTES = 64 * 1024 * 1024;
const counter = integer(0, Number.MAX_SAFE_INTEGER);

const channelFormat = stateFormat({
  type: 'guest-channel',
  version: 1,
  schema: v.strictObject({
    page: u32,
    creditBytes: integer(0, MAX_CREDIT_BYTES),
    owesReadable: v.boolean(),
    owesWritable: v.boolean(),
    sessions: counter,
    receivedBytes: counter,
    sentBytes: counter,
    rings: counter,
    guestMistakes: counter,
    toGuest: bytes({ maxLength: MAX_WAITING_BYTES }),
  }),
});
const ALL_ONES: Readonly<Record<number, number>> = { 1: 0xff, 2: 0xffff, 4: 0xffffffff };
