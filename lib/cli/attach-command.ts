/** `console` and `logs`: what a machine's guest prints, here; the console also takes what is typed, until Ctrl-]. */
import { AbortError, VmmError } from '../base/errors.js';
import { bytesOfLastLines } from '../control/index.js';
import { LEAVE_BYTE } from './console-session.js';
import { isCode, type AskContext } from './control-commands.js';
import { untilInterrupted } from './until-interrupted.js';
import { ExitStatus, statusOfSignal } from './exit-status.js';
import { pumpOutput } from './pump-output.js';

/** What is typed while the guest takes nothing is kept up to this; the terminal is read on, so that Ctrl-] is always seen. */
const WAITING_BYTES = 1024 * 1024;
const LEAVING_NS = 1_000_000_000n;

export interface LogsCommandOptions {
  readonly follow: boolean;
  /** Lines of what was kept; undefined: all of it. */
  readonly tailLines: number | undefined;
}

export async function logsCommand(
  name: string,
  { follow, tailLines }: LogsCommandOptions,
  context: AskContext,
): Promise<number> {
  const { io, world } = context;
  return untilInterrupted(context, async (signal) => {
    let source: AsyncIterable<Uint8Array>;
    try {
      const tail = tailLines === undefined ? {} : { tailLines };
      source = await (await world.connect(name, signal)).logs({ follow, ...tail, signal });
    } catch (error) {
      if (!isCode(error, 'ERR_NO_MACHINE') || world.ended(name) === undefined) throw error;
      const output = world.endedOutput(name);
      source = once(output.subarray(output.length - bytesOfLastLines([output], tailLines ?? Infinity)));
    }
    return (await pumpOutput(piecesOf(name, source, signal), io.stdout)) === 'broken'
      ? statusOfSignal('SIGPIPE')
      : ExitStatus.OK;
  });
}

export async function consoleCommand(name: string, context: AskContext): Promise<number> {
  const { io, world } = context;
  const { stdin } = io;
  return untilInterrupted(context, async (interrupted) => {
    const left = new AbortController();
    const signal = AbortSignal.any([interrupted, left.signal]);
    const machine = await world.connect(name, signal);
    const { input, output, close } = await machine.attach({ signal });
    input.on('error', () => undefined);
    let dropping = false;
    const say = (text: string): void => void io.stderr.write(`vivarium: ${text}${io.stdinIsTerminal ? '\r' : ''}\n`);
    const onData = (chunk: Buffer): void => {
      const leave = io.stdinIsTerminal ? chunk.indexOf(LEAVE_BYTE) : -1;
      const typed = leave < 0 ? chunk : chunk.subarray(0, leave);
      const { writableLength = 0 } = input as { writableLength?: number };
      const isFull = io.stdinIsTerminal && writableLength > WAITING_BYTES;
      if (isFull && !dropping) say('the guest takes no input; what is typed now is dropped');
      dropping = isFull;
      if (typed.length > 0 && !isFull && !input.write(typed) && !io.stdinIsTerminal) {
        stdin.pause();
        input.once('drain', () => stdin.resume());
      }
      if (leave >= 0) leaveAfterTyping();
    };
    const onEnd = (): void => void input.end();
    /** What was typed before goes out first, if the guest takes it. */
    function leaveAfterTyping(): void {
      stdin.off('data', onData);
      const late = world.clock.setTimer(LEAVING_NS, () => left.abort());
      input.end(() => {
        late.cancel();
        left.abort();
      });
    }
    if (io.stdinIsTerminal) {
      say(`the console of ${name}; Ctrl-] leaves it`);
      io.setRawMode(true);
    }
    stdin.on('data', onData);
    stdin.once('end', onEnd);
    stdin.resume();
    try {
      const how = await pumpOutput(piecesOf(name, output, signal), io.stdout);
      return how === 'broken' ? statusOfSignal('SIGPIPE') : ExitStatus.OK;
    } catch (error) {
      if (!left.signal.aborted) throw error;
      return ExitStatus.OK;
    } finally {
      stdin.off('data', onData);
      stdin.off('end', onEnd);
      stdin.pause();
      if (io.stdinIsTerminal) io.setRawMode(false);
      if (left.signal.aborted) say(`left the console; ${name} goes on`);
      close();
    }
  });
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  if (bytes.length > 0) yield await Promise.resolve(bytes);
}

/** The stream's own errors say nothing to people. */
async function* piecesOf(
  name: string,
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  try {
    yield* source;
  } catch (cause) {
    if (signal.aborted) throw new AbortError(signal);
    throw new VmmError('ERR_CONTROL', `the process of ${name} went away`, { cause });
  }
}
