/**
 * Says where an address is now, for switches and bridges on the way, which else send frames for a guest that is silent to
 * where it was: a question for its own protocol address (RARP, RFC 903), which hypervisors send after a migration too,
 * since hardly anybody answers it. It is said again a few times: frames that were under way from the old place may come
 * later by another way, and teach that.
 */
import { Ether, EtherType } from '../../abi/inet.js';
import type { Clock, Timer } from '../../base/clock.js';
import { macBytes } from './mac-filter.js';

/** Of Ethernet without its check sequence (IEEE 802.3). */
const MIN_FRAME_BYTES = 60;
/** Ethernet, IPv4, their addresses' lengths, and "request reverse". */
const REQUEST_REVERSE = [0, 1, 8, 0, 6, 4, 0, 3];
/** From one time to the next. */
const PAUSES_NS = [50_000_000n, 150_000_000n, 300_000_000n, 1_000_000_000n];

export class Announcer {
  readonly #clock: Clock;
  #timer: Timer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls `say` now and a few times more, in place of what was begun before. */
  begin(say: () => void): void {
    this.cancel();
    const next = (round: number) => {
      say();
      const pauseNs = PAUSES_NS[round];
      if (pauseNs !== undefined) this.#timer = this.#clock.setTimer(pauseNs, () => next(round + 1));
    };
    next(0);
  }

  cancel(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }
}

export function announcementOf(mac: number): Uint8Array {
  const own = macBytes(mac);
  const noAddress = [0, 0, 0, 0];
  const frame = new Uint8Array(MIN_FRAME_BYTES);
  frame.fill(0xff, 0, Ether.SOURCE);
  frame.set(own, Ether.SOURCE);
  frame.set([EtherType.RARP >>> 8, EtherType.RARP & 0xff, ...REQUEST_REVERSE], Ether.TYPE);
  frame.set([...own, ...noAddress, ...own, ...noAddress], Ether.HEADER_BYTES + REQUEST_REVERSE.length);
  return frame;
}
