/**
 * One end of a TCP connection (RFC 9293) for tests: opens either way, keeps order, sends again from the first byte that
 * nobody has acknowledged. No congestion control, no scaled window, no urgent data: what a short transfer over a network
 * of this host does not need.
 */

const FIN = 0x01;
const SYN = 0x02;
const RST = 0x04;
const PSH = 0x08;
const ACK = 0x10;
const WINDOW_BYTES = 65535;
/** Of an MTU of 1500 bytes. */
export const MSS_BYTES = 1460;
/** What is sent at once, for the device to cut. */
const LARGE_BYTES = 40 * MSS_BYTES;

export interface TcpSegment {
  readonly sequence: number;
  readonly acknowledged: number;
  readonly flags: number;
  readonly windowBytes: number;
  readonly payload: Uint8Array;
  readonly isFirst?: boolean;
}

const ahead = (a: number, b: number) => (a - b) | 0;

export class TinyTcp {
  isOpen = false;
  /** The other side has ended, in order. */
  hasEnded = false;
  wasReset = false;
  receivedBytes = 0;
  onData: (bytes: Uint8Array) => void = () => {};
  readonly #send: (segment: TcpSegment) => void;
  /** Not acknowledged yet, from #unacknowledged on. */
  #outgoing = new Uint8Array(0);
  #unacknowledged = 1000;
  #next = 1000;
  #expected = 0;
  #windowBytes = WINDOW_BYTES;
  #isOpening = false;

  constructor(send: (segment: TcpSegment) => void) {
    this.#send = send;
  }

  open(): void {
    this.#isOpening = true;
    this.#synchronize(SYN);
  }

  write(bytes: Uint8Array): void {
    const all = new Uint8Array(this.#outgoing.length + bytes.length);
    all.set(this.#outgoing);
    all.set(bytes, this.#outgoing.length);
    this.#outgoing = all;
    this.#pump();
  }

  /** A while has passed. */
  retry(): void {
    if (this.wasReset) return;
    if (!this.isOpen) {
      if (this.#isOpening) this.#synchronize(SYN);
      return;
    }
    this.#next = this.#unacknowledged;
    this.#pump();
  }

  take({ sequence, acknowledged, flags, windowBytes, payload }: TcpSegment): void {
    if ((flags & RST) !== 0) this.wasReset = true;
    if ((flags & SYN) !== 0) {
      this.#expected = (sequence + 1) >>> 0;
      if ((flags & ACK) === 0) this.#synchronize(SYN | ACK);
    }
    if ((flags & ACK) !== 0) this.#acknowledged(acknowledged, windowBytes);
    if ((flags & SYN) !== 0) {
      if ((flags & ACK) !== 0) this.#emit(ACK, this.#next, new Uint8Array(0));
      return;
    }
    const old = ahead(this.#expected, sequence);
    const isNew = payload.length > 0 && old >= 0 && old < payload.length;
    if (isNew) {
      const fresh = payload.subarray(old);
      this.#expected = (this.#expected + fresh.length) >>> 0;
      this.receivedBytes += fresh.length;
      this.onData(fresh);
    }
    const endsHere = (flags & FIN) !== 0 && (sequence + payload.length) >>> 0 === this.#expected;
    if (endsHere && !this.hasEnded) {
      this.hasEnded = true;
      this.#expected = (this.#expected + 1) >>> 0;
    }
    if (payload.length > 0 || (flags & FIN) !== 0) this.#emit(ACK, this.#next, new Uint8Array(0));
    this.#pump();
  }

  #acknowledged(number: number, windowBytes: number): void {
    this.#windowBytes = windowBytes;
    const count = ahead(number, this.#unacknowledged);
    if (!this.isOpen) {
      if (count !== 1) return;
      this.isOpen = true;
    } else if (count > 0) this.#outgoing = this.#outgoing.subarray(count);
    if (count <= 0) return;
    this.#unacknowledged = number;
    if (ahead(this.#next, number) < 0) this.#next = number;
  }

  #pump(): void {
    while (this.isOpen && !this.wasReset) {
      const from = ahead(this.#next, this.#unacknowledged);
      const room = Math.min(this.#windowBytes - from, LARGE_BYTES);
      const part = this.#outgoing.slice(from, from + Math.max(0, room));
      if (part.length === 0) return;
      this.#emit(ACK | PSH, this.#next, part);
      this.#next = (this.#next + part.length) >>> 0;
    }
  }

  #synchronize(flags: number): void {
    this.#next = (this.#unacknowledged + 1) >>> 0;
    this.#emit(flags, this.#unacknowledged, new Uint8Array(0), true);
  }

  #emit(flags: number, sequence: number, payload: Uint8Array, isFirst = false): void {
    const acknowledged = this.#expected;
    this.#send({ sequence, acknowledged, flags, windowBytes: WINDOW_BYTES, payload, isFirst });
  }
}
