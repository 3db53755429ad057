/**
 * The frames of a stream over the control socket that carries more than one thing: a command's stdin, stdout and stderr, and
 * messages in JSON. Bytes in, frames out; what they mean is exec.ts's.
 *
 * | offset | size | field                                        |
 * | 0      | 1    | type: 0 stdin, 1 stdout, 2 stderr, 3 message |
 * | 1      | 4    | length of the payload, little endian         |
 *
 * An empty frame of type 0 to 2 is the end of that stream.
 */
import { Transform, type TransformCallback, Writable } from 'node:stream';
import { VmmError } from '../base/errors.js';

export const StreamType = { STDIN: 0, STDOUT: 1, STDERR: 2, MESSAGE: 3 } as const;
export type StreamType = (typeof StreamType)[keyof typeof StreamType];

export interface StreamFrame {
  readonly type: StreamType;
  readonly payload: Buffer;
}

export const FRAMES_MEDIA_TYPE = 'application/vnd.vivarium.frames';

const HEADER_BYTES = 5;
/** As much as a command's arguments and environment may take. */
const MAX_PAYLOAD_BYTES = 2 * 1024 * 1024;
const MAX_DATA_BYTES = 64 * 1024;

export function encodeStreamFrame(type: StreamType, payload: Uint8Array = new Uint8Array(0)): Buffer {
  if (payload.length > MAX_PAYLOAD_BYTES) throw new RangeError(`a frame of ${payload.length} bytes is too long`);
  const frame = Buffer.alloc(HEADER_BYTES + payload.length);
  frame[0] = type;
  frame.writeUInt32LE(payload.length, 1);
  frame.set(payload, HEADER_BYTES);
  return frame;
}

export function encodeMessage(message: unknown): Buffer {
  return encodeStreamFrame(StreamType.MESSAGE, Buffer.from(JSON.stringify(message)));
}

/** The value of a message. @throws VmmError ERR_CONTROL */
export function messageIn(frame: StreamFrame): unknown {
  try {
    return JSON.parse(frame.payload.toString('utf8'));
  } catch {
    throw new VmmError('ERR_CONTROL', 'a message that is no JSON');
  }
}

/** Bytes in, frames out; fails with ERR_CONTROL for what is no frame, and for an end in the middle of one. */
export class StreamFrameReader extends Transform {
  /** What waits for the rest of its frame. It is joined once, when that is there: a frame may come in thousands of pieces. */
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #wantedBytes = HEADER_BYTES;

  constructor() {
    super({ readableObjectMode: true, readableHighWaterMark: 4 });
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.length;
    if (this.#waitingBytes < this.#wantedBytes) return done();
    let bytes = this.#waiting.length === 1 ? chunk : Buffer.concat(this.#waiting, this.#waitingBytes);
    this.#wantedBytes = HEADER_BYTES;
    while (bytes.length >= HEADER_BYTES) {
      const type = bytes[0]!;
      const length = bytes.readUInt32LE(1);
      if (type > StreamType.MESSAGE || length > MAX_PAYLOAD_BYTES) {
        return done(new VmmError('ERR_CONTROL', `no frame: ${bytes.subarray(0, HEADER_BYTES).toString('hex')}`));
      }
      this.#wantedBytes = HEADER_BYTES + length;
      if (bytes.length < this.#wantedBytes) break;
      const frame: StreamFrame = { type: type as StreamType, payload: bytes.subarray(HEADER_BYTES, this.#wantedBytes) };
      this.push(frame);
      bytes = bytes.subarray(this.#wantedBytes);
      this.#wantedBytes = HEADER_BYTES;
    }
    this.#waiting = bytes.length === 0 ? [] : [bytes];
    this.#waitingBytes = bytes.length;
    done();
  }

  override _flush(done: TransformCallback): void {
    done(this.#waitingBytes === 0 ? null : new VmmError('ERR_CONTROL', 'the stream ended in the middle of a frame'));
  }
}

/** A stream of bytes that becomes frames of one type on another stream, at that one's pace. */
export class FramedOutput extends Writable {
  readonly #type: StreamType;
  readonly #target: Writable;

  constructor(type: StreamType, target: Writable) {
    super({ highWaterMark: MAX_DATA_BYTES });
    this.#type = type;
    this.#target = target;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const pieces = Math.ceil(chunk.length / MAX_DATA_BYTES);
    this.#target.cork();
    for (let at = 0; at < pieces; at++) {
      const piece = chunk.subarray(at * MAX_DATA_BYTES, (at + 1) * MAX_DATA_BYTES);
      // The last one tells when the target has taken all of it.
      this.#target.write(encodeStreamFrame(this.#type, piece), at === pieces - 1 ? done : undefined);
    }
    this.#target.uncork();
    if (pieces === 0) done();
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#target.write(encodeStreamFrame(this.#type), done);
  }
}
