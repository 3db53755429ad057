/** Streams with credit: bytes arrive whole and in order, nobody sends more than was granted, nobody reads unasked. */
import { finished } from 'node:stream/promises';
import { describe, expect, it } from 'vitest';
import { creditOf, FRAME_CREDIT, FRAME_DATA, FRAME_END, STDOUT, type Frame } from './frames.js';
import { DATA_FRAME_BYTES, FrameReadable, FrameWritable, WINDOW_BYTES } from './streams.js';

/** A writer and a reader joined by two queues of frames, which the test moves by hand. */
function pair() {
  const toReader: Frame[] = [];
  const toWriter: Frame[] = [];
  const writer = new FrameWritable({ session: 1, stream: STDOUT, send: (frame) => toReader.push(frame) });
  const reader = new FrameReadable({ session: 1, stream: STDOUT, send: (frame) => toWriter.push(frame) });
  const move = (): boolean => {
    const moved = toReader.length + toWriter.length > 0;
    for (const frame of toReader.splice(0)) {
      if (frame.type === FRAME_DATA) reader.deliver(frame.payload);
      else if (frame.type === FRAME_END) reader.deliverEnd();
    }
    for (const frame of toWriter.splice(0)) if (frame.type === FRAME_CREDIT) writer.grant(creditOf(frame));
    return moved;
  };
  return { writer, reader, toReader, toWriter, move };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function settle(move: () => boolean): Promise<void> {
  for (let quiet = 0; quiet < 3;) {
    quiet = move() ? 0 : quiet + 1;
    await turn();
  }
}

describe('FrameWritable and FrameReadable', () => {
  it('carry bytes unharmed through many windows', async () => {
    const { writer, reader, move } = pair();
    const data = Buffer.alloc(WINDOW_BYTES * 3 + 77);
    for (let at = 0; at < data.length; at++) data[at] = (at * 31) & 0xff;
    const got: Buffer[] = [];
    reader.on('data', (chunk: Buffer) => got.push(chunk));
    writer.end(data);
    await settle(move);
    expect(Buffer.concat(got).equals(data)).toBe(true);
    expect(reader.readableEnded).toBe(true);
    await finished(writer);
  });

  it('send nothing before somebody reads', async () => {
    const { writer, toReader, move } = pair();
    writer.write('early');
    await settle(move);
    expect(toReader).toEqual([]);
    expect(writer.writableLength).toBe(5);
  });

  it('never have more than a window under way when the reader stops', async () => {
    const { writer, reader, toReader, toWriter, move } = pair();
    reader.read(0); // opens the window and takes nothing
    await settle(() => {
      for (const frame of toWriter.splice(0)) writer.grant(creditOf(frame));
      return false;
    });
    writer.write(Buffer.alloc(WINDOW_BYTES * 2));
    await turn();
    const sent = toReader.reduce((sum, frame) => sum + frame.payload.length, 0);
    expect(sent).toBe(WINDOW_BYTES);
    expect(Math.max(...toReader.map((frame) => frame.payload.length))).toBeLessThanOrEqual(DATA_FRAME_BYTES);
    // Whoever reads on gets the rest.
    let got = 0;
    reader.on('data', (chunk: Buffer) => (got += chunk.length));
    await settle(move);
    expect(got).toBe(WINDOW_BYTES * 2);
  });

  it('refuse a sender that takes more than its credit', () => {
    const { reader } = pair();
    expect(() => reader.deliver(Buffer.alloc(1))).toThrow(expect.objectContaining({ code: 'ERR_EMBEDDED_HOST' }));
    reader.read(0);
    expect(() => reader.deliver(Buffer.alloc(WINDOW_BYTES + 1))).toThrow(/more than it may/);
  });

  it('give credit back also for what nobody wants any more', () => {
    const { reader, toWriter } = pair();
    reader.read(0);
    toWriter.length = 0;
    reader.destroy();
    for (let sent = 0; sent < WINDOW_BYTES; sent += DATA_FRAME_BYTES) reader.deliver(Buffer.alloc(DATA_FRAME_BYTES));
    expect(toWriter.reduce((sum, frame) => sum + creditOf(frame), 0)).toBe(WINDOW_BYTES);
  });

  it('end after the last byte, and only once', async () => {
    const { writer, reader, toReader, move } = pair();
    reader.resume();
    await settle(move);
    writer.end('last');
    await turn();
    expect(toReader.map(({ type }) => type)).toEqual([FRAME_DATA, FRAME_END]);
    await settle(move);
    reader.deliverEnd(); // told twice, as when a process ends after its stream
    await settle(move);
    expect(reader.readableEnded).toBe(true);
  });

  it('fail as a closed pipe does when the other end has gone', async () => {
    const { writer } = pair();
    const failure = new Promise<NodeJS.ErrnoException>((resolve) => writer.once('error', resolve));
    writer.write('never read');
    writer.breakPipe();
    expect((await failure).code).toBe('EPIPE');
    writer.breakPipe(); // harmless again
    writer.grant(100); // a late credit too
  });
});
