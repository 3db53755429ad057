import { expect, it, describe } from 'vitest';
import { framed, FrameReader } from './stream-frames.js';

const LIMITS = { minBytes: 14, maxBytes: 1000 };
const frame = (lengthBytes: number, from = 0) => Uint8Array.from({ length: lengthBytes }, (_, index) => from + index);
const stream = (frames: readonly Uint8Array[]) =>
  framed(
    frames.map(({ length }) => length),
    (index, all, at) => all.set(frames[index]!, at),
  );

describe('FrameReader', () => {
  it('gives frames as they were, however they come', () => {
    const frames = [frame(14), frame(1000, 3), frame(60, 9)];
    const bytes = stream(frames);
    for (const pieceBytes of [1, 3, 17, 500, bytes.length]) {
      const reader = new FrameReader(LIMITS);
      const got: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; at += pieceBytes)
        got.push(...reader.push(bytes.subarray(at, at + pieceBytes)));
      expect(got).toEqual(frames);
      expect([reader.pendingBytes, reader.broken]).toEqual([0, undefined]);
    }
  });

  it('gives bytes that copy when they are sliced, also out of a Buffer', () => {
    const bytes = Buffer.from(stream([frame(20)]));
    const [got] = new FrameReader(LIMITS).push(bytes);
    got!.slice().fill(0);
    expect(got).toEqual(frame(20));
  });

  it('gives what was whole before a length that can not be, and nothing after it', () => {
    for (const lengthBytes of [0, 13, 1001, 0xffffffff]) {
      const wrong = new Uint8Array(4);
      new DataView(wrong.buffer).setUint32(0, lengthBytes);
      const reader = new FrameReader(LIMITS);
      const bytes = Uint8Array.from([...stream([frame(20)]), ...wrong, ...stream([frame(30)])]);
      expect(reader.push(bytes)).toEqual([frame(20)]);
      expect(reader.broken).toBe(`a frame of ${lengthBytes} bytes`);
      expect(reader.push(stream([frame(40)]))).toEqual([]);
    }
  });
});
