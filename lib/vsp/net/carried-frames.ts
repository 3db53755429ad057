/**
 * Frames and what belongs to them over a byte stream, for a network whose backend is in another process. Each record has
 * a length, so that a stream that goes wrong is noticed and given up; nothing of it is believed: what is said of a frame
 * is held against its bytes, and what can be no frame is left out, counted.
 *
 * | offset | size | field                                                                                        |
 * |--------|------|----------------------------------------------------------------------------------------------|
 * | 0      | 4    | bytes behind this field, big endian, at most MAX_RECORD_BYTES                                  |
 * | 4      | 1    | 0 hello, 1 frame, 2 link                                                                     |
 * | 5      | 1    | hello: 1 takes checksums, 2 takes segments, 4 gives checked, 8 gives merged; link: 0 down, 1 up;  |
 * |        |      | frame: 1 checked, 2 unfinished, 4 to be cut                                                  |
 * | 6      | 2    | hello: MTU in bytes; frame: where the unfinished checksum starts, big endian                   |
 * | 8      | 2    | frame: where it stands, from there; hello: the number of the change of backends, 0 for the first  |
 * | 10     | 2    | frame: payload bytes of a segment                                                             |
 * | 12     |      | frame: its bytes; hello: how the backend describes itself, as JSON, or nothing                  |
 */
import { Ether } from '../../abi/inet.js';
import type { BackendDescription } from '../contract.js';
import type { NetAbilities, NetBackend, NetFrame } from './contract.js';
import { MIN_SEGMENT_BYTES } from './segment.js';
import { MAX_FRAME_BYTES } from './tap-header.js';

export type CarriedRecord =
  | {
      readonly type: 'hello';
      readonly takes: NetAbilities;
      readonly gives: NetBackend['gives'];
      readonly mtuBytes: number;
      /** Of the change of backends that it follows; 0 for the first backend. What comes before it is the old one's. */
      readonly change: number;
      /** Undefined where it says nothing that is a description. */
      readonly backend: BackendDescription | undefined;
    }
  | { readonly type: 'frame'; readonly frame: NetFrame }
  | { readonly type: 'link'; readonly up: boolean };

/** Frames that are left out. */
export interface CarriedCounts {
  /** For the other end: too long for any network. */
  lost: number;
  /** Of the other end: what it says of them can't be, or they are none. */
  badFrames: number;
}

/** Of the numbers of changes; 0 is none. */
export const MAX_CARRIED_CHANGE = 0xffff;

const LENGTH_BYTES = 4;
const HEADER_BYTES = 12;
const MAX_RECORD_BYTES = HEADER_BYTES - LENGTH_BYTES + MAX_FRAME_BYTES;
const MAX_DESCRIPTION_BYTES = 4096;
const HELLO = 0;
const FRAME = 1;
const LINK = 2;

/** All frames in one piece; one that is too long for any network is left out and counted as lost. */
export function encodeFrames(frames: readonly NetFrame[], counts: CarriedCounts): Uint8Array {
  const fitting = frames.filter(({ bytes }) => bytes.length <= MAX_FRAME_BYTES);
  counts.lost += frames.length - fitting.length;
  const all = Buffer.allocUnsafe(fitting.reduce((sum, { bytes }) => sum + HEADER_BYTES + bytes.length, 0));
  let at = 0;
  for (const { bytes, unfinished, segmentBytes, checked } of fitting) {
    const flags = (checked === true ? 1 : 0) | (unfinished ? 2 : 0) | (segmentBytes === undefined ? 0 : 4);
    writeHeader(
      all,
      at,
      FRAME,
      flags,
      [unfinished?.startAt ?? 0, unfinished?.offset ?? 0, segmentBytes ?? 0],
      bytes.length,
    );
    all.set(bytes, at + HEADER_BYTES);
    at += HEADER_BYTES + bytes.length;
  }
  return all;
}

/** The frames among records, in their order. */
export function framesOf(records: readonly CarriedRecord[]): NetFrame[] {
  return records.flatMap((record) => (record.type === 'frame' ? [record.frame] : []));
}

type Hello = Pick<NetBackend, 'takes' | 'gives' | 'mtuBytes'> & { readonly backend?: BackendDescription };

export function encodeHello({ takes, gives, mtuBytes, backend }: Hello, change = 0): Uint8Array {
  const flags = [takes.checksum, takes.segments, gives.checked, gives.merged];
  const text = Buffer.from(backend === undefined ? '' : JSON.stringify(backend));
  // One so long is of no use to anybody.
  const description = text.length > MAX_DESCRIPTION_BYTES ? Buffer.alloc(0) : text;
  const all = Buffer.alloc(HEADER_BYTES + description.length);
  description.copy(all, HEADER_BYTES);
  writeHeader(
    all,
    0,
    HELLO,
    flags.reduce((sum, flag, bit) => sum | (flag ? 1 << bit : 0), 0),
    [mtuBytes, change, 0],
    description.length,
  );
  return all;
}

export function encodeLink(up: boolean): Uint8Array {
  const all = Buffer.alloc(HEADER_BYTES);
  writeHeader(all, 0, LINK, up ? 1 : 0, [0, 0, 0]);
  return all;
}

function writeHeader(
  all: Buffer,
  at: number,
  type: number,
  flags: number,
  words: readonly [number, number, number],
  dataBytes = 0,
): void {
  all.writeUInt32BE(HEADER_BYTES - LENGTH_BYTES + dataBytes, at);
  all[at + 4] = type;
  all[at + 5] = flags;
  words.forEach((word, index) => all.writeUInt16BE(word, at + 6 + 2 * index));
}

/** Takes bytes as they come, gives whole records. Frames of one chunk share its bytes. */
export class CarriedDecoder {
  readonly #counts: CarriedCounts;
  #rest: Buffer = Buffer.alloc(0);
  #pieces: Uint8Array[] = [];
  #bytes = 0;
  #wantedBytes = LENGTH_BYTES;
  #isBroken = false;

  /** Adds frames that are none to `counts`. */
  constructor(counts: CarriedCounts) {
    this.#counts = counts;
  }

  /** Undefined when the stream is beyond repair: a length or a type that there is not. */
  push(chunk: Uint8Array): CarriedRecord[] | undefined {
    if (this.#isBroken) return undefined;
    this.#pieces.push(chunk);
    this.#bytes += chunk.length;
    // A large frame in many small pieces is put together once.
    if (this.#rest.length + this.#bytes < this.#wantedBytes) return [];
    const all = Buffer.concat([this.#rest, ...this.#pieces]);
    const records: CarriedRecord[] = [];
    let at = 0;
    for (;;) {
      this.#wantedBytes = LENGTH_BYTES;
      if (all.length - at < LENGTH_BYTES) break;
      const length = all.readUInt32BE(at);
      if (length < HEADER_BYTES - LENGTH_BYTES || length > MAX_RECORD_BYTES) return this.#break();
      this.#wantedBytes = LENGTH_BYTES + length;
      if (all.length - at < this.#wantedBytes) break;
      const record = decodeRecord(all.subarray(at, at + this.#wantedBytes));
      if (record === undefined) return this.#break();
      if (record === BAD_FRAME) this.#counts.badFrames++;
      else records.push(record);
      at += this.#wantedBytes;
    }
    this.#rest = all.subarray(at);
    this.#pieces = [];
    this.#bytes = 0;
    return records;
  }

  get heldBytes(): number {
    return this.#rest.length + this.#bytes;
  }

  #break(): undefined {
    this.#isBroken = true;
    this.#rest = Buffer.alloc(0);
    this.#pieces = [];
    this.#bytes = 0;
    return undefined;
  }
}

const BAD_FRAME = 'bad frame';

function decodeRecord(record: Buffer): CarriedRecord | typeof BAD_FRAME | undefined {
  const flags = record[5]!;
  const words = [6, 8, 10].map((at) => record.readUInt16BE(at));
  switch (record[4]) {
    case HELLO: {
      const [checksum, segments, checked, merged] = [1, 2, 4, 8].map((bit) => (flags & bit) !== 0);
      const [takes, gives] = [
        { checksum: checksum!, segments: segments! },
        { checked: checked!, merged: merged! },
      ];
      const backend = describedBy(record.subarray(HEADER_BYTES));
      return { type: 'hello', takes, gives, mtuBytes: words[0]!, change: words[1]!, backend };
    }
    case LINK:
      return { type: 'link', up: flags === 1 };
    case FRAME: {
      const bytes = new Uint8Array(record.buffer, record.byteOffset + HEADER_BYTES, record.length - HEADER_BYTES);
      const frame = frameOf(bytes, flags, words as [number, number, number]);
      return frame === undefined ? BAD_FRAME : { type: 'frame', frame };
    }
    default:
      return undefined;
  }
}

/** For people and for a restore, which believes none of it: anything that has a kind. */
function describedBy(text: Buffer): BackendDescription | undefined {
  if (text.length > MAX_DESCRIPTION_BYTES) return undefined;
  try {
    const value = JSON.parse(text.toString()) as BackendDescription | null;
    return typeof value?.kind === 'string' ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Undefined where what is said of the frame does not fit it. */
function frameOf(
  bytes: Uint8Array,
  flags: number,
  [startAt, offset, segmentBytes]: readonly [number, number, number],
): NetFrame | undefined {
  const [checked, isUnfinished, isLarge] = [1, 2, 4].map((bit) => (flags & bit) !== 0);
  if (bytes.length < Ether.HEADER_BYTES) return undefined;
  if (isUnfinished && startAt + offset + 2 > bytes.length) return undefined;
  // The checksum of a large packet is unfinished too.
  if (isLarge && (!isUnfinished || segmentBytes < MIN_SEGMENT_BYTES)) return undefined;
  return {
    bytes,
    ...(checked ? { checked: true } : {}),
    ...(isUnfinished ? { unfinished: { startAt, offset } } : {}),
    ...(isLarge ? { segmentBytes } : {}),
  };
}
