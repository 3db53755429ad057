/**
 * The contract of the class *entropy*: one function, `bytes`: random bytes of the host's generator, good for keys.
 * Fewer than asked for is allowed, none is not: a request waits until the rate limit has room. The provider bounds a
 * request's length; the backend gives what it has.
 */
import type { BackendDescription, DeviceContract } from '../contract.js';

export interface EntropyService {
  /**
   * 1 to `maxBytes` random bytes. Resolves when the rate limit allows.
   *
   * @throws VmmError ERR_CLOSED when the service is closed, for good; ERR_DEVICE when the generator failed, and may be
   *   asked again.
   */
  bytes(maxBytes: number): Promise<Uint8Array>;
  readonly contract: DeviceContract;
}

/** A generator before it is opened: what `hostEntropy()` returns, what a machine's configuration and `rebind` take. */
export interface EntropySource {
  readonly class: 'entropy';
  describe(): BackendDescription;
  open(): EntropyBackend | Promise<EntropyBackend>;
}

export interface EntropyBackend {
  /** Exactly `lengthBytes` bytes. */
  bytes(lengthBytes: number): Promise<Uint8Array>;
  describe(): BackendDescription;
  close(): Promise<void>;
}
