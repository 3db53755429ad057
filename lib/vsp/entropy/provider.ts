/**
 * The provider of entropy: bounds a request, waits for the rate limit, asks the backend, counts. A guest that asks
 * without end gets the rate, and costs the host no more than that. Buffers are the caller's own.
 */
import { hostClock, type Clock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { checkInteger } from '../../base/options.js';
import type { Savable, SavedPart } from '../../base/saved-state.js';
import { KiB, MiB } from '../../base/units.js';
import type { DeviceContract } from '../contract.js';
import { FunctionBooks } from '../function-books.js';
import { entropyProviderState } from '../state.js';
import type { EntropyBackend, EntropyService } from './contract.js';
import { openHostEntropy } from './host.js';
import { TokenBucket } from './token-bucket.js';

/** Greatest answer to one request. */
const MAX_REQUEST_BYTES = 64 * KiB;

export interface EntropyRate {
  /** Default 1 MiB. */
  readonly bytesPerSecond?: number | undefined;
  /** What may be had at once after a pause. Default 64 KiB. */
  readonly burstBytes?: number | undefined;
}

export interface EntropyProviderOptions {
  readonly id: string;
  /** Default: the host's generator. */
  readonly backend?: EntropyBackend;
  readonly rate?: EntropyRate;
  /** Default: the host's. */
  readonly clock?: Clock;
}

export class EntropyProvider implements EntropyService, Savable {
  readonly id: string;
  #backend: EntropyBackend;
  #rebinds = 0;
  readonly #clock: Clock;
  readonly #bucket: TokenBucket;
  readonly #books = new FunctionBooks(['bytes']);
  #closed: Promise<void> | undefined;

  /** @throws TypeError, RangeError for a rate that is none. */
  constructor(options: EntropyProviderOptions) {
    const { bytesPerSecond = MiB, burstBytes = MAX_REQUEST_BYTES } = options.rate ?? {};
    this.id = options.id;
    this.#backend = options.backend ?? openHostEntropy();
    this.#clock = options.clock ?? hostClock;
    this.#bucket = new TokenBucket(this.#clock, {
      ratePerSecond: checkInteger('bytesPerSecond', bytesPerSecond, 1, Number.MAX_SAFE_INTEGER),
      burst: checkInteger('burstBytes', burstBytes, 1, Number.MAX_SAFE_INTEGER),
    });
  }

  async bytes(maxBytes: number): Promise<Uint8Array> {
    checkInteger('maxBytes', maxBytes, 1, Number.MAX_SAFE_INTEGER);
    const startNs = this.#clock.nowNs();
    let failed = true;
    try {
      const granted = await this.#bucket.take(Math.min(maxBytes, MAX_REQUEST_BYTES));
      const bytes = await this.#ask(granted);
      if (this.#closed !== undefined) throw this.#closedError();
      failed = false;
      return bytes;
    } finally {
      this.#books.book(0, failed, Number(this.#clock.nowNs() - startNs));
    }
  }

  get contract(): DeviceContract {
    return {
      class: 'entropy',
      functions: this.#books.report(() => 'native'),
      backend: this.#backend.describe(),
      rebinds: this.#rebinds,
    };
  }

  /** Another generator from now on; requests that the old one has are answered by it. @throws VmmError ERR_CLOSED. */
  async rebind(backend: EntropyBackend): Promise<void> {
    if (this.#closed !== undefined) throw this.#closedError();
    const old = this.#backend;
    this.#backend = backend;
    this.#rebinds++;
    // The change is made by then: nothing of the guest's hangs on the old one.
    await old.close().catch(() => undefined);
  }

  saveState(): SavedPart {
    return entropyProviderState.save({ tokens: Math.min(this.#bucket.tokens, 0xffff_ffff) });
  }

  restoreState(part: SavedPart): void {
    this.#bucket.tokens = entropyProviderState.load(part).tokens;
  }

  /** Ends what waits with ERR_CLOSED. Idempotent. */
  close(): Promise<void> {
    if (this.#closed === undefined) {
      this.#closed = this.#backend.close();
      this.#bucket.close();
    }
    return this.#closed;
  }

  /** A generator's own error says nothing about this service, whatever its code is. */
  async #ask(lengthBytes: number): Promise<Uint8Array> {
    try {
      return await this.#backend.bytes(lengthBytes);
    } catch (cause) {
      if (this.#closed !== undefined) throw this.#closedError();
      throw new VmmError('ERR_DEVICE', `entropy ${this.id}: its generator failed: ${String(cause)}`, { cause });
    }
  }

  #closedError(): VmmError {
    return new VmmError('ERR_CLOSED', `entropy ${this.id} is closed`);
  }
}
