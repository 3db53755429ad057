/**
 * A stream between two switches of one user in different processes: frames with what is unfinished about them. Each side
 * greets first; then there are frames until the stream ends.
 *
 * | field    | size | meaning                                                                                    |
 * | greeting | 8    | 'vvsw', one byte version, one byte zero, MTU in two bytes, big endian; 0: any, as yet        |
 * | frame    | 4+n  | length, big endian; struct virtio_net_hdr (tap-header.ts); the frame                         |
 *
 * The other side is not believed: what can be no frame is counted, a length that can't be one ends the link, a flood gets
 * its share of the event loop and no more, and for one who does not read frames are dropped, not kept.
 */
import type { Duplex } from 'node:stream';
import { Ether } from '../../abi/inet.js';
import { VirtioNetHdr } from '../../abi/virtio.js';
import { KiB, MiB } from '../../base/units.js';
import type { NetFrame } from './contract.js';
import { framed, FrameReader } from './stream-frames.js';
import { frameBehind, MAX_FRAME_BYTES, writeHeader } from './tap-header.js';

const MAGIC = [0x76, 0x76, 0x73, 0x77];
const VERSION = 1;
const GREETING_BYTES = 8;
const LIMITS = {
  minBytes: VirtioNetHdr.SIZE + Ether.HEADER_BYTES,
  maxBytes: VirtioNetHdr.SIZE + MAX_FRAME_BYTES,
};
const MAX_BEHIND_BYTES = 2 * MiB;
/** After so much from one link others of the event loop have their turn: at least nine thousand of the shortest frames. */
const BYTES_PER_TURN = 256 * KiB;

export interface SwitchLinkUser {
  /** The other side has greeted, with its MTU, or 0. Says why it is refused, or nothing. */
  greeted(mtuBytes: number): string | undefined;
  receive(frames: readonly NetFrame[]): void;
  /** Once, with what the reason was. */
  ended(reason: string): void;
}

export interface SwitchLinkCounts {
  /** Frames for the other side that it did not take in time. */
  lost: number;
  /** What it sent that is none. */
  badFrames: number;
}

export class SwitchLink {
  readonly #stream: Duplex;
  readonly #user: SwitchLinkUser;
  readonly #counts: SwitchLinkCounts;
  readonly #greeting = new Uint8Array(GREETING_BYTES);
  #greetingHave = 0;
  readonly #reader = new FrameReader(LIMITS);
  #turnBytes = 0;
  #isYielding = false;
  #hasEnded = false;

  /** Greets at once. `counts` are added to, since links come and go. */
  constructor(stream: Duplex, mtuBytes: number, user: SwitchLinkUser, counts: SwitchLinkCounts) {
    this.#stream = stream;
    this.#user = user;
    this.#counts = counts;
    stream.on('error', (error) => this.end(error.message));
    stream.on('close', () => this.end('the other side is gone'));
    stream.on('end', () => this.end('the other side is gone'));
    stream.on('data', (chunk: Uint8Array) => this.#read(chunk));
    stream.write(Uint8Array.from([...MAGIC, VERSION, 0, mtuBytes >>> 8, mtuBytes & 0xff]));
  }

  send(frames: readonly NetFrame[]): void {
    const fitting = frames.filter(({ bytes }) => bytes.length <= MAX_FRAME_BYTES);
    this.#counts.lost += frames.length - fitting.length;
    if (this.#hasEnded || this.#stream.writableLength > MAX_BEHIND_BYTES) {
      this.#counts.lost += fitting.length;
      return;
    }
    const lengths = fitting.map(({ bytes }) => VirtioNetHdr.SIZE + bytes.length);
    this.#stream.write(
      framed(lengths, (index, all, at) => {
        writeHeader(fitting[index]!, all, at);
        all.set(fitting[index]!.bytes, at + VirtioNetHdr.SIZE);
      }),
    );
  }

  /** Ends the link. Idempotent. */
  end(reason: string): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#stream.destroy();
    this.#user.ended(reason);
  }

  #read(chunk: Uint8Array): void {
    if (this.#hasEnded) return;
    this.#turnBytes += chunk.length;
    if (!this.#isYielding) this.#yield();
    const rest = this.#greetingHave < GREETING_BYTES ? this.#greet(chunk) : chunk;
    if (rest.length === 0 || this.#hasEnded) return;
    const frames: NetFrame[] = [];
    for (const all of this.#reader.push(rest)) {
      const frame = frameBehind(all);
      if (frame === undefined) this.#counts.badFrames++;
      else frames.push(frame);
    }
    if (frames.length > 0) this.#user.receive(frames);
    if (this.#reader.broken === undefined) {
      if (this.#turnBytes > BYTES_PER_TURN) this.#stream.pause();
      return;
    }
    this.#counts.badFrames++;
    this.end(this.#reader.broken);
  }

  /** A turn's account ends with the turn. */
  #yield(): void {
    this.#isYielding = true;
    setImmediate(() => {
      this.#isYielding = false;
      this.#turnBytes = 0;
      if (!this.#hasEnded) this.#stream.resume();
    });
  }

  /** The bytes behind the greeting. */
  #greet(chunk: Uint8Array): Uint8Array {
    const taken = Math.min(GREETING_BYTES - this.#greetingHave, chunk.length);
    this.#greeting.set(chunk.subarray(0, taken), this.#greetingHave);
    this.#greetingHave += taken;
    if (this.#greetingHave === GREETING_BYTES) {
      const greeting = this.#greeting;
      const isKnown = MAGIC.every((byte, index) => greeting[index] === byte) && greeting[4] === VERSION;
      const mtuBytes = greeting[6]! * 256 + greeting[7]!;
      const reason = isKnown ? this.#user.greeted(mtuBytes) : 'the other side is no switch of this version';
      if (reason !== undefined) this.end(reason);
    }
    return chunk.subarray(taken);
  }
}
