/**
 * A rate limit: `ratePerSecond` tokens flow in, at most `burst` are kept, whoever takes waits in line. Time by an
 * injected clock; nothing runs while nobody waits.
 */
import type { Clock, Timer } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';

const NS_PER_SECOND = 1e9;

interface Waiting {
  readonly most: number;
  readonly resolve: (tokens: number) => void;
  readonly reject: (error: VmmError) => void;
}

export class TokenBucket {
  readonly #clock: Clock;
  readonly #ratePerSecond: number;
  readonly #burst: number;
  /** Parts of tokens too. */
  #tokens: number;
  #filledNs: bigint;
  #line: Waiting[] = [];
  #timer: Timer | undefined;
  #closed = false;

  constructor(clock: Clock, options: { ratePerSecond: number; burst: number }) {
    this.#clock = clock;
    this.#ratePerSecond = options.ratePerSecond;
    this.#burst = options.burst;
    this.#tokens = options.burst;
    this.#filledNs = clock.nowNs();
  }

  /** Resolves to 1 to `most` tokens, taken as soon as there is one. @throws VmmError ERR_CLOSED. */
  take(most: number): Promise<number> {
    if (this.#closed) return Promise.reject(new VmmError('ERR_CLOSED', 'the rate limit was closed'));
    return new Promise((resolve, reject) => {
      this.#line.push({ most, resolve, reject });
      if (this.#timer === undefined) this.#serve();
    });
  }

  /** Whole tokens that could be had at once. */
  get tokens(): number {
    this.#fill();
    return Math.floor(this.#tokens);
  }

  /** From a snapshot: never more than the burst. */
  set tokens(tokens: number) {
    this.#fill();
    this.#tokens = Math.min(this.#burst, tokens);
  }

  /** Rejects whoever waits. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    for (const { reject } of this.#line.splice(0)) reject(new VmmError('ERR_CLOSED', 'the rate limit was closed'));
  }

  #fill(): void {
    const nowNs = this.#clock.nowNs();
    const flowed = (Number(nowNs - this.#filledNs) * this.#ratePerSecond) / NS_PER_SECOND;
    this.#tokens = Math.min(this.#burst, this.#tokens + flowed);
    this.#filledNs = nowNs;
  }

  #serve(): void {
    this.#timer = undefined;
    this.#fill();
    while (this.#line.length > 0 && this.#tokens >= 1) {
      const { most, resolve } = this.#line.shift()!;
      const taken = Math.min(most, Math.floor(this.#tokens));
      this.#tokens -= taken;
      resolve(taken);
    }
    if (this.#line.length === 0) return;
    // For as much as the first one wants, so that a slow rate does not give it byte by byte.
    const wanted = Math.min(this.#line[0]!.most, Math.floor(this.#burst)) - this.#tokens;
    const waitNs = BigInt(Math.max(1, Math.ceil((wanted / this.#ratePerSecond) * NS_PER_SECOND)));
    this.#timer = this.#clock.setTimer(waitNs, () => this.#serve());
  }
}
