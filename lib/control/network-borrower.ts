/**
 * The inner end of network-messages.ts: asks the process outside for another network behind a nic that is lent into the embedded host.
 * What it gives is a backend like any other, so that all that holds for a rebind holds for this one; with its start the network outside is
 * exchanged, over the streams that the nic has. A request ends with its answer, its abort, or the end of the channel.
 */
import type { Channel } from '../base/command-io.js';
import { AbortError, VmmError } from '../base/errors.js';
import { untilAborted } from '../base/turn-queue.js';
import { type CarriedNetwork, MAX_CARRIED_CHANGE, type NetBackend } from '../vsp/index.js';
import { errorOf, type Failure } from './failures.js';
import { MessageLink } from './message-link.js';
import type { NetworkAnswer, NetworkRequest } from './network-messages.js';
import type { NetworkBackend } from './schemas.js';

interface Waiting {
  resolve(answer: NetworkAnswer): void;
  reject(error: unknown): void;
}

export class NetworkBorrower {
  readonly #link: MessageLink;
  readonly #waiting = new Map<number, Waiting>();
  #last = 0;

  constructor(channel: Channel) {
    this.#link = new MessageLink(channel, {
      onMessage: (message) => this.#onAnswer(message as NetworkAnswer),
      onEnd: () => {
        for (const waiting of this.#waiting.values()) waiting.reject(gone());
        this.#waiting.clear();
      },
    });
  }

  /**
   * Has `backend` opened outside, for the device that stands on `carried`. Closed without a start it is closed there too.
   *
   * @throws what the network throws outside; VmmError ERR_EMBEDDED_HOST when nobody is there, ERR_DEVICE when the nic's streams are not;
   *   AbortError
   */
  async open(
    device: string,
    backend: NetworkBackend,
    carried: CarriedNetwork,
    signal: AbortSignal | undefined,
  ): Promise<NetBackend> {
    if (signal?.aborted === true) throw new AbortError(signal);
    const change = this.#number();
    const drop = (): void => this.#send({ type: 'drop', change });
    try {
      const answer = await untilAborted(this.#ask({ type: 'open', change, device, backend }), signal);
      if (answer.type !== 'opened') throw outOfStep();
      const { mtuBytes, around } = answer;
      return carried.successor({ change, mtuBytes, around, take: () => this.#take(change), drop });
    } catch (error) {
      this.#waiting.delete(change);
      // It is opened all the same, or was for nothing.
      drop();
      throw error;
    }
  }

  async #take(change: number): Promise<void> {
    if ((await this.#ask({ type: 'take', change })).type !== 'taken') throw outOfStep();
  }

  /** @throws what the other end has failed with */
  async #ask(request: NetworkRequest): Promise<NetworkAnswer> {
    if (this.#link.isOver) throw gone();
    const { change } = request;
    const answered = new Promise<NetworkAnswer>((resolve, reject) => this.#waiting.set(change, { resolve, reject }));
    this.#send(request);
    const answer = await answered;
    if (answer.type === 'failed') throw errorOf(answer.failure);
    return answer;
  }

  #send(request: NetworkRequest): void {
    this.#link.send(request);
  }

  #onAnswer(answer: NetworkAnswer): void {
    requireAnswer(answer);
    const waiting = this.#waiting.get(answer.change);
    this.#waiting.delete(answer.change);
    // Nobody waits for one that was given up.
    waiting?.resolve(answer);
  }

  /** One that nobody waits with: those behind the last have been over for long. */
  #number(): number {
    do this.#last = (this.#last % MAX_CARRIED_CHANGE) + 1;
    while (this.#waiting.has(this.#last));
    return this.#last;
  }
}

function gone(): VmmError {
  return new VmmError('ERR_EMBEDDED_HOST', 'the process outside of the embedded host, which opens networks, has gone');
}

function outOfStep(): VmmError {
  return new VmmError('ERR_EMBEDDED_HOST', 'the process outside of the embedded host answers what was not asked');
}

/** @throws TypeError for what is none */
function requireAnswer(answer: NetworkAnswer): void {
  if (typeof answer.change !== 'number') throw new TypeError('an answer without a number');
  if (answer.type === 'taken' || (answer.type === 'opened' && typeof answer.mtuBytes === 'number')) return;
  const { code, message }: Partial<Failure> = answer.type === 'failed' ? answer.failure : {};
  if (typeof code !== 'string' || typeof message !== 'string') throw new TypeError('an answer that is none');
}
