/**
 * One session in the embedded host, seen from outside: streams, terminal and signals of a CommandIo are joined to a
 * process inside, until its exit status is here. Leaves the terminal as it was, whatever happens.
 */
import type { Writable } from 'node:stream';
import type { Channel, CommandIo, CommandSignal } from '../base/command-io.js';
import { AbortError, VmmError } from '../base/errors.js';
import type { HostConnection } from './client.js';
import { creditOf, FRAME_CREDIT, FRAME_DATA, FRAME_END, STDERR, STDIN, STDOUT, type Frame } from './frames.js';
import { Channels } from './channels.js';
import { errorOf, messageOf, ONLY_SESSION, type Message, type SessionRequest } from './messages.js';
import { FrameReadable, FrameWritable } from './streams.js';

/** What a session is joined to: a command's terminal and streams. */
export type SessionIo = Pick<
  CommandIo,
  'stdin' | 'stdout' | 'stderr' | 'terminalSize' | 'onResize' | 'setRawMode' | 'onSignal'
>;

/** How a session ended: as its process inside did, or by a signal that came before that process took signals. */
export type SessionEnd =
  { readonly by: 'process'; readonly status: number } | { readonly by: 'signal'; readonly signal: CommandSignal };

/**
 * Runs a session to its end; each member of `join` gets a channel of it. A signal before the command inside takes any ends it, with what is there of it hung up.
 *
 * @throws VmmError as the process inside reported it, ERR_EMBEDDED_HOST when the host or the process is lost;
 *   AbortError, with the process inside hung up.
 */
export async function runSession(
  connection: HostConnection,
  request: SessionRequest,
  io: SessionIo,
  signal?: AbortSignal,
  join: readonly ((channel: Channel) => void)[] = [],
): Promise<SessionEnd> {
  const { link } = connection;
  const send = (frame: Frame): void => link.send(frame);
  const channels = new Channels(join.length, ONLY_SESSION, send);
  const say = (message: Message): void => link.sendMessage(ONLY_SESSION, message);
  const stdin = new FrameWritable({ session: ONLY_SESSION, stream: STDIN, send });
  const stdout = new FrameReadable({ session: ONLY_SESSION, stream: STDOUT, send });
  const stderr = new FrameReadable({ session: ONLY_SESSION, stream: STDERR, send });
  stdin.on('error', () => undefined);

  const cleanups: (() => void)[] = [];
  let raw = false;
  try {
    const outputs = [
      drainInto(stdout, io.stdout, () => say({ type: 'broken', stream: STDOUT }), cleanups),
      drainInto(stderr, io.stderr, () => say({ type: 'broken', stream: STDERR }), cleanups),
    ];
    const ended = new Promise<SessionEnd>((resolve, reject) => {
      let over = false;
      let running = false;
      const onMessage = (message: Message): void => {
        switch (message.type) {
          case 'running':
            running = true;
            return;
          case 'raw-mode':
            raw = message.on;
            return io.setRawMode(message.on);
          case 'exit':
            over = true;
            return resolve({ by: 'process', status: message.status });
          case 'failed':
            over = true;
            return reject(errorOf(message.failure));
          default:
            return;
        }
      };
      connection.listen({
        onFrame: (frame) => {
          if (channels.onFrame(frame)) return;
          if (frame.type === FRAME_DATA) (frame.stream === STDERR ? stderr : stdout).deliver(frame.payload);
          else if (frame.type === FRAME_END) (frame.stream === STDERR ? stderr : stdout).deliverEnd();
          else if (frame.type === FRAME_CREDIT) {
            // The process inside has begun to read: only now is anything taken from our own stdin.
            stdin.grant(creditOf(frame));
            joinStdin(io, stdin, cleanups);
          } else onMessage(messageOf(frame));
        },
        onEnd: (error) => {
          if (over) return;
          const cause = error === undefined ? {} : { cause: error };
          reject(new VmmError('ERR_EMBEDDED_HOST', 'the embedded host went away in the middle of a session', cause));
        },
      });
      cleanups.push(
        io.onSignal((name) => {
          if (running) say({ type: 'signal', signal: name });
          else resolve({ by: 'signal', signal: name });
        }),
      );
      if (signal !== undefined) {
        const onAbort = (): void => reject(new AbortError(signal));
        signal.addEventListener('abort', onAbort, { once: true });
        cleanups.push(() => signal.removeEventListener('abort', onAbort));
        if (signal.aborted) onAbort();
      }
    });
    cleanups.push(
      io.onResize(() => {
        const size = io.terminalSize();
        if (size !== undefined) say({ type: 'resize', size });
      }),
    );
    say({ type: 'open', request: { ...request, channels: join.length } });
    channels.all.forEach((channel, index) => join[index]!(channel));
    const end = await ended;
    if (end.by === 'signal') return end;
    // A stream that the process never ended (it was killed) ends with the process.
    stdout.deliverEnd();
    stderr.deliverEnd();
    await Promise.all(outputs);
    return end;
  } finally {
    for (const cleanup of cleanups.reverse()) cleanup();
    if (raw) io.setRawMode(false);
    stdin.destroy();
    channels.destroy();
    link.destroy();
  }
}

/** Joins our stdin once. When the session ends it is let go, so that it does not keep this process alive. */
function joinStdin(io: SessionIo, stdin: FrameWritable, cleanups: (() => void)[]): void {
  if (stdin.listenerCount('unpipe') > 0) return;
  const onError = (): void => void stdin.end(); // a terminal that went away reads as the end
  stdin.on('unpipe', () => undefined);
  io.stdin.on('error', onError);
  io.stdin.pipe(stdin);
  cleanups.push(() => {
    io.stdin.unpipe(stdin);
    io.stdin.pause();
    io.stdin.removeListener('error', onError);
  });
}

/**
 * Writes all of `source` to `target` at the target's pace; resolves when the last byte has been handed to it.
 * A target that fails (a closed pipe) swallows the rest, and `onBroken` says so once.
 */
function drainInto(source: FrameReadable, target: Writable, onBroken: () => void, cleanups: (() => void)[]) {
  return new Promise<void>((resolve) => {
    let broken = false;
    const onError = (): void => {
      if (broken) return;
      broken = true;
      onBroken();
      source.resume();
      resolve();
    };
    target.on('error', onError);
    cleanups.push(() => target.removeListener('error', onError));
    source.on('data', (chunk: Uint8Array) => {
      if (broken) return;
      if (!target.write(chunk)) {
        source.pause();
        target.once('drain', () => source.resume());
      }
    });
    source.once('end', () => {
      if (broken || !target.writable) return resolve();
      target.write('', () => resolve());
    });
  });
}
