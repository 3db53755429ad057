/**
 * One passt: started with one end of a socket pair, asked whether it answers, and ended. It goes by itself when the other
 * end of its socket does, so also when this process is killed; started by root it becomes `nobody` (passt(1), --fd and
 * --runas). Its own process group keeps a terminal's Ctrl-C from it. When it is started again is passt-backend.ts's
 * business.
 */
import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { EtherType } from '../../abi/inet.js';
import type { Clock } from '../../base/clock.js';
import { AbortError, VmmError } from '../../base/errors.js';
import { MiB } from '../../base/units.js';
import { socketPair, type SocketPair } from '../../kvm/index.js';
import { macBytes } from './mac-filter.js';
import { framed, FrameReader } from './stream-frames.js';

/** A passt as its user sees it: frames on a stream, and when it has ended. */
export interface PasstProcess {
  readonly stream: Duplex;
  readonly pid: number | undefined;
  /** What it said last, when it has gone. */
  readonly ended: Promise<string>;
  /** Whether this process lives on for it; true at first. */
  keepAlive(on: boolean): void;
  /** Ends it at once. */
  kill(): void;
}

/** Never throws: what can't be started, because there is no such program or no room for it, has `ended` with the reason. */
export type StartPasst = (args: readonly string[]) => PasstProcess;

/** What passt takes on its socket: a frame of Ethernet, at most as long as an IP packet. */
export const PASST_FRAMES = { minBytes: 14, maxBytes: 65535 };
/** The guest's addresses, those of QEMU's user networking, so that the host's loopback is at a known one. */
export const PASST_NETWORK = { guest: '10.0.2.15', gateway: '10.0.2.2', prefixBits: 24 };

/** How long a passt may take until it answers. */
const ANSWER_NS = 10_000_000_000n;
const MAX_WORDS_BYTES = 4096;
/**
 * What may wait for us of passt's. It sends as much as its guest's window allows (1 MiB of a guest of 256 MiB) without waiting, drops
 * what its socket does not take, and sends the whole window again.
 */
const SOCKET_BYTES = 4 * MiB;
/** What it says when nothing is wrong, of which nobody has to hear. */
const CHATTER = /^(Failed to send \d+ bytes to syslog|Don't run as root.*)$/gm;

/** As node:child_process has it; a parameter for tests. */
export type Spawn = (program: string, args: readonly string[], options: SpawnOptions) => ChildProcess;

export const startPasst: StartPasst = (args) => startPasstBy(spawn, args);

/** {@link startPasst} by way of `run`, over a pair of sockets. */
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
  const stream = new Socket({ fd: pair.own, readable: true, writable: true });
  const stderr = stdio[2] as Socket;
  let words = '';
  stderr.setEncoding('utf8').on('data', (text: string) => {
    words = (words + text).slice(-MAX_WORDS_BYTES);
  });
  const ended = new Promise<string>((resolve) => {
    void failed.then(resolve);
    child.once('exit', (code, signal) => {
      const say = () => {
        const said = words.replace(CHATTER, '').trim().split(/\n+/).join('; ');
        resolve(said === '' ? `it ended with ${signal ?? `status ${code ?? 'unknown'}`}` : said);
      };
      // Its last words may still be on their way. The stream, which may be held, is not waited for.
      if (stderr.closed) say();
      else stderr.once('close', say);
    });
  });
  stream.on('error', () => {}); // its end follows
  return {
    stream,
    pid: child.pid,
    ended,
    keepAlive: (on) => {
      for (const handle of [child, stream, stderr]) {
        if (on) handle.ref();
        else handle.unref();
      }
    },
    kill: () => {
      stream.destroy();
      child.kill('SIGKILL');
    },
  };
}

/** One that never was: nothing comes from it, and what goes to it is gone. */
function notStarted(ended: Promise<string>): PasstProcess {
  const stream = new Duplex({ read: () => {}, write: (_chunk, _encoding, callback) => callback() });
  return { stream, pid: undefined, ended, keepAlive: () => {}, kill: () => void stream.destroy() };
}

export const NOT_INSTALLED = 'passt is not installed';

/**
 * Waits for the first answer of a new passt: it is asked for its own address as a guest would (ARP, RFC 826). What else
 * it sends until then is dropped. The reader, which may have part of a frame already, goes on with the stream, which is
 * paused.
 *
 * @throws VmmError ERR_SETUP when passt is not there, ERR_DEVICE when it ended or stays silent, with what it said;
 *   AbortError. It has been ended then.
 */
export async function answered(
  passt: PasstProcess,
  options: { mac: number; clock: Clock; signal?: AbortSignal | undefined },
): Promise<FrameReader> {
  const { stream } = passt;
  const { clock, signal, mac } = options;
  const reader = new FrameReader(PASST_FRAMES);
  const request = question(mac);
  let done = () => {};
  try {
    await new Promise<void>((resolve, reject) => {
      const silent = clock.setTimer(ANSWER_NS, () => {
        reject(new VmmError('ERR_DEVICE', `passt: no answer within ${ANSWER_NS / 1_000_000_000n} s`));
      });
      const onAbort = () => reject(new AbortError(signal));
      const onData = (bytes: Uint8Array) => {
        const type = EtherType.ARP;
        if (reader.push(bytes).some((frame) => frame[12] === type >>> 8 && frame[13] === (type & 0xff))) resolve();
        else if (reader.broken !== undefined) reject(new VmmError('ERR_DEVICE', `passt: ${reader.broken}`));
      };
      void passt.ended.then((words) => reject(whyEnded(words)));
      if (signal?.aborted === true) onAbort();
      signal?.addEventListener('abort', onAbort, { once: true });
      stream.on('data', onData);
      stream.write(framed([request.length], (_, all, at) => all.set(request, at)));
      done = () => {
        silent.cancel();
        signal?.removeEventListener('abort', onAbort);
        stream.off('data', onData);
        stream.pause();
      };
    });
    return reader;
  } catch (error) {
    passt.kill();
    throw error;
  } finally {
    done();
  }
}

function whyEnded(words: string): VmmError {
  if (words === NOT_INSTALLED) {
    return new VmmError('ERR_SETUP', words, { cure: 'npm run setup, or as root: apt-get install passt' });
  }
  const cure = /bind any port/i.test(words)
    ? 'forward another port of the host; those below 1024 want privileges'
    : /interface/i.test(words)
      ? 'passt wants an interface with an address and a default route'
      : undefined;
  return new VmmError('ERR_DEVICE', `passt: ${words}`, cure === undefined ? {} : { cure });
}

/** Who has the gateway's address? As the guest would ask, in a frame of the least length. */
function question(mac: number): Uint8Array {
  const own = macBytes(mac);
  const address = (text: string) => text.split('.').map(Number);
  const frame = new Uint8Array(60);
  frame.set([
    ...[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ...own, EtherType.ARP >>> 8, EtherType.ARP & 0xff],
    ...[0, 1, 8, 0, 6, 4, 0, 1, ...own, ...address(PASST_NETWORK.guest)],
    ...[0, 0, 0, 0, 0, 0, ...address(PASST_NETWORK.gateway)],
  ]);
  return frame;
}
