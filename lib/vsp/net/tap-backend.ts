/**
 * HAL: frames through a tap interface that is open (tap.ts opens it). Checksums and segments pass unfinished both ways as
 * far as the kernel takes that. What the guest does not read waits in the interface's queue, which the kernel bounds;
 * the other way the kernel takes all, so nothing ever waits here. The guest's link follows the interface's being up.
 */
import { constants } from 'node:os';
import { InterfaceFlag, TUN_DEFAULT_HEADER_BYTES, TunOffload } from '../../abi/tun.js';
import { VirtioNetHdr } from '../../abi/virtio.js';
import { SystemError } from '../../base/errors.js';
import { atEndOfTurn } from '../../base/turn.js';
import type { TapDevice } from '../../kvm/index.js';
import type { BackendDescription } from '../contract.js';
import type { NetAbilities, NetBackend, NetFrame, NetHostEnd } from './contract.js';
import { MIN_SEGMENT_BYTES, segmentTcp } from './segment.js';
import { frameBehind, MAX_FRAME_BYTES, writeHeader } from './tap-header.js';

/** The tap, or a test's fake. */
export type TapPort = Pick<TapDevice, keyof TapDevice>;

const HEADER_BYTES = VirtioNetHdr.SIZE;
const MAX_BYTES = HEADER_BYTES + MAX_FRAME_BYTES;
/** What is read at once: at least eight of the largest frames, hundreds of ordinary ones. Frames are views of it. */
const SLAB_BYTES = 9 * MAX_BYTES;
/** Frames that are handed on at once. */
const BATCH = 64;
/** Frames in a row before others of the event loop have their turn. */
const FRAMES_PER_TURN = 512;
/** What Linux sends at least, whatever a peer says (TCP_MIN_SND_MSS of net/tcp.h less its options). */
const LEAST_SEGMENT_BYTES = 8;
const { EIO } = constants.errno;

/** Sets of offloads, best first: kernels refuse those that they do not have. */
const OFFLOADS = [TunOffload.CSUM | TunOffload.TSO4 | TunOffload.TSO6 | TunOffload.TSO_ECN, TunOffload.CSUM, 0];

export class TapBackend implements NetBackend {
  /** The kernel finishes whatever stands behind a virtio header. */
  readonly takes: NetAbilities = { checksum: true, segments: true };
  /** What comes from a stack or a device that checks or merges is so marked; for others the guest's stack does it. */
  readonly gives: { readonly checked: boolean; readonly merged: boolean };
  readonly mtuBytes: number;
  readonly #tap: TapPort;
  readonly #name: string;
  readonly #lengths = new Uint32Array(BATCH);
  readonly #header = new Uint8Array(HEADER_BYTES);
  /** The frames of one batch, which nobody has any more when the next is read. Made for the first one. */
  #slab = new Uint8Array(0);
  #host: NetHostEnd | undefined;
  #isUp: boolean;
  #isPaused = false;
  #isReading = false;
  #isYielding = false;
  #looksLater = false;
  #isClosed = false;
  #lost = 0;
  #badFrames = 0;
  #failure: string | undefined;
  readonly #turnEnds = (): void => {
    this.#looksLater = false;
    if (!this.#isPaused && !this.#isClosed && this.#failure === undefined) this.#read();
  };

  /** @throws SystemError when the tap is not what it has to be; it is the caller's to close then. */
  constructor(tap: TapPort) {
    this.#tap = tap;
    this.#name = tap.name();
    tap.setHeaderBytes(HEADER_BYTES);
    const offloads = bestOffloads(tap);
    this.gives = {
      checked: (offloads & TunOffload.CSUM) !== 0,
      merged: (offloads & TunOffload.TSO4) !== 0,
    };
    this.mtuBytes = tap.mtuBytes();
    this.#isUp = (tap.interfaceFlags() & InterfaceFlag.UP) !== 0;
  }

  start(host: NetHostEnd): void {
    this.#host = host;
    if (!this.#isUp) host.link(false);
    this.#tap.onReady = () => this.#ready();
    this.#ready();
  }

  send(frames: readonly NetFrame[]): boolean {
    if (this.#isClosed || this.#failure !== undefined) {
      this.#lost += frames.length;
      return true;
    }
    let isDown = false;
    for (const frame of frames) {
      writeHeader(frame, this.#header);
      const errno = this.#tap.write(this.#header, frame.bytes);
      if (errno !== 0) this.#lost++;
      if (errno === EIO) isDown = true; // drivers/net/tun.c: the interface is not up
    }
    if (isDown) this.#look();
    this.#lookForAnswers();
    return true;
  }

  setPaused(paused: boolean): void {
    this.#isPaused = paused;
    if (!paused) this.#read();
  }

  describe(): BackendDescription {
    const { checked, merged } = this.gives;
    const counts = { lost: this.#lost, badFrames: this.#badFrames };
    return { kind: 'tap', name: this.#name, up: this.#isUp, checked, merged, ...counts, failure: this.#failure };
  }

  close(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    this.#isClosed = true;
    this.#host = undefined;
    try {
      // As it was found, for whoever takes a lasting interface next and does not ask for these.
      this.#tap.setOffloads(0);
      this.#tap.setHeaderBytes(TUN_DEFAULT_HEADER_BYTES);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error; // otherwise the interface is gone
    }
    this.#tap.close();
    return Promise.resolve();
  }

  #ready(): void {
    if (this.#isClosed || this.#failure !== undefined) return;
    if (this.#tap.changed()) this.#look();
    this.#read();
  }

  /** Whether the interface is up. */
  #look(): void {
    const flags = this.#try(() => this.#tap.interfaceFlags());
    if (flags !== undefined) this.#setUp((flags & InterfaceFlag.UP) !== 0);
  }

  #setUp(up: boolean): void {
    if (up === this.#isUp) return;
    this.#isUp = up;
    this.#host?.link(up);
  }

  /**
   * Once this turn's frames have gone: the host's own stack has answered by then, and a look costs less than to be woken.
   * Not inside send(), whose callers have their own to finish.
   */
  #lookForAnswers(): void {
    if (this.#looksLater) return;
    this.#looksLater = true;
    atEndOfTurn(this.#turnEnds);
  }

  #read(): void {
    // Whoever gets frames may pause, go on, or close.
    if (this.#isReading || this.#isYielding || this.#host === undefined) return;
    this.#isReading = true;
    let left = FRAMES_PER_TURN;
    while (left > 0 && !this.#isPaused && !this.#isClosed && this.#batch()) left -= BATCH;
    this.#isReading = false;
    if (left > 0 || this.#isPaused || this.#isClosed) return;
    this.#isYielding = true;
    setImmediate(() => {
      this.#isYielding = false;
      this.#read();
    });
  }

  /** Hands on what there is, at most a batch. False when there is no more. */
  #batch(): boolean {
    // No Buffer itself, whose slice() does not copy; what the kernel has not written is never looked at.
    if (this.#slab.length === 0) this.#slab = new Uint8Array(Buffer.allocUnsafeSlow(SLAB_BYTES).buffer);
    const read = this.#try(() => this.#tap.read(this.#slab, MAX_BYTES, this.#lengths));
    if (read === undefined) return false;
    const count = read < 0 ? -1 - read : read;
    const frames: NetFrame[] = [];
    for (let index = 0, at = 0; index < count; index++) {
      const endAt = at + this.#lengths[index]!;
      const frame = frameBehind(this.#slab.subarray(at, endAt));
      if (frame === undefined) this.#badFrames++;
      else this.#put(frame, frames);
      at = endAt;
    }
    if (frames.length > 0) this.#host?.receive(frames);
    return read >= 0;
  }

  /** A large packet of segments that are too short for one is cut, where a stack can have asked for them. */
  #put(frame: NetFrame, frames: NetFrame[]): void {
    const { bytes, segmentBytes = MIN_SEGMENT_BYTES } = frame;
    if (segmentBytes >= MIN_SEGMENT_BYTES) return void frames.push(frame);
    const segments = segmentBytes < LEAST_SEGMENT_BYTES ? undefined : segmentTcp(bytes, segmentBytes);
    if (segments === undefined) this.#badFrames++;
    else for (const segment of segments) frames.push({ bytes: segment, checked: true });
  }

  /** What the call gives; undefined when the interface is gone: then the link is down, for good. */
  #try<T>(call: () => T): T | undefined {
    try {
      return call();
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      this.#failure = error.message;
      this.#setUp(false);
      return undefined;
    }
  }
}

function bestOffloads(tap: TapPort): number {
  for (const offloads of OFFLOADS) {
    try {
      tap.setOffloads(offloads);
      return offloads;
    } catch (error) {
      if (!(error instanceof SystemError) || error.errno !== 'EINVAL' || offloads === 0) throw error;
    }
  }
  return 0;
}
