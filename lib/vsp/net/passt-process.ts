/**
 * One passt as whoever uses it sees it: asked whether it answers, and ended. It goes by itself when the other end of its socket does, so
 * also when this process is killed; started by root it becomes `nobody` (passt(1), --fd and --runas). How it is started is
 * passt-start.ts's business, when it is started again passt-backend.ts's.
 */
import type { Duplex } from 'node:stream';
import { EtherType } from '../../abi/inet.js';
import type { Clock } from '../../base/clock.js';
import { AbortError, VmmError } from '../../base/errors.js';
import { macBytes } from './mac-filter.js';
import { framed, FrameReader } from './stream-frames.js';

/** Frames on a stream, and when it has ended. */
export interface PasstProcess {
  readonly stream: Duplex;
  /** Undefined also where another process has started it. */
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
/** Also the words of native/fence/keeper.c. */
export const NOT_INSTALLED = 'passt is not installed';
/** Who starts it for a process that is fenced. */
export const KEEPER_GONE = 'its keeper, outside of the fence, has gone';

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
  if (words === KEEPER_GONE) return new VmmError('ERR_DEVICE', `passt: ${words}`, { cure: 'start the machine again' });
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
