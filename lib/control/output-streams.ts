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

/** All of a stream. @throws RangeError when it is longer, VmmError ERR_CONTROL when it is cut */
export async function readBounded(stream: Readable, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > maxBytes) break;
      chunks.push(chunk);
    }
  } catch (cause) {
    throw new VmmError('ERR_CONTROL', 'what was sent is cut short', { cause });
  }
  if (bytes > maxBytes) throw new RangeError(`at most ${maxBytes} bytes are taken at once`);
  return Buffer.concat(chunks);
}
