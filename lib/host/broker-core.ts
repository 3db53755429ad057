/**
 * The broker's mind: joins clients to the one embedded host, watches over it, and ends it when nobody needs it.
 * Takes the machine, the clock and each client's stream as parameters; opens no socket and starts no process itself.
 *
 *     starting --attached--> ready --drain--> draining --last session over--> ended
 *        |                     |  idle for long, stop                           ^
 *        +---------------------+------- failed: QEMU gone, stalled, late -------+
 */
import type { Duplex } from 'node:stream';
import type { Clock, Timer } from '../base/clock.js';
import { VmmError } from '../base/errors.js';
import { BrokerClient } from './broker-client.js';
import type { EmbeddedMachine } from './embedded-machine.js';
import { FRAME_MESSAGE, type Frame } from './frames.js';
import { Link } from './link.js';
import {
  failureOf,
  messageFrame,
  messageOf,
  ONLY_SESSION,
  type HostStatus,
  type Message,
  type SessionRequest,
} from './messages.js';
import type { SharedFolder } from './paths.js';

export interface BrokerOptions {
  readonly key: string;
  readonly clock: Clock;
  readonly startMachine: () => Promise<EmbeddedMachine>;
  readonly sharedFolders: () => readonly SharedFolder[];
  /** How long the host stays without a session. */
  readonly idleMs: number;
  /** From its start to its being ready. */
  readonly bootDeadlineMs: number;
  /** Pings go out this often; after `stallPings` without any answer the host is given up. */
  readonly pingMs: number;
  readonly stallPings: number;
  readonly log: (text: string) => void;
  /** The host takes no new clients: its socket and lock are to be given up at once. */
  readonly onRetired: () => void;
  /** All is over; called once, the last. */
  readonly onEnded: (error: VmmError | undefined) => void;
}

interface Session {
  readonly client: BrokerClient;
  readonly request: SessionRequest;
  /** False once the client has gone; the session then only winds up. */
  attended: boolean;
  /** What the client said before the host was ready; undefined from then on. */
  early: Frame[] | undefined;
}

/** How soon a start is given up when nobody waits for it any more: a Ctrl-C leaves nothing behind. */
const ABANDONED_MS = 1000;
/** How long whoever started the broker may take to connect. */
const FIRST_CLIENT_MS = 10_000;

export class Broker {
  readonly #options: BrokerOptions;
  readonly #clients = new Set<BrokerClient>();
  readonly #sessions = new Map<number, Session>();
  readonly #startedAt: string;
  readonly #startedNs: bigint;
  #state: HostStatus['state'] | 'ended' = 'starting';
  #startMs: number | undefined;
  #machine: EmbeddedMachine | undefined;
  #link: Link | undefined;
  #nextSession = 1;
  #deadline: Timer | undefined;
  #idle: Timer | undefined;
  #ping: Timer | undefined;
  #pingsUnanswered = 0;
  #pings = 0;

  constructor(options: BrokerOptions) {
    this.#options = options;
    this.#startedAt = new Date(options.clock.wallMs()).toISOString();
    this.#startedNs = options.clock.nowNs();
  }

  async start(): Promise<void> {
    const { clock, bootDeadlineMs } = this.#options;
    this.#deadline = clock.setTimer(BigInt(bootDeadlineMs) * 1_000_000n, () => {
      this.#fail(`the embedded host was not ready after ${Math.round(bootDeadlineMs / 1000)} s`);
    });
    this.#watchAbandoned(FIRST_CLIENT_MS);
    try {
      const machine = await this.#options.startMachine();
      if (this.#state === 'ended') return machine.kill();
      this.#machine = machine;
      void machine.ended.then((how) => this.#fail(how));
      this.#link = new Link(machine.port, machine.port, {
        onFrame: (frame) => this.#onInnerFrame(frame),
        onEnd: (error) => {
          if (error !== undefined) this.#fail(`the link to the embedded host broke: ${error.message}`);
        },
      });
    } catch (error) {
      this.#fail((error as Error).message);
    }
  }

  /** A new client. */
  accept(stream: Duplex): void {
    const client = new BrokerClient(stream, {
      onMessage: (message) => this.#onClientMessage(client, message),
      onFrame: (frame) => this.#toInner(client, frame),
      onGone: () => this.#onClientGone(client),
    });
    this.#clients.add(client);
  }

  status(): HostStatus {
    return {
      key: this.#options.key,
      brokerPid: process.pid,
      qemuPid: this.#machine?.pid,
      state: this.#state === 'ended' ? 'draining' : this.#state,
      sessions: this.#sessions.size,
      startedAt: this.#startedAt,
      startMs: this.#startMs,
    };
  }

  /** Ends everything at once: the sessions get `reason` as an error. */
  stop(reason = 'the embedded host was stopped'): void {
    this.#end(this.#sessions.size === 0 ? undefined : new VmmError('ERR_EMBEDDED_HOST', reason));
  }

  #onClientMessage(client: BrokerClient, message: Message): void {
    switch (message.type) {
      case 'greet':
        return client.send({ type: 'greeting', key: this.#options.key, status: this.status() });
      case 'status':
        return client.send({ type: 'status-is', status: this.status() });
      case 'drain':
        return this.#drain();
      case 'stop':
        return this.stop();
      case 'open':
        return this.#open(client, message.request);
      default:
        return this.#toInner(client, messageFrame(ONLY_SESSION, message));
    }
  }

  /** On to the process inside; what comes before it can be there is kept, in order. */
  #toInner(client: BrokerClient, frame: Frame): void {
    if (client.session === undefined) return;
    const early = this.#sessions.get(client.session)?.early;
    if (early === undefined) this.#link?.send({ ...frame, session: client.session });
    else early.push({ ...frame, session: client.session });
  }

  #start(id: number, session: Session): void {
    this.#link?.sendMessage(id, { type: 'open', request: session.request });
    for (const frame of session.early ?? []) this.#link?.send(frame);
    session.early = undefined;
  }

  #open(client: BrokerClient, request: SessionRequest): void {
    if (client.session !== undefined) return client.fail(new VmmError('ERR_STATE', 'one session a connection'));
    client.session = this.#nextSession++;
    const session: Session = { client, request, attended: true, early: [] };
    this.#sessions.set(client.session, session);
    this.#idle?.cancel();
    if (this.#startMs !== undefined) this.#start(client.session, session);
  }

  #onClientGone(client: BrokerClient): void {
    this.#clients.delete(client);
    const session = client.session === undefined ? undefined : this.#sessions.get(client.session);
    if (session !== undefined && client.session !== undefined) {
      if (this.#startMs === undefined) {
        this.#sessions.delete(client.session);
      } else {
        session.attended = false;
        this.#link?.sendMessage(client.session, { type: 'hangup' });
      }
    }
    this.#watchAbandoned(ABANDONED_MS);
  }

  #onInnerFrame(frame: Frame): void {
    this.#pingsUnanswered = 0;
    if (this.#state === 'ended') return;
    try {
      const message = frame.type === FRAME_MESSAGE ? messageOf(frame) : undefined;
      if (frame.session === 0) {
        if (message !== undefined) this.#onInnerMessage(message);
        return;
      }
      const session = this.#sessions.get(frame.session);
      if (session?.attended === true) session.client.forward(frame);
      if (message?.type === 'exit' || message?.type === 'failed') this.#onSessionOver(frame.session);
    } catch (error) {
      this.#fail((error as Error).message);
    }
  }

  #onInnerMessage(message: Message): void {
    if (message.type === 'hello') {
      const wallMs = this.#options.clock.wallMs();
      this.#link?.sendMessage(0, { type: 'attach', wallMs, folders: this.#options.sharedFolders() });
    } else if (message.type === 'attached') {
      this.#onReady();
    } else if (message.type === 'failed') {
      this.#fail(message.failure.message);
    }
  }

  #onReady(): void {
    const elapsedNs = this.#options.clock.nowNs() - this.#startedNs;
    this.#startMs = Number(elapsedNs / 1_000_000n);
    this.#deadline?.cancel();
    if (this.#state === 'starting') this.#state = 'ready';
    this.#options.log(`ready after ${this.#startMs} ms`);
    for (const [id, session] of this.#sessions) this.#start(id, session);
    for (const client of this.#clients) client.send({ type: 'ready', status: this.status() });
    this.#schedulePing();
    this.#onQuiet();
  }

  /** Pings count, not hours: while this whole machine sleeps, nothing is sent and nothing is missed. */
  #schedulePing(): void {
    this.#ping = this.#options.clock.setTimer(BigInt(this.#options.pingMs) * 1_000_000n, () => {
      if (this.#pingsUnanswered >= this.#options.stallPings) {
        const seconds = Math.round((this.#pingsUnanswered * this.#options.pingMs) / 1000);
        return this.#fail(`the embedded host has not answered for ${seconds} s`);
      }
      this.#pingsUnanswered++;
      this.#link?.sendMessage(0, { type: 'ping', count: ++this.#pings });
      this.#schedulePing();
    });
  }

  #onSessionOver(id: number): void {
    this.#sessions.delete(id);
    this.#onQuiet();
  }

  #onQuiet(): void {
    if (this.#sessions.size > 0) return;
    if (this.#state === 'draining') return this.#end(undefined);
    this.#idle?.cancel();
    this.#idle = this.#options.clock.setTimer(BigInt(this.#options.idleMs) * 1_000_000n, () => {
      if (this.#sessions.size === 0) this.#end(undefined);
    });
  }

  #drain(): void {
    if (this.#state === 'draining' || this.#state === 'ended') return;
    this.#state = 'draining';
    this.#options.onRetired();
    if (this.#sessions.size === 0) this.#end(undefined);
  }

  /** While the host starts and nobody waits for it, it need not start. */
  #watchAbandoned(delayMs: number): void {
    if (this.#startMs !== undefined || this.#clients.size > 0 || this.#state === 'ended') return;
    this.#options.clock.setTimer(BigInt(delayMs) * 1_000_000n, () => {
      if (this.#startMs === undefined && this.#clients.size === 0) this.#end(undefined);
    });
  }

  #fail(what: string): void {
    if (this.#state === 'ended') return;
    const tail = this.#machine?.consoleTail() ?? '';
    const message = tail === '' ? what : `${what}; the last lines of its console:\n${tail}`;
    this.#end(new VmmError('ERR_EMBEDDED_HOST', message));
  }

  #end(error: VmmError | undefined): void {
    if (this.#state === 'ended') return;
    const retired = this.#state === 'draining';
    this.#state = 'ended';
    for (const timer of [this.#deadline, this.#idle, this.#ping]) timer?.cancel();
    if (!retired) this.#options.onRetired();
    const failure = failureOf(error ?? new VmmError('ERR_EMBEDDED_HOST', 'the embedded host has ended'));
    for (const client of this.#clients) {
      // Whoever has heard how its session ended, or never wanted more than to ask, is told nothing more.
      const open = client.session !== undefined && this.#sessions.has(client.session);
      const waits = client.session === undefined && error !== undefined;
      client.end(open || waits ? failure : undefined);
    }
    this.#machine?.kill();
    this.#link?.destroy();
    void (this.#machine?.ended ?? Promise.resolve()).then(() => this.#options.onEnded(error));
  }
}
