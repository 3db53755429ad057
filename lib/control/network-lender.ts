/**
 * The outer end of network-messages.ts: opens another network for a nic that is lent into the embedded host, and puts it in the place
 * of the one that the nic is on. The new one is opened first: what fails leaves the old one as it was. What was opened and not taken is
 * closed when it is dropped, and with the channel.
 */
import type { Channel } from '../base/command-io.js';
import { VmmError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { NetBackend } from '../vsp/index.js';
import { checked } from './check.js';
import { failureOf } from './failures.js';
import { MessageLink } from './message-link.js';
import { type NetworkAnswer, NetworkRequest } from './network-messages.js';
import type { NetworkBackend } from './schemas.js';

/** Of all nics together: networks that are opened, or open, and not taken yet. */
const MAX_OPEN = 32;
const MAX_DESCRIPTION_CHARS = 4096;
const MAX_FAILURE_CHARS = 4096;

/** The nics that are lent, by the ids of their devices. */
export interface LentNetworks {
  /** @throws VmmError where no such nic is lent; what the network throws */
  open(device: string, backend: NetworkBackend, signal: AbortSignal): Promise<NetBackend>;
  /** Puts an open one in the place of what the nic is on, and closes that. @throws where nothing was changed */
  exchange(device: string, backend: NetBackend, change: number): Promise<void>;
}

interface Asked {
  readonly device: string;
  readonly dropped: AbortController;
  /** Once it is open. */
  backend: NetBackend | undefined;
}

export class NetworkLender {
  readonly #link: MessageLink;
  readonly #nics: LentNetworks;
  readonly #logger: Logger;
  /** By the numbers of their changes. */
  readonly #asked = new Map<number, Asked>();
  readonly #underWay = new Set<Promise<void>>();
  /** Networks that were not taken, by the devices that they were opened for: what one listens on is not free before it has gone. */
  readonly #closing = new Map<Promise<void>, string>();

  constructor(channel: Channel, nics: LentNetworks, logger: Logger) {
    this.#nics = nics;
    this.#logger = logger;
    this.#link = new MessageLink(channel, {
      onMessage: (message) => this.#onRequest(checked(NetworkRequest, message, 'request')),
      holdsBack: true,
      onEnd: () => {
        for (const change of [...this.#asked.keys()]) this.#drop(change);
      },
    });
  }

  /** Nothing is asked any more; settles when all that was under way has come to its end. Idempotent. */
  async close(): Promise<void> {
    this.#link.end();
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
  }

  #onRequest(request: NetworkRequest): void {
    const { change } = request;
    if (request.type === 'open') this.#open(change, request.device, request.backend);
    else if (request.type === 'take') this.#take(change);
    else this.#drop(change);
  }

  #open(change: number, device: string, backend: NetworkBackend): void {
    if (this.#asked.has(change)) throw new RangeError('a number that another request has');
    // Of one nic too, as natively: each that is taken follows the one before.
    if (Math.max(this.#asked.size, this.#underWay.size) >= MAX_OPEN) {
      const error = new VmmError('ERR_STATE', `network ${device}: ${MAX_OPEN} rebinds are under way already`);
      return this.#answerFailure(change, error);
    }
    const asked: Asked = { device, dropped: new AbortController(), backend: undefined };
    this.#asked.set(change, asked);
    const { signal } = asked.dropped;
    void this.#begin(async () => {
      try {
        await Promise.all([...this.#closing].flatMap(([closed, of]) => (of === device ? [closed] : [])));
        if (signal.aborted) return;
        const opened = await this.#nics.open(device, backend, signal);
        if (signal.aborted) return await this.#closeUnused(device, opened);
        asked.backend = opened;
        this.#answer({ type: 'opened', change, mtuBytes: opened.mtuBytes, ...descriptionOf(opened) });
      } catch (error) {
        if (signal.aborted) return;
        this.#asked.delete(change);
        this.#answerFailure(change, error);
        if (asked.backend !== undefined) await this.#closeUnused(device, asked.backend);
      }
    });
  }

  #take(change: number): void {
    const asked = this.#asked.get(change);
    if (asked?.backend === undefined) throw new RangeError('a network that is not open');
    this.#asked.delete(change);
    const { device, backend } = asked;
    void this.#begin(async () => {
      try {
        await this.#nics.exchange(device, backend, change);
        this.#answer({ type: 'taken', change });
      } catch (error) {
        this.#answerFailure(change, error);
        await this.#closeUnused(device, backend);
      }
    });
  }

  #drop(change: number): void {
    const asked = this.#asked.get(change);
    // One that has failed meanwhile is gone already.
    if (asked === undefined) return;
    this.#asked.delete(change);
    asked.dropped.abort();
    const { device, backend } = asked;
    if (backend === undefined) return;
    const closed = this.#begin(() => this.#closeUnused(device, backend)).finally(() => this.#closing.delete(closed));
    this.#closing.set(closed, device);
  }

  async #closeUnused(device: string, backend: NetBackend): Promise<void> {
    try {
      await backend.close();
    } catch (error) {
      const reason = { reason: String(error) };
      this.#logger.log('warn', `network ${device}: one that was not taken does not close`, reason);
    }
  }

  #begin(work: () => Promise<void>): Promise<void> {
    const done = work().finally(() => this.#underWay.delete(done));
    this.#underWay.add(done);
    return done;
  }

  #answer(answer: NetworkAnswer): void {
    this.#link.send(answer);
  }

  #answerFailure(change: number, error: unknown): void {
    const failure = failureOf(error);
    this.#answer({
      type: 'failed',
      change,
      failure: { ...failure, message: failure.message.slice(0, MAX_FAILURE_CHARS) },
    });
  }
}

/** One so long is of no use to anybody. */
function descriptionOf(backend: NetBackend): Partial<NetworkAnswer & { type: 'opened' }> {
  const around = backend.describe();
  return JSON.stringify(around).length > MAX_DESCRIPTION_CHARS ? {} : { around };
}
