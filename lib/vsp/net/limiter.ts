/**
 * HEL: the rate limits of a network device, of each direction. It belongs to the device and is put around each of its backends in turn,
 * so that a rebind keeps what is owed. What a guest sends too fast waits and holds its queue (back pressure); what comes for it too fast
 * waits, then holds the backend where that can be held, and is dropped beyond a bound. A frame counts as it passes the backend: one
 * operation, and its bytes with the Ethernet header; a large packet that the backend takes or gives whole is one.
 */
import type { Clock } from '../../base/clock.js';
import { KiB, MiB } from '../../base/units.js';
import { Budget, type DirectionLimits, type TrafficLimits } from '../sharing/budget.js';
import type { BackendDescription } from '../contract.js';
import type { NetBackend, NetFrame, NetHostEnd } from './contract.js';
import { FrameLine } from './frame-line.js';

/** A proxy hands on 64 packets of up to 64 KiB until it hears that it has to wait. */
const MAX_SEND_BYTES = 4 * MiB;
const MAX_RECEIVE_BYTES = MiB;
/** From here on the backend is held. */
const HELD_RECEIVE_BYTES = 256 * KiB;

/** Two lines while a rebind is under way. */
class Direction {
  readonly #budget: Budget;
  readonly #clock: Clock;
  readonly #lines = new Set<FrameLine>();
  /** By the lines of backends that were left. */
  #dropped = 0;

  constructor(limits: TrafficLimits, clock: Clock) {
    this.#budget = new Budget(limits, clock.nowNs());
    this.#clock = clock;
  }

  line(maxBytes: number, ends: LineEnds): FrameLine {
    const line = new FrameLine({ clock: this.#clock, budget: this.#budget, maxBytes, ...ends });
    this.#lines.add(line);
    return line;
  }

  close(line: FrameLine): void {
    line.close();
    if (this.#lines.delete(line)) this.#dropped += line.dropped;
  }

  inspect(): LimiterReport {
    const report = { waiting: 0, dropped: this.#dropped };
    for (const { waiting, dropped } of this.#lines) {
      report.waiting += waiting;
      report.dropped += dropped;
    }
    return report;
  }
}

type LineEnds = Pick<ConstructorParameters<typeof FrameLine>[0], 'give' | 'emptied'>;

export interface LimiterReport {
  /** Frames that wait, and those that were dropped. */
  readonly waiting: number;
  readonly dropped: number;
}

export class NetLimiter {
  readonly limits: DirectionLimits;
  readonly #send: Direction | undefined;
  readonly #receive: Direction | undefined;

  /** `limits` have been checked. */
  constructor(limits: DirectionLimits, clock: Clock) {
    this.limits = limits;
    this.#send = limits.send && new Direction(limits.send, clock);
    this.#receive = limits.receive && new Direction(limits.receive, clock);
  }

  /** The same backend within the limits. */
  around(backend: NetBackend): NetBackend {
    return new LimitedNetwork(backend, this.#send, this.#receive);
  }

  inspect(): { send: LimiterReport | undefined; receive: LimiterReport | undefined } {
    return { send: this.#send?.inspect(), receive: this.#receive?.inspect() };
  }
}

class LimitedNetwork implements NetBackend {
  readonly takes: NetBackend['takes'];
  readonly gives: NetBackend['gives'];
  readonly mtuBytes: number;
  readonly #backend: NetBackend;
  readonly #directions: readonly [Direction | undefined, Direction | undefined];
  readonly #send: FrameLine | undefined;
  readonly #receive: FrameLine | undefined;
  #host: NetHostEnd | undefined;
  /** By the provider, and the backend as it was told. */
  #isPaused = false;
  #isHeld = false;

  constructor(backend: NetBackend, send: Direction | undefined, receive: Direction | undefined) {
    this.takes = backend.takes;
    this.gives = backend.gives;
    this.mtuBytes = backend.mtuBytes;
    this.#backend = backend;
    this.#directions = [send, receive];
    this.#send = send?.line(MAX_SEND_BYTES, {
      give: (frames) => backend.send(frames),
      emptied: () => this.#host?.writable(),
    });
    this.#receive = receive?.line(MAX_RECEIVE_BYTES, {
      give: (frames) => {
        this.#host?.receive(frames);
        this.#hold();
        return !this.#isPaused;
      },
      emptied: () => this.#hold(),
    });
  }

  start(host: NetHostEnd): void {
    this.#host = host;
    this.#backend.start({
      receive: (frames) => {
        if (this.#receive === undefined) host.receive(frames);
        else {
          this.#receive.push(frames);
          this.#hold();
        }
      },
      writable: () => {
        // With something that waits, its end is what tells the guest.
        const waits = (this.#send?.waiting ?? 0) > 0;
        this.#send?.open(true);
        if (!waits && this.#send?.isFree !== false) host.writable();
      },
      link: (up) => host.link(up),
    });
  }

  send(frames: readonly NetFrame[]): boolean {
    if (this.#send === undefined) return this.#backend.send(frames);
    this.#send.push(frames);
    return this.#send.isFree;
  }

  setPaused(paused: boolean): void {
    this.#isPaused = paused;
    this.#receive?.open(!paused);
    this.#hold();
  }

  describe(): BackendDescription {
    return this.#backend.describe();
  }

  close(): Promise<void> {
    this.#host = undefined;
    const [send, receive] = this.#directions;
    if (this.#send !== undefined) send?.close(this.#send);
    if (this.#receive !== undefined) receive?.close(this.#receive);
    return this.#backend.close();
  }

  #hold(): void {
    const held = this.#isPaused || (this.#receive?.waitingBytes ?? 0) > HELD_RECEIVE_BYTES;
    if (held === this.#isHeld) return;
    this.#isHeld = held;
    this.#backend.setPaused(held);
  }
}
