/**
 * HEL: which frames a guest's device receives, by their destination (virtio 1.2, 5.1.6.5.1 and 5.1.6.5.2). Addresses are
 * kept as numbers of 48 bits. A driver that names more than a table holds gets all of that kind: it filters itself.
 */
import { Ether } from '../../abi/inet.js';
import type { MacFilterState } from '../state.js';
import type { NetFilter, ReceiveModes } from './contract.js';

const TABLE_ENTRIES = 256;
const BROADCAST = 0xffffffffffff;
const NO_MODES: ReceiveModes = {
  promiscuous: false,
  allMulticast: false,
  allUnicast: false,
  noMulticast: false,
  noUnicast: false,
  noBroadcast: false,
};

export class MacFilter implements NetFilter {
  readonly #device: number;
  #own: number;
  #unicast = new Set<number>();
  #multicast = new Set<number>();
  #overflow = { unicast: false, multicast: false };
  #modes = NO_MODES;

  /** `own` is the device's address. */
  constructor(own: number) {
    this.#device = this.#own = own;
  }

  /** The address that the guest has now. */
  get address(): number {
    return this.#own;
  }

  setAddress(mac: number): void {
    this.#own = mac;
  }

  setModes(modes: Partial<ReceiveModes>): void {
    this.#modes = { ...this.#modes, ...modes };
  }

  /** Replaces both tables. */
  setTables(unicast: readonly number[], multicast: readonly number[]): void {
    this.#overflow = { unicast: unicast.length > TABLE_ENTRIES, multicast: multicast.length > TABLE_ENTRIES };
    this.#unicast = new Set(this.#overflow.unicast ? [] : unicast);
    this.#multicast = new Set(this.#overflow.multicast ? [] : multicast);
  }

  clear(): void {
    this.#own = this.#device;
    this.#modes = NO_MODES;
    this.setTables([], []);
  }

  state(): MacFilterState {
    const { unicast, multicast } = this.#overflow;
    return {
      address: this.#own,
      modes: { ...this.#modes },
      ...(unicast ? {} : { unicast: [...this.#unicast] }),
      ...(multicast ? {} : { multicast: [...this.#multicast] }),
    };
  }

  restore({ address, modes, unicast, multicast }: MacFilterState): void {
    this.#own = address;
    this.#modes = modes;
    this.#overflow = { unicast: unicast === undefined, multicast: multicast === undefined };
    this.#unicast = new Set(unicast);
    this.#multicast = new Set(multicast);
  }

  /** Whether the guest is to see the frame. */
  accepts(frame: Uint8Array): boolean {
    if (frame.length < Ether.HEADER_BYTES) return false;
    const modes = this.#modes;
    if (modes.promiscuous) return true;
    const to = macAt(frame, Ether.DESTINATION);
    if (to === BROADCAST) return !modes.noBroadcast;
    if ((frame[Ether.DESTINATION]! & 1) !== 0) {
      if (modes.noMulticast) return false;
      return modes.allMulticast || this.#overflow.multicast || this.#multicast.has(to);
    }
    if (modes.noUnicast) return false;
    return to === this.#own || modes.allUnicast || this.#overflow.unicast || this.#unicast.has(to);
  }
}

/** The six bytes at `at` as a number; the caller has checked that they are there. */
export function macAt(bytes: Uint8Array, at: number): number {
  let value = 0;
  for (let i = 0; i < Ether.ADDRESS_BYTES; i++) value = value * 256 + bytes[at + i]!;
  return value;
}

/** The other way round. */
export function macBytes(mac: number): Uint8Array {
  return Uint8Array.from({ length: Ether.ADDRESS_BYTES }, (_, index) => Math.floor(mac / 256 ** (5 - index)) % 256);
}
