/** Frames: what is encoded comes out again, whole, however the bytes are cut; what is no frame is refused. */
import { describe, expect, it } from 'vitest';
import {
  creditFrame,
  creditOf,
  dataFrame,
  encodeFrame,
  endFrame,
  FRAME_DATA,
  FRAME_HEADER_BYTES,
  FRAME_MESSAGE,
  FrameDecoder,
  frameHeader,
  MAX_PAYLOAD_BYTES,
  STDERR,
  STDOUT,
} from './frames.js';

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

describe('FrameDecoder', () => {
  it('gives back what was encoded, for every kind', () => {
    const frames = [
      { session: 7, type: FRAME_MESSAGE, stream: 0, payload: Buffer.from('{"type":"ping","count":1}') },
      dataFrame(0xffff_ffff, STDERR, bytes(0, 255, 10, 13)),
      endFrame(3, STDOUT),
      creditFrame(3, STDOUT, 0xffff_fff0),
    ];
    const decoded = new FrameDecoder().push(Buffer.concat(frames.map(encodeFrame)));
    expect(decoded).toHaveLength(4);
    decoded.forEach((frame, index) => {
      expect({ ...frame, payload: [...frame.payload] }).toEqual({
        ...frames[index],
        payload: [...(frames[index]?.payload ?? [])],
      });
    });
    expect(creditOf(decoded[3] as never)).toBe(0xffff_fff0);
  });

  it('does not mind where the bytes are cut', () => {
    const payload = Uint8Array.from({ length: 300 }, (_, index) => index & 0xff);
    const wire = Buffer.concat([encodeFrame(dataFrame(1, STDOUT, payload)), encodeFrame(endFrame(1, STDOUT))]);
    for (const step of [1, 2, 5, FRAME_HEADER_BYTES, 13, 299, wire.length]) {
      const decoder = new FrameDecoder();
      const frames = [];
      for (let at = 0; at < wire.length; at += step) frames.push(...decoder.push(wire.subarray(at, at + step)));
      expect(frames.map(({ type }) => type)).toEqual([FRAME_DATA, 3]);
      expect([...(frames[0]?.payload ?? [])]).toEqual([...payload]);
      expect(decoder.empty).toBe(true);
    }
  });

  it('knows that it is in the middle of a frame', () => {
    const decoder = new FrameDecoder();
    decoder.push(encodeFrame(dataFrame(1, STDOUT, bytes(1, 2))).subarray(0, 13));
    expect(decoder.empty).toBe(false);
  });

  it('takes the longest payload and an empty one', () => {
    const decoder = new FrameDecoder();
    const longest = new Uint8Array(MAX_PAYLOAD_BYTES);
    expect(decoder.push(encodeFrame(dataFrame(1, STDOUT, longest)))[0]?.payload.length).toBe(MAX_PAYLOAD_BYTES);
    expect(decoder.push(encodeFrame(dataFrame(1, STDOUT, bytes())))[0]?.payload.length).toBe(0);
  });

  it('refuses headers that can be none: too long, of an unknown type or stream', () => {
    const header = Buffer.from(frameHeader(dataFrame(1, STDOUT, bytes())));
    const damaged = [
      (copy: Buffer) => copy.writeUInt32LE(MAX_PAYLOAD_BYTES + 1, 0),
      (copy: Buffer) => (copy[8] = 0),
      (copy: Buffer) => (copy[8] = 5),
      (copy: Buffer) => (copy[9] = 35),
    ].map((damage) => {
      const copy = Buffer.from(header);
      damage(copy);
      return copy;
    });
    for (const wire of damaged) {
      expect(() => new FrameDecoder().push(wire)).toThrow(expect.objectContaining({ code: 'ERR_EMBEDDED_HOST' }));
    }
    expect(() => new FrameDecoder().push(Buffer.from('HTTP/1.1 400 Bad Request\r\n'))).toThrow(/no frame/);
  });

  it('refuses to encode a payload that no decoder would take, and a credit of a wrong length', () => {
    expect(() => frameHeader(dataFrame(1, STDOUT, new Uint8Array(MAX_PAYLOAD_BYTES + 1)))).toThrow(RangeError);
    expect(() => creditOf(dataFrame(1, STDOUT, bytes(1, 2, 3)))).toThrow(/wrong length/);
  });
});
