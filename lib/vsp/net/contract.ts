/**
 * The contract of the class *network*: Ethernet frames between a guest and something on the host.
 *
 * | function         | meaning                                                                                     |
 * |------------------|---------------------------------------------------------------------------------------------|
 * | send             | a frame of the guest's, header and at most `mtuBytes` behind it                              |
 * | receive          | a frame for the guest                                                                        |
 * | send-checksum    | a frame leaves with its TCP or UDP checksum, where the guest left it to its device           |
 * | send-segments    | a TCP packet of up to 64 KiB leaves as segments of the size that the guest names             |
 * | receive-checksum | the guest is told of frames whose checksum was found right                                   |
 * | receive-merge    | segments of one stream that came together reach the guest as one large packet                |
 * | filter           | frames for other addresses than the guest's do not reach it                                  |
 * | link             | up or down                                                                                   |
 * | mtu              | the most bytes behind the header of a frame                                                  |
 *
 * Who validates: the proxy checks queues and what a driver says of a frame against the frame's length; the provider checks
 * sizes and drops what is no frame, counted; a backend gets nothing that it did not say it can do. Nothing of it is an
 * error towards a guest: networks lose frames. Frames of one direction keep their order.
 */
import type { BackendDescription, DeviceContract } from '../contract.js';

export const NET_FUNCTIONS = [
  'send',
  'receive',
  'send-checksum',
  'send-segments',
  'receive-checksum',
  'receive-merge',
  'filter',
  'link',
  'mtu',
] as const;

export type NetFunction = (typeof NET_FUNCTIONS)[number];

/** A frame, without its check sequence, and what of it is left to whoever carries it on. */
export interface NetFrame {
  readonly bytes: Uint8Array;
  /**
   * The checksum at `startAt + offset` is unfinished: there stands the sum of the pseudo header, and that of everything
   * from `startAt` to the end of the frame is to be added.
   */
  readonly unfinished?: { readonly startAt: number; readonly offset: number } | undefined;
  /** A TCP packet that is to be cut into segments of so many bytes of payload; its checksum is unfinished too. */
  readonly segmentBytes?: number | undefined;
  /** Whoever gave it has found its checksum right. */
  readonly checked?: boolean | undefined;
}

/** What somebody takes beside plain frames. */
export interface NetAbilities {
  /** Frames with an unfinished checksum. */
  readonly checksum: boolean;
  /** Frames that are to be cut into segments. */
  readonly segments: boolean;
}

/** The guest's side, as a proxy gives it to the provider. */
export interface NetGuestEnd extends NetAbilities {
  /**
   * Frames for the guest, in order; how many were taken, whose bytes it has copied. After fewer than all, `onGuestReady` of
   * the service follows.
   */
  receive(frames: readonly NetFrame[]): number;
  link(up: boolean): void;
  /** It is on another network now: it may say there which addresses are its own. Not every guest can be asked. */
  announce?(): void;
}

/** One device as the provider offers it to a proxy. */
export interface NetService {
  /** The device's address, as a number of 48 bits. */
  readonly mac: number;
  readonly mtuBytes: number;
  readonly linkUp: boolean;
  /** Ties the guest's side; undefined unties it, and frames for it are dropped. */
  attach(guest: NetGuestEnd | undefined): void;
  /**
   * From the guest. The frames' bytes are the service's until it returns: it may change them, and copies what it keeps.
   * False: no more, please, until `onWritable` calls.
   */
  send(frames: readonly NetFrame[]): boolean;
  onWritable: (() => void) | undefined;
  /** The guest takes frames again. */
  onGuestReady(): void;
  readonly filter: NetFilter;
  readonly contract: DeviceContract;
}

/** Which frames the guest wants. All false and empty at first: its own address and broadcasts. */
export interface NetFilter {
  /** The address that the guest gives itself. */
  setAddress(mac: number): void;
  setModes(modes: Partial<ReceiveModes>): void;
  setTables(unicast: readonly number[], multicast: readonly number[]): void;
  /** As after a reset of the device, with the device's own address again. */
  clear(): void;
}

export interface ReceiveModes {
  readonly promiscuous: boolean;
  readonly allMulticast: boolean;
  readonly allUnicast: boolean;
  readonly noMulticast: boolean;
  readonly noUnicast: boolean;
  readonly noBroadcast: boolean;
}

/** A network of the host (HAL). */
export interface NetBackend {
  /** What it takes of the guest's frames; the rest is done before. */
  readonly takes: NetAbilities;
  /** It finds out whether checksums are right, and merges segments. */
  readonly gives: { readonly checked: boolean; readonly merged: boolean };
  readonly mtuBytes: number;
  /** Ties the provider's side; called once, before anything else. */
  start(host: NetHostEnd): void;
  /** Takes all, or drops them as a network does. False: no more until `writable`. Copies what it keeps. */
  send(frames: readonly NetFrame[]): boolean;
  /** Holds input while the guest takes none; a backend that can't drops it. */
  setPaused(paused: boolean): void;
  describe(): BackendDescription;
  close(): Promise<void>;
}

/** What a backend tells the provider. */
export interface NetHostEnd {
  /** Frames for the guest. Their bytes are only read, since others may have them too, and only until this returns. */
  receive(frames: readonly NetFrame[]): void;
  writable(): void;
  link(up: boolean): void;
}
