/** Frames: their layout as in the table, and every bound of the reader, with hostile and random streams. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FrameReader } from './frame-reader.js';
import {
  decodeExit,
  decodeHello,
  encodeFrame,
  encodeStart,
  encodeWords,
  FrameType,
  HEADER_BYTES,
  MAX_PAYLOAD_TO_GUEST,
  ProtocolError,
  wordAt,
  type Frame,
} from './protocol.js';

function collect(maxPayload = 1000): {
  frames: { type: number; session: number; payload: Buffer }[];
  reader: FrameReader;
} {
  const frames: { type: number; session: number; payload: Buffer }[] = [];
  const reader = new FrameReader(maxPayload, (frame) =>
    frames.push({ type: frame.type, session: frame.session, payload: Buffer.from(frame.payload) }),
  );
  return { frames, reader };
}

const frame = (type: number, payload: Uint8Array): Frame => ({ type, session: 1, payload });

describe('frames', () => {
  it('have the header of the table', () => {
    expect([...encodeFrame(FrameType.STDIN, 0x01020304, Uint8Array.of(9, 8))]).toEqual([
      2, 0, 0, 0, 0x02, 0xa7, 0, 0, 4, 3, 2, 1, 9, 8,
    ]);
  });

  it('come out as they went in, however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 255 }), fc.nat(), fc.uint8Array({ maxLength: 60 })), {
          maxLength: 12,
        }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
        (sent, cuts) => {
          const stream = Buffer.concat(sent.map(([type, session, payload]) => encodeFrame(type, session, payload)));
          const { frames, reader } = collect();
          for (let at = 0, turn = 0; at < stream.length; turn++) {
            const size = cuts[turn % cuts.length] ?? 1;
            reader.push(Uint8Array.from(stream.subarray(at, at + size)));
            at += size;
          }
          expect(frames.map(({ type, session, payload }) => [type, session, [...payload]])).toEqual(
            sent.map(([type, session, payload]) => [type, session, [...payload]]),
          );
          expect(reader.pendingBytes).toBe(0);
        },
      ),
    );
  });

  it('of any random bytes are frames or a ProtocolError, within bounds', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), (chunks) => {
        const { frames, reader } = collect(100);
        try {
          for (const chunk of chunks) reader.push(chunk);
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError);
        }
        expect(reader.pendingBytes).toBeLessThanOrEqual(HEADER_BYTES + 100);
        for (const { payload } of frames) expect(payload.length).toBeLessThanOrEqual(100);
      }),
    );
  });

  it('are refused when too long, before anything is kept', () => {
    const { reader, frames } = collect(8);
    const header = encodeFrame(1, 1, new Uint8Array(9)).subarray(0, HEADER_BYTES);
    expect(() => reader.push(header)).toThrow(/a frame of 9 bytes; at most 8/);
    expect(frames).toEqual([]);
    const whole = collect(8);
    whole.reader.push(encodeFrame(1, 1, new Uint8Array(8)));
    expect(whole.frames).toHaveLength(1);
  });

  it('are refused when the stream is out of step, also with a header cut in two', () => {
    const bad = encodeFrame(1, 1);
    bad[5] = 0;
    expect(() => collect().reader.push(bad)).toThrow(ProtocolError);
    const { reader } = collect();
    reader.push(bad.subarray(0, 3));
    expect(() => reader.push(bad.subarray(3))).toThrow(/out of step/);
    const reserved = encodeFrame(1, 1);
    reserved[7] = 1;
    expect(() => collect().reader.push(reserved)).toThrow(ProtocolError);
  });
});

describe('payloads', () => {
  it('of start hold the texts in order', () => {
    const bytes = encodeStart(5, { argv: ['sh', '-c', 'é'], env: { A: '1', B: 'x=y' }, cwd: '/tmp' });
    const payload = Buffer.from(bytes.subarray(HEADER_BYTES));
    expect([0, 1, 2, 3].map((index) => payload.readUInt32LE(index * 4))).toEqual([0, 3, 2, 0]);
    expect(payload.subarray(16).toString()).toBe('/tmp\0sh\0-c\0é\0A=1\0B=x=y\0');
  });

  it('of start are refused when they cannot be passed', () => {
    const start = (argv: string[], env = {}, cwd = '/') => encodeStart(1, { argv, env, cwd });
    expect(() => start([])).toThrow(TypeError);
    expect(() => start(['a\0b'])).toThrow(TypeError);
    expect(() => start(['a'], { 'B=C': '1' })).toThrow(TypeError);
    expect(() => start(['a'], { '': '1' })).toThrow(TypeError);
    expect(() => start(['a'], {}, '/\0')).toThrow(TypeError);
    expect(() => start(['x'.repeat(MAX_PAYLOAD_TO_GUEST)])).toThrow(RangeError);
  });

  it('of exit are taken only where Linux can mean them', () => {
    const exit = (kind: number, value: number) =>
      decodeExit(frame(FrameType.EXIT, encodeWords(FrameType.EXIT, 1, kind, value).subarray(HEADER_BYTES)));
    expect(exit(0, 255)).toEqual({ kind: 'exited', code: 255 });
    expect(exit(1, 9)).toEqual({ kind: 'signalled', signal: 9 });
    expect(exit(2, 2)).toEqual({ kind: 'not-started', errno: 2 });
    for (const [kind, value] of [
      [0, 256],
      [1, 0],
      [1, 65],
      [2, 0],
      [2, 4096],
      [3, 0],
    ] as const) {
      expect(() => exit(kind, value), `${kind} ${value}`).toThrow(ProtocolError);
    }
    expect(() => wordAt(frame(1, new Uint8Array(7)), 1)).toThrow(ProtocolError);
  });

  it('of hello are bounded and free of control characters', () => {
    const hello = (text: string) => {
      const payload = Buffer.alloc(16 + text.length);
      payload.write(text, 16, 'latin1');
      payload.writeUInt32LE(1, 0);
      return decodeHello(frame(FrameType.HELLO, payload));
    };
    expect(() => hello('a\0b\0')).toThrow(/cut short/);
    expect(() => decodeHello(frame(FrameType.HELLO, new Uint8Array(15)))).toThrow(/cut short/);
    const decoded = hello(`agent\0Linux\0${'9'.repeat(1000)}\0v\x1b[31m\0x86_64\0`);
    expect(decoded.release).toHaveLength(256);
    expect(decoded.kernelVersion).toBe('v?[31m');
    // The first agents had no notice.
    expect(decoded.notice).toBe('');
    expect(hello('a\0b\0c\0d\0e\0no\nlease\0').notice).toBe('no?lease');
  });
});
