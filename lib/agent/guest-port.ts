/**
 * Waits for a TCP port of the guest on which something listens. The kernel's own tables tell (/proc/net/tcp and tcp6, proc_pid_net(5)), so
 * that nothing is connected to and no tool but cat is needed; they are read again and again.
 */
import { Writable } from 'node:stream';
import type { Clock } from '../base/clock.js';
import { AbortError, GuestFileError, VmmError } from '../base/errors.js';
import { sleep } from '../base/sleep.js';
import { GUEST_TOOL_ENVIRONMENT, type GuestTools } from './guest-tool.js';
import type { ChildStatus } from './protocol.js';

export interface PortWaitOptions {
  /** For the agent and the port together. Default: without end. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** A port on which something listens. */
export interface ListeningPort {
  readonly port: number;
  /** Of the guest, on which it listens: '0.0.0.0', '127.0.0.1', '[::]', ... One that is not seen from outside is among them, too. */
  readonly addresses: readonly string[];
}

/** The first looks come quickly after one another, later ones do not burden the guest. */
const [FIRST_PAUSE_MS, LONGEST_PAUSE_MS] = [50, 1000];
const MAX_PORT = 65_535;
const MAX_LINE_BYTES = 512;
const MAX_ADDRESSES = 64;

/**
 * @throws TypeError or RangeError for what is no port; VmmError ERR_TIMEOUT; ERR_AGENT when the guest ends or has another agent;
 *   GuestFileError where there is no /proc or no cat in it; AbortError
 */
export async function waitForGuestPort(
  tools: GuestTools,
  clock: Clock,
  port: number,
  { timeoutMs, signal }: PortWaitOptions = {},
): Promise<ListeningPort> {
  if (!Number.isInteger(port) || port < 1 || port > MAX_PORT)
    throw new RangeError(`port: ${port} is not between 1 and ${MAX_PORT}`);
  const over = new AbortController();
  const timer =
    timeoutMs === undefined ? undefined : clock.setTimer(BigInt(Math.ceil(timeoutMs)) * 1_000_000n, () => over.abort());
  const either = signal === undefined ? over.signal : AbortSignal.any([signal, over.signal]);
  let isAgentThere = false;
  try {
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      await tools.ready({ signal: either });
      isAgentThere = true;
      const addresses = await look(tools, port, either);
      if (addresses.length > 0) return { port, addresses };
      await sleep(clock, pauseMs, either);
    }
  } catch (error) {
    if (signal?.aborted === true) throw new AbortError(signal);
    if (!over.signal.aborted) throw error;
    const lack = isAgentThere ? `nothing listens on TCP port ${port} of the guest` : 'no agent in the guest';
    throw new VmmError('ERR_TIMEOUT', `${lack} after ${timeoutMs ?? Infinity} ms`);
  } finally {
    timer?.cancel();
  }
}

/** One look: the addresses on which something listens at the port. An agent that starts over has seen nothing. */
async function look(tools: GuestTools, port: number, signal: AbortSignal): Promise<readonly string[]> {
  const table = new SocketTable(port);
  let status: ChildStatus;
  try {
    const argv = ['cat', '/proc/net/tcp', '/proc/net/tcp6'];
    ({ status } = await tools.run({ argv, env: GUEST_TOOL_ENVIRONMENT, stdout: table, signal }));
  } catch (error) {
    // Whether the agent is gone for good is what ready() tells.
    const isGone = error instanceof VmmError && (error.code === 'ERR_AGENT' || error.code === 'ERR_STATE');
    // What has a cure is a lack: it would be there at each look.
    if (isGone && error.cure === undefined) return [];
    throw error;
  }
  if (status.kind === 'not-started')
    throw new GuestFileError(`the guest has no cat to look at its ports with`, 'ENOSYS');
  // Without IPv6 there is no second table; without any, nothing is to be seen, ever.
  if (!table.isTable) throw new GuestFileError('/proc/net/tcp in the guest can not be read', 'ENOENT');
  return table.addresses;
}

/** Takes the tables as they come and keeps what listens at one port; a guest that goes on for ever costs a line of memory. */
class SocketTable extends Writable {
  readonly addresses: string[] = [];
  /** What came begins as these tables do. */
  isTable = false;
  readonly #wanted: string;
  #rest = '';

  constructor(port: number) {
    super();
    this.#wanted = port.toString(16).toUpperCase().padStart(4, '0');
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const lines = (this.#rest + chunk.toString('latin1')).split('\n');
    this.#rest = (lines.pop() ?? '').slice(0, MAX_LINE_BYTES);
    for (const line of lines) this.#take(line);
    done();
  }

  #take(line: string): void {
    if (/^\s+sl\s+local_address\s/.test(line)) this.isTable = true;
    // The state is 0A, TCP_LISTEN (linux/net/tcp_states.h).
    const [, hex, port] =
      /^\s*\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} 0A /.exec(line) ?? [];
    if (hex === undefined || port !== this.#wanted || this.addresses.length === MAX_ADDRESSES) return;
    const address = addressOf(hex);
    if (!this.addresses.includes(address)) this.addresses.push(address);
  }
}

/** Words of 32 bits, as a little-endian machine prints them. */
function addressOf(hex: string): string {
  const bytes = hex.match(/.{8}/g)!.flatMap((word) => [...Buffer.from(word, 'hex')].reverse());
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, at) => (bytes[2 * at]! * 256 + bytes[2 * at + 1]!).toString(16));
  return new URL(`http://[${groups.join(':')}]`).hostname;
}
