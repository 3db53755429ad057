/** A command in the guest of another process's machine, on streams of this one. */
import type { Readable, Writable } from 'node:stream';
import { AbortError, VmmError } from '../base/errors.js';
import type { ControlClient } from './client.js';
import { errorOf, failureIn } from './failures.js';
import type { ExecControl, ExecEnd, ExecRequest } from './schemas.js';
import {
  encodeMessage,
  FramedOutput,
  FRAMES_MEDIA_TYPE,
  messageIn,
  type StreamFrame,
  StreamFrameReader,
  StreamType,
} from './stream-frames.js';

export interface RemoteRunOptions extends Omit<ExecRequest, 'stdin'> {
  readonly signal?: AbortSignal | undefined;
  /** Without it the command's stdin is at its end from the start. */
  readonly stdin?: Readable;
  /** Without it the output is dropped. */
  readonly stdout?: Writable;
  readonly stderr?: Writable;
  /** Takes what sends signals, by number, and sizes of its terminal, once the command was asked for. */
  readonly onStart?: (tell: (message: ExecControl) => void) => void;
}

export interface RemoteRunResult extends ExecEnd {
  /** The stream of ours that failed before all output was written to it (EPIPE, mostly), if one did. */
  readonly outputError: Error | undefined;
}

export async function runRemote(client: ControlClient, options: RemoteRunOptions): Promise<RemoteRunResult> {
  const { stdin, stdout, stderr, signal, onStart, ...request } = options;
  const call = client.open('POST', '/v1/exec', { signal, contentType: FRAMES_MEDIA_TYPE });
  const socket = call.request;
  // It breaks with the connection, of which the answer tells.
  socket.on('error', () => undefined);
  socket.write(encodeMessage({ ...request, stdin: stdin !== undefined }));
  onStart?.((message) => {
    if (socket.writable) socket.write(encodeMessage(message));
  });
  const input = stdin === undefined ? undefined : new FramedOutput(StreamType.STDIN, socket);
  input?.on('error', () => undefined);
  if (input !== undefined) stdin?.pipe(input);
  const outputs = new Outputs(stdout, stderr, signal);
  try {
    const frames = (await call.answer).pipe(new StreamFrameReader());
    let end: ExecEnd | undefined;
    (await call.answer).on('error', (error) => frames.destroy(error));
    for await (const frame of frames as AsyncIterable<StreamFrame>) {
      if (frame.type === StreamType.MESSAGE) end = endIn(messageIn(frame));
      else await outputs.write(frame);
    }
    if (end === undefined) throw new VmmError('ERR_CONTROL', 'the command ended without a word');
    return { ...end, outputError: outputs.error };
  } catch (error) {
    if (signal?.aborted === true) throw new AbortError(signal);
    if (error instanceof VmmError || error instanceof TypeError) throw error;
    throw new VmmError('ERR_CONTROL', `the machine's process went away in the middle of a command`, { cause: error });
  } finally {
    if (input !== undefined) stdin?.unpipe(input);
    stdin?.pause();
    outputs.release();
    socket.destroy();
  }
}

/** @throws what the other side says */
function endIn(message: unknown): ExecEnd {
  const failure = failureIn(message);
  if (failure !== undefined) throw errorOf(failure);
  const { end } = (message ?? {}) as { end?: ExecEnd };
  if (end === undefined) throw new VmmError('ERR_CONTROL', 'an end of a command that is none');
  return end;
}

class Outputs {
  error: Error | undefined;
  readonly #streams: readonly (Writable | undefined)[];
  readonly #signal: AbortSignal | undefined;
  readonly #onError = (error: Error): void => void (this.error ??= error);

  constructor(stdout: Writable | undefined, stderr: Writable | undefined, signal: AbortSignal | undefined) {
    this.#signal = signal;
    this.#streams = [undefined, stdout, stderr];
    for (const stream of this.#streams) stream?.on('error', this.#onError);
  }

  /** At the stream's pace; what it does not take any more is dropped. One that is closed, or given up, is not waited for. */
  async write({ type, payload }: StreamFrame): Promise<void> {
    const stream = this.#streams[type];
    if (stream === undefined || payload.length === 0 || stream.destroyed || stream.errored) return;
    const signal = this.#signal;
    if (signal?.aborted === true) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        stream.off('close', done);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      stream.once('close', done);
      signal?.addEventListener('abort', done, { once: true });
      stream.write(payload, (error) => {
        if (error) this.#onError(error);
        done();
      });
    });
  }

  release(): void {
    if (this.error === undefined) for (const stream of this.#streams) stream?.off('error', this.#onError);
  }
}
