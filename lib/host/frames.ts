/**
 * The frames that sessions of the embedded host travel in, on every hop: client, broker, inner daemon, worker.
 * A hop forwards frames by their header alone; it never looks into data. What the messages say is in messages.ts.
 *
 * | offset | size | field                                                                        |
 * | 0      | 4    | payload length in bytes, little endian, at most MAX_PAYLOAD_BYTES            |
 * | 4      | 4    | session, little endian; 0 is the link itself                                 |
 * | 8      | 1    | type (FRAME_*)                                                               |
 * | 9      | 1    | stream, for data, end and credit: 0 stdin, 1 stdout, 2 stderr, 3 and up the   |
 * |        |      | session's channels, which go both ways; otherwise 0                          |
 * | 10     | 2    | zero                                                                         |
 */
import { VmmError } from '../base/errors.js';

export const FRAME_HEADER_BYTES = 12;
export const MAX_PAYLOAD_BYTES = 1 << 20;

export const FRAME_MESSAGE = 1; // payload: one JSON message
export const FRAME_DATA = 2; // payload: bytes of the stream
export const FRAME_END = 3; // the stream is at its end; no payload
export const FRAME_CREDIT = 4; // payload: four bytes, little endian: so many more bytes of data may be sent

export const STDIN = 0;
export const STDOUT = 1;
export const STDERR = 2;
export const FIRST_CHANNEL = 3;
export const MAX_CHANNELS = 32;

export interface Frame {
  readonly session: number;
  readonly type: number;
  readonly stream: number;
  readonly payload: Uint8Array;
}

const EMPTY = new Uint8Array(0);

/** The header of a frame; its payload is sent after it, uncopied. */
export function frameHeader(frame: Frame): Uint8Array {
  const { session, type, stream, payload } = frame;
  if (payload.length > MAX_PAYLOAD_BYTES) throw new RangeError(`a frame of ${payload.length} bytes is too long`);
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt32LE(payload.length, 0);
  header.writeUInt32LE(session, 4);
  header[8] = type;
  header[9] = stream;
  return header;
}

/** A whole frame in one piece. */
export function encodeFrame(frame: Frame): Uint8Array {
  return Buffer.concat([frameHeader(frame), frame.payload]);
}

export function dataFrame(session: number, stream: number, payload: Uint8Array): Frame {
  return { session, type: FRAME_DATA, stream, payload };
}

export function endFrame(session: number, stream: number): Frame {
  return { session, type: FRAME_END, stream, payload: EMPTY };
}

export function creditFrame(session: number, stream: number, bytes: number): Frame {
  const payload = Buffer.alloc(4);
  payload.writeUInt32LE(bytes, 0);
  return { session, type: FRAME_CREDIT, stream, payload };
}

/** The number of bytes that a credit frame grants. */
export function creditOf(frame: Frame): number {
  if (frame.payload.length !== 4) throw new VmmError('ERR_EMBEDDED_HOST', 'a credit frame of a wrong length');
  return Buffer.from(frame.payload.buffer, frame.payload.byteOffset, 4).readUInt32LE(0);
}

/**
 * Takes bytes as they come and gives whole frames. Payloads are views of the bytes that came, valid as long as those.
 *
 * @throws VmmError ERR_EMBEDDED_HOST for a header that can't be one: the link is then beyond repair.
 */
export class FrameDecoder {
  #chunks: Uint8Array[] = [];
  #buffered = 0;
  #wanted = FRAME_HEADER_BYTES;

  push(chunk: Uint8Array): Frame[] {
    this.#chunks.push(chunk);
    this.#buffered += chunk.length;
    // Pieces of a long frame are only put together once all of it is there, so that bytes are copied at most once.
    if (this.#buffered < this.#wanted) return [];
    const joined = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks, this.#buffered);
    const bytes = Buffer.from(joined.buffer, joined.byteOffset, joined.length);
    const frames: Frame[] = [];
    let at = 0;
    for (;;) {
      if (bytes.length - at < FRAME_HEADER_BYTES) {
        this.#wanted = FRAME_HEADER_BYTES;
        break;
      }
      const length = checkHeader(bytes, at);
      if (bytes.length - at < FRAME_HEADER_BYTES + length) {
        this.#wanted = FRAME_HEADER_BYTES + length;
        break;
      }
      const start = at + FRAME_HEADER_BYTES;
      frames.push({
        session: bytes.readUInt32LE(at + 4),
        type: bytes[at + 8] ?? 0,
        stream: bytes[at + 9] ?? 0,
        payload: bytes.subarray(start, start + length),
      });
      at = start + length;
    }
    const rest = bytes.subarray(at);
    this.#chunks = rest.length === 0 ? [] : [rest];
    this.#buffered = rest.length;
    return frames;
  }

  /** True between frames: the link may end here without a loss. */
  get empty(): boolean {
    return this.#buffered === 0;
  }
}

function checkHeader(bytes: Buffer, at: number): number {
  const length = bytes.readUInt32LE(at);
  const type = bytes[at + 8] ?? 0;
  const stream = bytes[at + 9] ?? 0;
  if (
    length > MAX_PAYLOAD_BYTES ||
    type < FRAME_MESSAGE ||
    type > FRAME_CREDIT ||
    stream >= FIRST_CHANNEL + MAX_CHANNELS
  ) {
    throw new VmmError('ERR_EMBEDDED_HOST', `no frame: ${bytes.subarray(at, at + FRAME_HEADER_BYTES).toString('hex')}`);
  }
  return length;
}
