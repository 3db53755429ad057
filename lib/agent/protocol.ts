/**
 * The protocol between the host and the guest agent (guest/agent.c), over one reliable byte stream each way.
 * Pure: frames in, frames out, no stream and no clock. The guest is hostile: every length is bounded before anything is
 * allocated, and whatever does not parse is a ProtocolError that ends the connection, never a throw in a device.
 *
 * A frame is a header of 12 bytes, little endian, and `length` bytes of payload:
 *
 * | offset | size | field                                                                     |
 * |--------|------|---------------------------------------------------------------------------|
 * | 0      | 4    | length of the payload: to the guest at most 2 MiB, to the host at most 64 KiB |
 * | 4      | 1    | type                                                                      |
 * | 5      | 1    | magic 0xa7, so that a stream out of step is noticed at once               |
 * | 6      | 2    | 0                                                                         |
 * | 8      | 4    | session: 1 to 2^32 - 1, chosen by the host; 0 for the agent itself        |
 *
 * | type | to    | name          | payload                                                                      |
 * |------|-------|---------------|------------------------------------------------------------------------------|
 * | 0x01 | guest | start         | u32 flags, u32 argc, u32 envc, u32 0; NUL-terminated: cwd, argv..., env...    |
 * | 0x02 | guest | stdin         | bytes, within the window that the agent granted                              |
 * | 0x03 | guest | stdin end     | none: the child reads end of file after all bytes before it                  |
 * | 0x04 | guest | window        | u32 stream (1 stdout, 2 stderr), u32 bytes more that the host has room for   |
 * | 0x05 | guest | signal        | u32 signal number, to the child's process group                              |
 * | 0x06 | guest | close output  | u32 stream: nobody reads it any more, so the child gets SIGPIPE              |
 * | 0x07 | guest | ping          | any bytes up to 64                                                           |
 * | 0x08 | guest | poweroff      | u32 0 power off, 1 reboot, 2 halt; after a sync                              |
 * | 0x09 | guest | set clock     | u64 nanoseconds since 1970, UTC; u64 what the guest's monotonic clock said then (may be missing: as read) |
 * | 0x0a | guest | reseed        | 1 to 64 bytes of randomness, for a guest that was cloned                      |
 * | 0x0b | guest | resize        | u32 size of the terminal: columns, and from bit 16 on rows                   |
 * | 0x0c | guest | get clock     | none                                                                          |
 * | 0x81 | host  | hello         | u32 version, u32 online CPUs, u64 memory in bytes; NUL-terminated: agent, sysname, release, version, machine, notice (may be missing) |
 * | 0x82 | host  | started       | u32 pid                                                                      |
 * | 0x83 | host  | stdout        | bytes; an empty frame is the end of the stream                               |
 * | 0x84 | host  | stderr        | the same                                                                     |
 * | 0x85 | host  | exit          | u32 kind: 0 exited, 1 killed by a signal, 2 not started; u32 status, signal or errno |
 * | 0x86 | host  | stdin window  | u32 bytes more that the agent has room for                                   |
 * | 0x87 | host  | stdin closed  | none: the child closed its stdin; what comes is dropped                      |
 * | 0x88 | host  | pong          | the ping's bytes, with the ping's session                                     |
 * | 0x89 | host  | clock         | u64 nanoseconds of the guest's monotonic clock, with the question's session   |
 *
 * Each stream of a session starts with a window of 0 towards the guest's stdin (the agent grants it after `started`) and
 * of INITIAL_WINDOW towards the host. A sender never exceeds its window. `exit` is a session's last frame: everything
 * that was in the child's pipes when it ended comes before it. Bit 0 of the flags of `start` asks for a terminal
 * in place of three pipes, whose size (as in `resize`) then stands in the last word: what it shows is stdout, stderr ends at once, and the
 * end of stdin is typed as Ctrl-D. An agent refuses a flag that it doesn't know with errno ENOTSUP.
 */
import { printable } from '../base/printable.js';

export const PROTOCOL_VERSION = 1;
export const HEADER_BYTES = 12;
export const FRAME_MAGIC = 0xa7;
/** Bounds on a payload, by direction. */
export const MAX_PAYLOAD_TO_GUEST = 2 * 1024 * 1024;
export const MAX_PAYLOAD_TO_HOST = 64 * 1024;
/** Bytes of stdout and of stderr that the agent may send before the host grants more. */
export const INITIAL_WINDOW = 512 * 1024;
export const MAX_PING_BYTES = 64;
/** Of each text in a hello; what is longer is cut. */
const MAX_TEXT_CHARS = 256;
/** What a guest is given for its random numbers when it was cloned: two keys of its generator. */
export const SEED_BYTES = 64;

export const FrameType = {
  START: 0x01,
  STDIN: 0x02,
  STDIN_END: 0x03,
  WINDOW: 0x04,
  SIGNAL: 0x05,
  CLOSE_OUTPUT: 0x06,
  PING: 0x07,
  POWEROFF: 0x08,
  SET_CLOCK: 0x09,
  RESEED: 0x0a,
  RESIZE: 0x0b,
  GET_CLOCK: 0x0c,
  HELLO: 0x81,
  STARTED: 0x82,
  STDOUT: 0x83,
  STDERR: 0x84,
  EXIT: 0x85,
  STDIN_WINDOW: 0x86,
  STDIN_CLOSED: 0x87,
  PONG: 0x88,
  CLOCK: 0x89,
} as const;

/** Numbers of the two output streams in `window` and `close output`. */
export const StreamNumber = { STDOUT: 1, STDERR: 2 } as const;
export type OutputStream = (typeof StreamNumber)[keyof typeof StreamNumber];

export const PowerAction = { POWEROFF: 0, REBOOT: 1, HALT: 2 } as const;

/** The stream of frames broke the rules above. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

/** One frame as it came; `payload` is a view that is valid until the next chunk is pushed. */
export interface Frame {
  readonly type: number;
  readonly session: number;
  readonly payload: Uint8Array;
}

/** What a child came to. */
export type ChildStatus =
  | { readonly kind: 'exited'; readonly code: number }
  | { readonly kind: 'signalled'; readonly signal: number }
  /** `errno` is Linux's number: 2 ENOENT, 13 EACCES, 8 ENOEXEC. */
  | { readonly kind: 'not-started'; readonly errno: number };

export interface GuestHello {
  readonly version: number;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly agent: string;
  readonly sysname: string;
  readonly release: string;
  readonly kernelVersion: string;
  readonly machine: string;
  /** What the guest's init has to say to whoever runs it; empty for nothing. */
  readonly notice: string;
}

/** Of a terminal, in characters. */
export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

const FLAG_TERMINAL = 1;
const MAX_CELLS = 0xffff;

/** One word for both. @throws RangeError */
function sizeWord({ columns, rows }: TerminalSize): number {
  for (const cells of [columns, rows]) {
    if (!Number.isInteger(cells) || cells < 0 || cells > MAX_CELLS)
      throw new RangeError(`a terminal of ${columns}x${rows}`);
  }
  return rows * 0x10000 + columns;
}

/** The `resize` frame. @throws RangeError */
export function encodeResize(session: number, size: TerminalSize): Uint8Array {
  return encodeWords(FrameType.RESIZE, session, sizeWord(size));
}

export interface StartRequest {
  /** Bytes where they need not be UTF-8. */
  readonly argv: readonly (string | Uint8Array)[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** A terminal of that size in place of three pipes. */
  readonly terminal?: TerminalSize | undefined;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A whole frame as bytes. */
export function encodeFrame(type: number, session: number, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + payload.length);
  const view = new DataView(frame.buffer);
  view.setUint32(0, payload.length, true);
  frame[4] = type;
  frame[5] = FRAME_MAGIC;
  view.setUint32(8, session, true);
  frame.set(payload, HEADER_BYTES);
  return frame;
}

/** A frame whose payload is 32-bit words. */
export function encodeWords(type: number, session: number, ...words: number[]): Uint8Array {
  const payload = new Uint8Array(words.length * 4);
  const view = new DataView(payload.buffer);
  words.forEach((word, index) => view.setUint32(index * 4, word, true));
  return encodeFrame(type, session, payload);
}

/**
 * What is to be run as strings: the variables as NAME=VALUE, and the bytes of all strings in their order in the frame, without NULs.
 *
 * @throws TypeError for an empty argv, a variable without a name, or a text with a NUL
 */
export function startStrings({ argv, env: variables, cwd }: StartRequest): {
  readonly env: readonly string[];
  readonly strings: readonly Uint8Array[];
} {
  if (argv.length === 0) throw new TypeError('argv: at least the command is wanted');
  const env = Object.entries(variables).map(([name, value]) => {
    if (name === '' || name.includes('=')) throw new TypeError(`env: '${name}' is no name of a variable`);
    return `${name}=${value}`;
  });
  const strings = [cwd, ...argv, ...env].map((text) => (typeof text === 'string' ? encoder.encode(text) : text));
  if (strings.some((bytes) => bytes.includes(0))) throw new TypeError('argv, env and cwd cannot hold a NUL');
  return { env, strings };
}

/**
 * The `start` frame.
 *
 * @throws TypeError for an empty argv, or a text with a NUL; RangeError when all of it is over 2 MiB.
 */
export function encodeStart(session: number, request: StartRequest): Uint8Array {
  const { env, strings } = startStrings(request);
  const payload = new Uint8Array(strings.reduce((sum, { length }) => sum + length + 1, 16));
  if (payload.length > MAX_PAYLOAD_TO_GUEST) {
    throw new RangeError(`argv and env: ${payload.length} bytes, but at most ${MAX_PAYLOAD_TO_GUEST} reach the guest`);
  }
  const view = new DataView(payload.buffer);
  view.setUint32(4, request.argv.length, true);
  view.setUint32(8, env.length, true);
  if (request.terminal !== undefined) {
    view.setUint32(0, FLAG_TERMINAL, true);
    view.setUint32(12, sizeWord(request.terminal), true);
  }
  let at = 16;
  for (const bytes of strings) {
    payload.set(bytes, at);
    at += bytes.length + 1;
  }
  return encodeFrame(FrameType.START, session, payload);
}

/** The `set clock` frame: the time of day when the guest's monotonic clock said `monotonicNs`, or when the agent reads it. */
export function encodeSetClock(unixNs: bigint, monotonicNs?: bigint): Uint8Array {
  const numbers = monotonicNs === undefined ? [unixNs] : [unixNs, monotonicNs];
  return encodeFrame(FrameType.SET_CLOCK, 0, new Uint8Array(BigUint64Array.from(numbers).buffer));
}

/** Of a `clock` frame, in nanoseconds. @throws ProtocolError when it is cut short. */
export function decodeClock(frame: Frame): bigint {
  return (BigInt(wordAt(frame, 1)) << 32n) | BigInt(wordAt(frame, 0));
}

/** One 32-bit word of a payload. @throws ProtocolError when the payload is shorter. */
export function wordAt(frame: Frame, index: number): number {
  const offset = index * 4;
  if (frame.payload.length < offset + 4) {
    throw new ProtocolError(`a frame of type 0x${frame.type.toString(16)} is only ${frame.payload.length} bytes long`);
  }
  return new DataView(frame.payload.buffer, frame.payload.byteOffset + offset, 4).getUint32(0, true);
}

/** @throws ProtocolError for a hello that is cut short. */
export function decodeHello(frame: Frame): GuestHello {
  if (frame.payload.length < 16) throw new ProtocolError('the hello of the agent is cut short');
  const view = new DataView(frame.payload.buffer, frame.payload.byteOffset, 16);
  const texts = decoder
    .decode(frame.payload.subarray(16))
    .split('\0')
    .map((text) => printable(text, MAX_TEXT_CHARS));
  if (texts.length < 6) throw new ProtocolError('the hello of the agent is cut short');
  const [agent = '', sysname = '', release = '', kernelVersion = '', machine = '', notice = ''] = texts;
  return {
    version: view.getUint32(0, true),
    cpus: view.getUint32(4, true),
    memoryBytes: Number(view.getBigUint64(8, true)),
    agent,
    sysname,
    release,
    kernelVersion,
    machine,
    notice,
  };
}

/** @throws ProtocolError for a status that Linux cannot have. */
export function decodeExit(frame: Frame): ChildStatus {
  const kind = wordAt(frame, 0);
  const value = wordAt(frame, 1);
  if (kind === 0 && value <= 255) return { kind: 'exited', code: value };
  if (kind === 1 && value >= 1 && value <= 64) return { kind: 'signalled', signal: value };
  if (kind === 2 && value >= 1 && value <= 4095) return { kind: 'not-started', errno: value };
  throw new ProtocolError(`an exit frame of kind ${kind} with ${value}`);
}
