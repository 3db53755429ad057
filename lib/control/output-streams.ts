/** Between a guest's output and input and the streams of a request: bounded, and at the pace of who is slower. */
import { Readable } from 'node:stream';
import { VmmError } from '../base/errors.js';
import type { OutputView } from './output-hub.js';
import type { ControlledMachine } from './target.js';

/** How many bytes are typed at once: the receiver of the guest takes them at its own pace. */
const TYPE_BYTES = 4096;

/** A view as bytes; what was left out is said in its place. */
export function viewStream(view: OutputView): Readable {
  return new Readable({
    highWaterMark: 64 * 1024,
    read() {
      view.next().then(
        ({ done, value }) => {
          if (this.destroyed) return;
          if (done === true) return void this.push(null);
          const { bytes, lostBytes } = value;
          this.push(lostBytes > 0 ? Buffer.concat([lossNotice(lostBytes), bytes]) : bytes);
        },
        (error: unknown) => this.destroy(error as Error),
      );
    },
    destroy(error, done) {
      void view.return();
      done(error);
    },
  });
}

function lossNotice(bytes: number): Buffer {
  return Buffer.from(`\r\n[vivarium: ${bytes} bytes are left out: they came faster than they were read]\r\n`);
}

/** Types what comes at the console, as fast as the guest takes it, until the stream's end or the signal. Never rejects. */
export async function takeInput(
  stream: Readable,
  console: ControlledMachine['console'],
  signal: AbortSignal,
): Promise<void> {
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      for (let at = 0; at < chunk.length && !signal.aborted; at += TYPE_BYTES) {
        if (!console.write(chunk.subarray(at, at + TYPE_BYTES))) await console.drained();
      }
    }
  } catch {
    // The client has gone in the middle of it.
  }
}

/**
 * All of a stream. What is too long is read to its end and dropped, since a client that still sends does not hear what it is told.
 *
 * @throws RangeError when it is longer, VmmError ERR_CONTROL when it is cut
 */
export function readBounded(stream: Readable, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  return new Promise((resolve, reject) => {
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= maxBytes) chunks.push(chunk);
      else chunks.length = 0;
    });
    stream.once('end', () => {
      if (bytes <= maxBytes) resolve(Buffer.concat(chunks));
      else reject(new RangeError(`at most ${maxBytes} bytes are taken at once`));
    });
    const cut = (cause?: unknown): void =>
      reject(new VmmError('ERR_CONTROL', 'what was sent is cut short', cause === undefined ? {} : { cause }));
    stream.once('error', cut);
    stream.once('close', () => cut());
  });
}

/** Reads what still comes and drops it; resolves at the stream's end, or when it has gone. */
export function drained(stream: Readable): Promise<void> {
  return new Promise((resolve) => {
    if (stream.readableEnded || stream.destroyed) return resolve();
    for (const event of ['end', 'error', 'close']) stream.once(event, () => resolve());
    stream.resume();
  });
}
