/**
 * The two ways in which a passt is started, with one end of a socket pair: as a child of this process, in a process group of its own,
 * which keeps a terminal's Ctrl-C from it; or by a keeper outside of the fence, where this process is in one (native/fence/keeper.h).
 */
import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { constants } from 'node:os';
import { Duplex } from 'node:stream';
import { SystemError } from '../../base/errors.js';
import { passtKeeperOf } from '../../base/fence.js';
import { KiB, MiB } from '../../base/units.js';
import { sendDescriptors, socketPair, type SocketPair } from '../../kvm/index.js';
import { KEEPER_GONE, NOT_INSTALLED, type PasstProcess, type StartPasst } from './passt-process.js';

const MAX_WORDS_BYTES = 4096;
/**
 * What may wait for us of passt's. It sends as much as its guest's window allows (1 MiB of a guest of 256 MiB) without waiting, drops
 * what its socket does not take, and sends the whole window again.
 */
const SOCKET_BYTES = 4 * MiB;
/** What it says when nothing is wrong, of which nobody has to hear. */
const CHATTER = /^(Failed to send \d+ bytes to syslog|Don't run as root.*)$/gm;

/** By whoever may start it here. */
export const startPasst: StartPasst = (args) => {
  const keeper = passtKeeperOf();
  return keeper === undefined ? startPasstBy(spawn, args) : startKeptPasst(keeper, args);
};

/** As node:child_process has it; a parameter for tests. */
export type Spawn = (program: string, args: readonly string[], options: SpawnOptions) => ChildProcess;

/** As a child, by way of `run`. */
export function startPasstBy(run: Spawn, args: readonly string[], pairOf = socketPair): PasstProcess {
  let pair: SocketPair | undefined;
  let child: ChildProcess;
  try {
    pair = pairOf(SOCKET_BYTES);
    child = run('passt', ['--foreground', '--quiet', '--fd', '3', ...args], {
      cwd: '/',
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe', pair.other],
    });
  } catch (error) {
    // As for ENOMEM, or EMFILE.
    if (pair !== undefined) closeSync(pair.own);
    return notStarted(Promise.resolve((error as Error).message));
  } finally {
    if (pair !== undefined) closeSync(pair.other);
  }
  const failed = new Promise<string>((resolve) => {
    child.on('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code === 'ENOENT' ? NOT_INSTALLED : error.message);
    });
  });
  // Without descriptors (EMFILE, ENFILE) a child has no streams at all, whatever its type says; its 'error' follows.
  const { stdio } = child as { stdio?: ChildProcess['stdio'] };
  if (stdio === undefined) {
    closeSync(pair.own);
    return notStarted(failed);
  }
  const stream = streamOf(pair.own);
  const stderr = stdio[2] as Socket;
  const words = wordsOf(stderr);
  const ended = new Promise<string>((resolve) => {
    void failed.then(resolve);
    child.once('exit', (code, signal) => {
      // Its last words may still be on their way. The stream, which may be held, is not waited for.
      void words.then((said) => resolve(lastWords(said, `it ended with ${signal ?? `status ${code ?? 'unknown'}`}`)));
    });
  });
  return {
    stream,
    pid: child.pid,
    ended,
    keepAlive: keepAliveBy([child, stream, stderr]),
    kill: () => {
      stream.destroy();
      child.kill('SIGKILL');
    },
  };
}

/** By the keeper at the other end of that socket. It holds the words until passt has gone, and tells in them how. */
export function startKeptPasst(keeper: number, args: readonly string[], send = sendDescriptors): PasstProcess {
  const pairs: SocketPair[] = [];
  const request = Buffer.from(args.map((argument) => `${argument}\0`).join(''));
  try {
    pairs.push(socketPair(SOCKET_BYTES));
    pairs.push(socketPair(64 * KiB));
    send(
      keeper,
      request,
      pairs.map(({ other }) => other),
    );
  } catch (error) {
    for (const { own } of pairs) closeSync(own);
    const isGone = error instanceof SystemError && ['EPIPE', 'ECONNRESET'].includes(error.errno);
    return notStarted(Promise.resolve(isGone ? KEEPER_GONE : (error as Error).message));
  } finally {
    for (const { other } of pairs) closeSync(other);
  }
  const [stream, stderr] = pairs.map(({ own }) => streamOf(own)) as [Socket, Socket];
  return {
    stream,
    pid: undefined,
    ended: wordsOf(stderr).then(keptWords),
    keepAlive: keepAliveBy([stream, stderr]),
    kill: () => {
      stream.destroy();
      // The keeper takes that for what it is; the words go on until passt has gone.
      stderr.end();
    },
  };
}

/** What such a one said, or how it ended, when it said nothing. */
export function keptWords(said: string): string {
  const end = /\nit ended with (status|signal) (\d+)\n$/.exec(said);
  if (end === null) return lastWords(said, 'it ended, or was not started, without a word');
  const [, kind, number] = end as unknown as readonly [string, string, string];
  const signal = Object.entries(constants.signals).find(([, each]) => kind === 'signal' && each === Number(number));
  return lastWords(said.slice(0, end.index), `it ended with ${signal?.[0] ?? `${kind} ${number}`}`);
}

function lastWords(said: string, otherwise: string): string {
  const words = said.replace(CHATTER, '').trim().split(/\n+/).join('; ');
  return words === '' ? otherwise : words;
}

/** The last of what comes, when it has ended. */
function wordsOf(stderr: Socket): Promise<string> {
  let words = '';
  stderr.setEncoding('utf8').on('data', (text: string) => {
    words = (words + text).slice(-MAX_WORDS_BYTES);
  });
  return new Promise((resolve) => {
    stderr.once('close', () => resolve(words));
  });
}

function streamOf(fd: number): Socket {
  const stream = new Socket({ fd, readable: true, writable: true });
  return stream.on('error', () => {}); // its end follows
}

function keepAliveBy(handles: readonly { ref(): unknown; unref(): unknown }[]): (on: boolean) => void {
  return (on) => {
    for (const handle of handles) {
      if (on) handle.ref();
      else handle.unref();
    }
  };
}

/** One that never was: nothing comes from it, and what goes to it is gone. */
function notStarted(ended: Promise<string>): PasstProcess {
  const stream = new Duplex({ read: () => {}, write: (_chunk, _encoding, callback) => callback() });
  return { stream, pid: undefined, ended, keepAlive: () => {}, kill: () => void stream.destroy() };
}
