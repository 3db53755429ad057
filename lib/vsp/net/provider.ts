/**
 * The provider of a network device: between the guest's end (a proxy, vdp) and a backend on the host (HAL), with what
 * either lacks done in software (HEL, adapt.ts).
 *
 *   guest -> send()    -> size -> checksum, segments unless native           -> backend.send()
 *   guest <- receive() <- what waits <- as the guest takes it <- merge, check <- filter <- host.receive()
 *
 * What the guest does not take waits, bounded; then the backend is paused, and what it still gives is dropped. It must not
 * know virtio or touch guest memory.
 */
import { hostClock, type Clock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { RateLimit, type Logger } from '../../base/logger.js';
import { checkInteger } from '../../base/options.js';
import { requestChannel, type RequestProbe } from '../../base/probes.js';
import type { Savable, SavedPart } from '../../base/saved-state.js';
import type { DeviceContract, ServedBy } from '../contract.js';
import { FunctionBooks } from '../function-books.js';
import type { Quiescable } from '../quiesce.js';
import { netProviderState } from '../state.js';
import { Announcer, announcementOf } from './announcement.js';
import { adapt, checkedFrame, mergedFrames, type AdaptCounts } from './adapt.js';
import {
  NET_FUNCTIONS,
  type NetBackend,
  type NetFrame,
  type NetFunction,
  type NetGuestEnd,
  type NetService,
} from './contract.js';
import { fits, MAX_MTU_BYTES, MIN_MTU_BYTES } from './fits.js';
import { keptFrame } from './kept-frame.js';
import { formatMac, isGroupMac } from './mac-address.js';
import { MacFilter } from './mac-filter.js';
import { startBackend } from './start-backend.js';

export interface NetProviderOptions {
  /** Whose interface it is, for probes. */
  readonly machine?: string | undefined;
  readonly id: string;
  readonly backend: NetBackend;
  readonly logger: Logger;
  /** A number of 48 bits, not a group address. */
  readonly mac: number;
  /** 68 to 65521 bytes. Default: the backend's. */
  readonly mtuBytes?: number | undefined;
  /** Default: the host's. */
  readonly clock?: Clock | undefined;
}

/** What may wait for a guest. */
const MAX_WAITING_FRAMES = 512;

const at = (name: NetFunction) => NET_FUNCTIONS.indexOf(name);
const SEND = at('send');
const RECEIVE = at('receive');
const SEND_CHECKSUM = at('send-checksum');
const SEND_SEGMENTS = at('send-segments');
const RECEIVE_CHECKSUM = at('receive-checksum');
const RECEIVE_MERGE = at('receive-merge');
const FILTER = at('filter');
const LINK = at('link');

export class NetProvider implements NetService, Quiescable, Savable {
  readonly id: string;
  readonly #machine: string | undefined;
  #mac: number;
  #mtuBytes: number;
  #filter: MacFilter;
  onWritable: (() => void) | undefined;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #complaints: RateLimit;
  readonly #announcer: Announcer;
  readonly #books = new FunctionBooks<NetFunction>(NET_FUNCTIONS);
  readonly #dropped = { noFrame: 0, filtered: 0, guestSlow: 0, noGuest: 0 };
  #backend: NetBackend;
  #guest: NetGuestEnd | undefined;
  /** As the host's user wants it, and as the backend says. */
  #link = { user: true, backend: true };
  #waiting: NetFrame[] = [];
  #paused = false;
  /** For a snapshot: the guest gets nothing. */
  #isPrepared = false;
  /** Restored, and silent since. */
  #isRestored = false;
  #rebinds = 0;
  #closed: Promise<void> | undefined;

  /** @throws RangeError for an address or an MTU that is none, or an MTU that the backend has not. */
  constructor(options: NetProviderOptions) {
    const { id, backend, clock = hostClock, logger, mtuBytes = backend.mtuBytes, mac } = options;
    this.id = id;
    this.#machine = options.machine;
    this.#mac = checkInteger('mac', mac, 1, 2 ** 48 - 1);
    if (isGroupMac(mac)) throw new RangeError(`network ${id}: the address is that of a group`);
    this.#mtuBytes = checkInteger('mtuBytes', mtuBytes, MIN_MTU_BYTES, Math.min(MAX_MTU_BYTES, backend.mtuBytes));
    this.#filter = new MacFilter(this.#mac);
    this.#clock = clock;
    this.#logger = logger;
    this.#announcer = new Announcer(clock);
    this.#complaints = new RateLimit(clock, { burst: 5, refillNs: 1_000_000_000n });
    this.#backend = backend;
    this.#start(backend);
  }

  get title(): string {
    return `nic ${this.id}`;
  }

  get mac(): number {
    return this.#mac;
  }

  get mtuBytes(): number {
    return this.#mtuBytes;
  }

  get filter(): MacFilter {
    return this.#filter;
  }

  get linkUp(): boolean {
    return this.#link.user && this.#link.backend;
  }

  get contract(): DeviceContract {
    const { takes, gives } = this.#backend;
    const native: Partial<Record<NetFunction, boolean>> = {
      'send-checksum': takes.checksum,
      'send-segments': takes.segments,
      'receive-checksum': gives.checked,
      'receive-merge': gives.merged,
      filter: false,
    };
    const by = (name: NetFunction): ServedBy => ((native[name] ?? true) ? 'native' : 'emulated');
    return {
      class: 'network',
      functions: this.#books.report(by),
      backend: this.#backend.describe(),
      rebinds: this.#rebinds,
    };
  }

  /** Frames that wait for the guest, and those that were dropped by reason. */
  inspect(): object {
    const { mtuBytes, linkUp } = this;
    const dropped = { ...this.#dropped };
    return { mac: formatMac(this.mac), mtuBytes, linkUp, waiting: this.#waiting.length, dropped };
  }

  attach(guest: NetGuestEnd | undefined): void {
    this.#guest = guest;
    this.#dropped.noGuest += this.#waiting.length;
    this.#waiting = [];
    if (guest === undefined) this.filter.clear();
    else guest.link(this.linkUp);
    this.#setPaused(this.#isPrepared);
  }

  send(frames: readonly NetFrame[]): boolean {
    if (this.#closed !== undefined || !this.linkUp) return true;
    const startNs = this.#clock.nowNs();
    const counts: AdaptCounts = { checksums: 0, segmented: 0, dropped: 0 };
    const { takes } = this.#backend;
    const out: NetFrame[] = [];
    for (const frame of frames) {
      if (fits(frame, this.mtuBytes)) adapt(frame, takes, true, out, counts);
      else counts.dropped++;
    }
    const more = out.length === 0 || this.#backend.send(out);
    const ns = Number(this.#clock.nowNs() - startNs) / Math.max(1, frames.length);
    for (const frame of frames) {
      this.#books.book(SEND, false, ns);
      this.#books.moved(SEND, frame.bytes.length);
      if (frame.segmentBytes !== undefined) this.#books.book(SEND_SEGMENTS, false, ns);
      else if (frame.unfinished !== undefined) this.#books.book(SEND_CHECKSUM, false, ns);
    }
    if (requestChannel.hasSubscribers) {
      for (const frame of frames) {
        const has =
          frame.segmentBytes !== undefined ? takes.segments : frame.unfinished === undefined || takes.checksum;
        requestChannel.publish(this.#probeOf('send', frame, ns, has));
      }
    }
    if (counts.dropped > 0) this.#drop('noFrame', counts.dropped, 'of the guest are none that can be sent');
    return more;
  }

  onGuestReady(): void {
    this.#refill();
  }

  /** The host takes the link down or up: the guest is told, and nothing passes while it is down. */
  setLink(up: boolean): void {
    this.#setLink({ user: up });
  }

  /**
   * Another network behind the same device: frames that wait for the guest stay, the guest is told nothing, but asked
   * to say where it is.
   *
   * @throws VmmError ERR_CLOSED; ERR_DEVICE for a network of a smaller MTU, and the old one goes on then.
   */
  async rebind(backend: NetBackend): Promise<void> {
    if (this.#closed !== undefined) throw new VmmError('ERR_CLOSED', `network ${this.id} is closed`);
    if (backend.mtuBytes < this.mtuBytes) {
      const message = `network ${this.id}: rebind refused: an MTU of ${backend.mtuBytes} bytes, the device has ${this.mtuBytes}`;
      throw new VmmError('ERR_DEVICE', message);
    }
    const old = this.#backend;
    this.#backend = backend;
    this.#rebinds++;
    this.#start(backend);
    if (this.#paused) backend.setPaused(true);
    this.#announce();
    // Whatever made the guest wait is gone.
    this.onWritable?.();
    try {
      await old.close();
    } catch (error) {
      // The new one serves already: this is no failure of the rebind.
      this.#logger.log('warn', `network ${this.id}: the backend before could not be closed: ${String(error)}`);
    }
  }

  /**
   * For a snapshot: frames for the guest wait, first in the backend (a tap's in the kernel), then here, bounded. What the
   * guest has sent is gone: a network.
   */
  prepare(): Promise<void> {
    if (this.#closed !== undefined) {
      return Promise.reject(new VmmError('ERR_CLOSED', `network ${this.id} is closed`));
    }
    this.#isPrepared = true;
    this.#setPaused(true);
    return Promise.resolve();
  }

  /** The end of prepare(), or of a restore: the network learns then where the guest is now. */
  resume(): void {
    if (this.#isRestored) this.#announce();
    this.#isRestored = false;
    if (!this.#isPrepared) return;
    this.#isPrepared = false;
    this.#refill();
    if (this.#guest === undefined) this.#setPaused(false);
  }

  saveState(): SavedPart {
    const { mac, mtuBytes } = this;
    const filter = this.#filter.state();
    return netProviderState.save({
      mac,
      mtuBytes,
      linkUp: this.#link.user,
      functions: [...NET_FUNCTIONS],
      filter,
    });
  }

  /**
   * The device stays what its guest knows, over whatever network this one was made with. It is prepared then.
   *
   * @throws VmmError ERR_DEVICE for a network of a smaller MTU; ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION.
   */
  restoreState(part: SavedPart): void {
    const { mac, mtuBytes, linkUp, functions, filter } = netProviderState.load(part);
    const lost = functions.filter((name) => !(NET_FUNCTIONS as readonly string[]).includes(name));
    if (lost.length > 0) throw new VmmError('ERR_SNAPSHOT', `network ${this.id} has not: ${lost.join(', ')}`);
    const has = this.#backend.mtuBytes;
    if (has < mtuBytes) {
      const message = `network ${this.id}: an MTU of ${has} bytes, the device in the snapshot has ${mtuBytes}`;
      throw new VmmError('ERR_DEVICE', message);
    }
    this.#mac = mac;
    this.#mtuBytes = mtuBytes;
    this.#filter = new MacFilter(mac);
    this.#filter.restore(filter);
    this.#link.user = linkUp;
    this.#isRestored = this.#isPrepared = true;
    this.#setPaused(true);
  }

  /** Idempotent. */
  close(): Promise<void> {
    this.#announcer.cancel();
    this.#closed ??= this.#backend.close();
    return this.#closed;
  }

  /** The guest may be silent for long, and not every one can be asked; one that can knows more addresses than we do. */
  #announce(): void {
    const backend = this.#backend;
    this.#guest?.announce?.();
    this.#announcer.begin(() => {
      if (backend !== this.#backend || !this.linkUp || this.#guest === undefined) return;
      backend.send([{ bytes: announcementOf(this.#filter.address) }]);
    });
  }

  #setLink(change: { user?: boolean; backend?: boolean }): void {
    const before = this.linkUp;
    Object.assign(this.#link, change);
    const up = this.linkUp;
    if (up === before) return;
    this.#books.book(LINK, false, 0);
    this.#guest?.link(up);
    if (up) this.onWritable?.();
  }

  #start(backend: NetBackend): void {
    const host = {
      receive: (frames: readonly NetFrame[]) => this.#receive(frames),
      writable: () => this.onWritable?.(),
      link: (up: boolean) => this.#setLink({ backend: up }),
    };
    // What the one before said of its link goes with it; with what this one says at once the guest sees one change or none.
    this.#setLink({ backend: startBackend(backend, host, () => backend === this.#backend) });
  }

  #receive(frames: readonly NetFrame[]): void {
    const guest = this.#guest;
    if (this.#closed !== undefined || !this.linkUp) return;
    if (guest === undefined) {
      this.#dropped.noGuest += frames.length;
      return;
    }
    const startNs = this.#clock.nowNs();
    const wanted = frames.filter((frame) => this.filter.accepts(frame.bytes) && fits(frame, this.mtuBytes));
    this.#dropped.filtered += frames.length - wanted.length;
    const offered = guest.segments && !this.#backend.gives.merged ? mergedFrames(wanted) : wanted;
    const counts: AdaptCounts = { checksums: 0, segmented: 0, dropped: 0 };
    const mine: NetFrame[] = [];
    for (const frame of offered) {
      const known = guest.checksum && !this.#backend.gives.checked ? checkedFrame(frame) : frame;
      if (frame.segmentBytes !== undefined) this.#books.book(RECEIVE_MERGE, false, 0);
      else if (known.checked === true) this.#books.book(RECEIVE_CHECKSUM, false, 0);
      adapt(known, guest, false, mine, counts);
      this.#books.moved(RECEIVE, known.bytes.length);
    }
    this.#dropped.noFrame += counts.dropped;
    this.#books.book(FILTER, false, 0, frames.length);
    const tookNs = Number(this.#clock.nowNs() - startNs);
    this.#books.book(RECEIVE, false, tookNs, mine.length);
    if (requestChannel.hasSubscribers) {
      for (const frame of mine) {
        const { checked, merged } = this.#backend.gives;
        const has = frame.segmentBytes !== undefined ? merged : frame.checked !== true || checked;
        requestChannel.publish(this.#probeOf('receive', frame, tookNs / mine.length, has));
      }
    }
    this.#hand(mine);
  }

  #hand(frames: readonly NetFrame[]): void {
    const taken = this.#waiting.length === 0 && !this.#isPrepared ? this.#guest!.receive(frames) : 0;
    if (taken === frames.length) return;
    const room = MAX_WAITING_FRAMES - this.#waiting.length;
    // Their bytes are somebody else's after this.
    for (const frame of frames.slice(taken, taken + room)) this.#waiting.push(keptFrame(frame));
    const lost = frames.length - taken - room;
    if (lost > 0) this.#drop('guestSlow', lost, 'for the guest, which takes none');
    this.#setPaused(true);
  }

  #refill(): void {
    if (this.#guest === undefined || this.#isPrepared) return;
    if (this.#waiting.length > 0) this.#waiting = this.#waiting.slice(this.#guest.receive(this.#waiting));
    if (this.#waiting.length === 0) this.#setPaused(false);
  }

  #setPaused(paused: boolean): void {
    if (paused === this.#paused || this.#closed !== undefined) return;
    this.#paused = paused;
    this.#backend.setPaused(paused);
  }

  #probeOf(name: 'send' | 'receive', { bytes }: NetFrame, ns: number, isNative: boolean): RequestProbe {
    return {
      machine: this.#machine,
      device: this.id,
      class: 'network',
      function: name,
      bytes: bytes.length,
      ns,
      by: isNative ? 'native' : 'emulated',
      error: undefined,
    };
  }

  #drop(reason: 'noFrame' | 'guestSlow', count: number, what: string): void {
    this.#dropped[reason] += count;
    this.#complaints.run((dropped) =>
      this.#logger.log('warn', `network ${this.id}: ${count} frames ${what}: dropped`, { dropped }),
    );
  }
}
