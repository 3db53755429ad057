/**
 * What an answer of QEMU's guest agent says, once it is a whole line: `{"return": ...}` or `{"error": {"class", "desc"}}`. The guest is
 * hostile. JSON grows when it is parsed (a list of empty lists becomes ten times its text), so what has more parts than an answer can
 * have is refused before; texts and base64 may be long. No member is believed: each is taken by one of the functions below, or not at all.
 */
import { VmmError } from '../../base/errors.js';
import { printable } from '../../base/printable.js';

/** As many members, items and brackets as an answer may have: guest-info of a full agent has a tenth of it. */
export const MAX_PARTS = 8192;
const MAX_TEXT = 512;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const BRACKET = 0x5b;
const BRACE = 0x7b;

/** What the guest sent breaks the protocol: the two ends are out of step. */
export class QemuProtocolError extends VmmError {
  constructor(detail: string) {
    super('ERR_AGENT', `QEMU's agent in the guest broke its protocol: ${detail}`);
  }
}

/** The agent understood, and refused or failed. */
export class QemuCommandError extends VmmError {
  /** Such as 'GenericError' and 'CommandNotFound'. */
  readonly errorClass: string;
  /** In the agent's words, without control characters. */
  readonly description: string;

  constructor(command: string, errorClass: string, description: string) {
    super('ERR_AGENT', `QEMU's agent in the guest: ${command}: ${description}`);
    this.errorClass = errorClass;
    this.description = description;
  }
}

export type Members = Readonly<Record<string, unknown>>;

export type Answer =
  | { readonly kind: 'return'; readonly value: unknown }
  | { readonly kind: 'error'; readonly errorClass: string; readonly description: string };

/** @throws QemuProtocolError for what is no answer */
export function parseAnswer(line: Uint8Array): Answer {
  if (!hasFewParts(line)) throw new QemuProtocolError('an answer of too many parts');
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(line.buffer, line.byteOffset, line.length).toString('utf8'));
  } catch {
    throw new QemuProtocolError('a line that is no JSON');
  }
  const answer = membersOf(value);
  if (Object.hasOwn(answer, 'return')) return { kind: 'return', value: answer['return'] };
  if (!Object.hasOwn(answer, 'error')) throw new QemuProtocolError('an answer without return and error');
  const error = membersOf(answer['error']);
  return { kind: 'error', errorClass: textOf(error, 'class'), description: textOf(error, 'desc') };
}

/** Counts outside of texts, which are skipped as a whole. */
function hasFewParts(line: Uint8Array): boolean {
  let parts = 0;
  for (let at = 0; at < line.length; at++) {
    const byte = line[at]!;
    if (byte === QUOTE) at = endOfText(line, at + 1);
    else if (byte === COMMA || byte === COLON || byte === BRACKET || byte === BRACE) parts++;
    if (parts > MAX_PARTS) return false;
  }
  return true;
}

/** Of the closing quote; the line's length where there is none. */
function endOfText(line: Uint8Array, from: number): number {
  for (let at = line.indexOf(QUOTE, from); at >= 0; at = line.indexOf(QUOTE, at + 1)) {
    let backslashes = 0;
    while (at - backslashes > from && line[at - backslashes - 1] === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return at;
  }
  return line.length;
}

/** @throws QemuProtocolError unless it is an object */
export function membersOf(value: unknown): Members {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new QemuProtocolError('something else where an object is due');
  }
  return value as Members;
}

/** A member of its own, which a name such as 'constructor' is not by itself. */
export function memberOf(members: Members, name: string): unknown {
  return Object.hasOwn(members, name) ? members[name] : undefined;
}

/** For people: bounded, and without control characters that would steer a terminal. @throws QemuProtocolError */
export function textOf(members: Members, name: string): string {
  const value = memberOf(members, name);
  if (typeof value !== 'string') throw new QemuProtocolError(`'${name}' is no text`);
  return printable(value, MAX_TEXT);
}

/** @throws QemuProtocolError unless it is a whole number within the bounds */
export function integerOf(members: Members, name: string, min: number, max: number): number {
  const value = memberOf(members, name);
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw new QemuProtocolError(`'${name}' is no whole number from ${min} to ${max}`);
  }
  return value;
}

/** @throws QemuProtocolError */
export function booleanOf(members: Members, name: string): boolean {
  const value = memberOf(members, name);
  if (typeof value !== 'boolean') throw new QemuProtocolError(`'${name}' is neither true nor false`);
  return value;
}

/** Bytes in base64; none where the member is missing. @throws QemuProtocolError for more than `maxBytes` */
export function bytesOf(members: Members, name: string, maxBytes: number): Uint8Array {
  const value = memberOf(members, name);
  if (value === undefined) return new Uint8Array(0);
  if (typeof value !== 'string') throw new QemuProtocolError(`'${name}' is no base64`);
  const bytes = Buffer.from(value, 'base64');
  if (bytes.length > maxBytes) throw new QemuProtocolError(`'${name}' is more than ${maxBytes} bytes`);
  return bytes;
}
