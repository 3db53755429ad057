/**
 * A switch that several processes of one user share by its name. Each has a switch of its own for its own guests; one of
 * them listens, the others have a link to it, so there is always a star and never a ring.
 *
 *   seeking --lock taken--> listening            seeking --greeted by who listens--> joined
 *   seeking --neither--> waits 10 ms, twice as long each time, at most 1 s --> seeking
 *   joined --link ends--> seeking                any --last port closed--> closed
 *
 * When the process that listens goes, one of the others gets its lock. Guests see nothing of it but lost frames, which
 * are counted. What passes on a link is switch-link.ts's, lock and socket are switch-link-place.ts's.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Clock, Timer } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import type { Logger } from '../../base/logger.js';
import type { BackendDescription } from '../contract.js';
import type { NetBackend, NetFrame, NetHostEnd } from './contract.js';
import { NetSwitch } from './switch.js';
import type { SwitchPlace } from './switch-link-place.js';
import { SwitchLink, type SwitchLinkCounts } from './switch-link.js';

export interface SwitchHubOptions {
  readonly name: string;
  readonly place: SwitchPlace;
  /** Undefined: that of the switch that is there, 1500 when there is none. */
  readonly mtuBytes: number | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
}

const DEFAULT_MTU_BYTES = 1500;
const FIRST_WAIT_NS = 10_000_000n;
const LONGEST_WAIT_NS = 1_000_000_000n;
/** How long either side may take to greet. */
const GREETING_NS = 2_000_000_000n;
/** How long the first port waits for a switch to be there at all. */
const FIRST_PORT_NS = 10_000_000_000n;

type Role = 'seeking' | 'listening' | 'joined' | 'closed';

export class SwitchHub {
  readonly #options: SwitchHubOptions;
  readonly #counts: SwitchLinkCounts = { lost: 0, badFrames: 0 };
  readonly #links = new Set<SwitchLink>();
  readonly #waiting = new Set<(error?: Error) => void>();
  #role: Role = 'seeking';
  #net: NetSwitch | undefined;
  /** The port of the own switch that leads to the one that listens; while nobody does, what goes there is lost. */
  #uplinkPort: NetBackend | undefined;
  #uplink: SwitchLink | undefined;
  #server: Server | undefined;
  #timer: Timer | undefined;
  #waitNs = FIRST_WAIT_NS;
  #handovers = 0;
  #failure: string | undefined;

  /** Begins to seek. */
  constructor(options: SwitchHubOptions) {
    this.#options = options;
    this.#seek();
  }

  /**
   * A port, once the switch is there.
   *
   * @throws VmmError ERR_DEVICE when it has another MTU, or whoever listens does not answer; ERR_STATE when it is full.
   */
  async port(mtuBytes: number | undefined): Promise<NetBackend> {
    if (this.#net === undefined) await this.#settled();
    const net = this.#net!;
    if (mtuBytes !== undefined && mtuBytes !== net.mtuBytes) throw otherMtu(net.name, mtuBytes, net.mtuBytes);
    return new SharedPort(net.port(), () => this.describe());
  }

  describe(): { role: Role; links: number; handovers: number; lostOnLinks: number; badFrames: number } {
    const { lost, badFrames } = this.#counts;
    return { role: this.#role, links: this.#links.size, handovers: this.#handovers, lostOnLinks: lost, badFrames };
  }

  /** Hands over to the others. Idempotent. */
  close(): void {
    if (this.#role === 'closed') return;
    this.#role = 'closed';
    this.#timer?.cancel();
    this.#server?.close();
    // First the lock, then the links, at whose end the others ask for it.
    this.#options.place.release();
    for (const link of this.#links) link.end('the switch is closed');
    void this.#uplinkPort?.close();
  }

  #settled(): Promise<void> {
    const { clock, name } = this.#options;
    return new Promise((resolve, reject) => {
      const tell = (error?: Error) => {
        late.cancel();
        this.#waiting.delete(tell);
        if (error === undefined) resolve();
        else reject(error);
      };
      const late = clock.setTimer(FIRST_PORT_NS, () =>
        tell(new VmmError('ERR_DEVICE', `switch ${name}: not there: ${this.#failure ?? 'whoever has it is silent'}`)),
      );
      this.#waiting.add(tell);
    });
  }

  #tellWaiting(error?: Error): void {
    for (const tell of [...this.#waiting]) tell(error);
  }

  #seek(): void {
    if (this.#role === 'closed') return;
    let isTaken = false;
    try {
      isTaken = this.#options.place.tryTake();
    } catch (error) {
      this.#later((error as Error).message);
      return;
    }
    if (isTaken) this.#listen();
    else this.#join();
  }

  #later(reason: string): void {
    if (this.#role === 'closed') return;
    this.#failure = reason;
    this.#timer = this.#options.clock.setTimer(this.#waitNs, () => this.#seek());
    this.#waitNs = this.#waitNs * 2n < LONGEST_WAIT_NS ? this.#waitNs * 2n : LONGEST_WAIT_NS;
  }

  #listen(): void {
    const { place, mtuBytes = DEFAULT_MTU_BYTES } = this.#options;
    const server = createServer((socket) => this.#accept(socket));
    // A machine that runs keeps the process alive; its network alone does not.
    server.unref();
    server.on('error', (error) => {
      // One who can't be let in comes again; there may be no descriptor for it.
      if (this.#server === server) return;
      place.release();
      this.#later(error.message);
    });
    server.listen(place.socketPath, () => {
      if (this.#role === 'closed') return;
      this.#server = server;
      this.#is('listening', this.#net?.mtuBytes ?? mtuBytes);
      void this.#uplinkPort?.close();
      this.#uplinkPort = undefined;
    });
  }

  /** Somebody joins: a port of its own for all who are behind the link. */
  #accept(socket: Socket): void {
    const { clock } = this.#options;
    const net = this.#net;
    if (net === undefined || this.#role !== 'listening') {
      socket.destroy();
      return;
    }
    let port: NetBackend;
    try {
      port = net.port();
    } catch (error) {
      if (!(error instanceof VmmError)) throw error;
      socket.destroy();
      return;
    }
    socket.unref();
    const silent = clock.setTimer(GREETING_NS, () => link.end('whoever joins is silent'));
    const link = this.#link(socket, net.mtuBytes, {
      greeted: (mtuBytes) => {
        silent.cancel();
        if (mtuBytes !== 0 && mtuBytes !== net.mtuBytes) return `an MTU of ${mtuBytes} bytes`;
        port.start(endOf((frames) => link.send(frames)));
        return undefined;
      },
      receive: (frames) => void port.send(frames),
      ended: () => {
        silent.cancel();
        void port.close();
      },
    });
  }

  #join(): void {
    const { clock, place, name } = this.#options;
    const socket = connect(place.socketPath);
    const silent = clock.setTimer(GREETING_NS, () => link.end('whoever has the switch is silent'));
    const link = this.#link(socket, this.#net?.mtuBytes ?? this.#options.mtuBytes ?? 0, {
      greeted: (mtuBytes) => {
        silent.cancel();
        const wanted = this.#net?.mtuBytes ?? this.#options.mtuBytes;
        if (wanted !== undefined && wanted !== mtuBytes) {
          // Whoever asked for another MTU is told; ports that are there go on alone until it is theirs again.
          this.#tellWaiting(otherMtu(name, wanted, mtuBytes));
          return `it has an MTU of ${mtuBytes} bytes`;
        }
        this.#uplink = link;
        this.#is('joined', mtuBytes);
        socket.unref();
        return undefined;
      },
      receive: (frames) => void this.#uplinkPort?.send(frames),
      ended: (reason) => {
        silent.cancel();
        const wasJoined = this.#uplink === link;
        this.#uplink = undefined;
        if (this.#role === 'closed') return;
        this.#role = 'seeking';
        if (wasJoined) this.#seek();
        else this.#later(reason);
      },
    });
  }

  #link(stream: Socket, mtuBytes: number, user: ConstructorParameters<typeof SwitchLink>[2]): SwitchLink {
    const ended = (reason: string) => {
      this.#links.delete(link);
      user.ended(reason);
    };
    const link = new SwitchLink(stream, mtuBytes, { ...user, ended }, this.#counts);
    this.#links.add(link);
    return link;
  }

  #is(role: 'listening' | 'joined', mtuBytes: number): void {
    const { name, clock, logger } = this.#options;
    this.#role = role;
    this.#waitNs = FIRST_WAIT_NS;
    this.#failure = undefined;
    if (this.#net === undefined) this.#net = new NetSwitch({ name, mtuBytes, clock });
    else {
      this.#handovers++;
      logger.log('info', `switch ${name}: another process had it; ${role} now`);
    }
    if (role === 'joined' && this.#uplinkPort === undefined) {
      this.#uplinkPort = this.#net.port();
      this.#uplinkPort.start(
        endOf((frames) => {
          if (this.#uplink === undefined) this.#counts.lost += frames.length;
          else this.#uplink.send(frames);
        }),
      );
    }
    this.#tellWaiting();
  }
}

function otherMtu(name: string, wantedBytes: number, hasBytes: number): VmmError {
  const message = `switch ${name}: an MTU of ${wantedBytes} bytes is wanted, and it has ${hasBytes}`;
  return new VmmError('ERR_DEVICE', message, { cure: 'the same MTU for all of its ports' });
}

function endOf(receive: (frames: readonly NetFrame[]) => void): NetHostEnd {
  return { receive, writable: () => {}, link: () => {} };
}

/** A port of the own switch, which also says how that is joined with others. */
class SharedPort implements NetBackend {
  readonly takes: NetBackend['takes'];
  readonly gives: NetBackend['gives'];
  readonly mtuBytes: number;
  readonly #port: NetBackend;
  readonly #describe: () => Record<string, string | number>;

  constructor(port: NetBackend, describe: () => Record<string, string | number>) {
    this.takes = port.takes;
    this.gives = port.gives;
    this.mtuBytes = port.mtuBytes;
    this.#port = port;
    this.#describe = describe;
  }
  start(host: NetHostEnd): void {
    this.#port.start(host);
  }
  send(frames: readonly NetFrame[]): boolean {
    return this.#port.send(frames);
  }
  setPaused(paused: boolean): void {
    this.#port.setPaused(paused);
  }
  describe(): BackendDescription {
    return { ...this.#port.describe(), ...this.#describe() };
  }
  close(): Promise<void> {
    return this.#port.close();
  }
}
