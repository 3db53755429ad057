/**
 * Points that a program of the same process can watch by node:diagnostics_channel, for tracing and for counters of its own. With
 * nobody there each costs a look at `hasSubscribers`, which comes before any object is made; who subscribes is called at once, in the
 * hot path, and pays for it there.
 *
 * @example
 * import { subscribe } from 'node:diagnostics_channel';
 * subscribe('vivarium:request', ({ device, function: name, ns }) => console.log(device, name, ns));
 */
import { channel } from 'node:diagnostics_channel';

/** An exit of a vCPU that JavaScript serves, before it does; what the vCPU's thread answers or posts is not among them. */
export interface ExitProbe {
  /** Undefined where a part is used without a machine. */
  readonly machine: string | undefined;
  readonly cpu: number;
  /** 'port', 'mmio', or an exit that no guest survives. */
  readonly kind: string;
  /** Of an access: the port or guest physical address, and whether the guest writes. */
  readonly address: number | undefined;
  readonly isWrite: boolean | undefined;
}

/** A request of a disk, or a frame of a network interface, that has ended. */
export interface RequestProbe {
  readonly machine: string | undefined;
  readonly device: string;
  readonly class: 'block' | 'network';
  /** As in the device's contract. */
  readonly function: string;
  /** Of a disk: the range that was asked for. */
  readonly bytes: number;
  /** From its start to its end, without the wait for limits; of a frame, the share of those that came together. */
  readonly ns: number;
  readonly by: 'native' | 'emulated';
  /** Why it failed; undefined when it did not. */
  readonly error: string | undefined;
}

/** A decision about a guest's time. */
export interface TickProbe {
  readonly machine: string | undefined;
  readonly phase: 'nominal' | 'catch-up' | 'slow-down' | 'stand-down';
  /** Ticks that the guest is behind, negative when it is ahead. */
  readonly owed: number;
  /** What is to be fired from now on; 0 for none. */
  readonly firingHz: number;
}

export const exitChannel = channel('vivarium:exit');
export const requestChannel = channel('vivarium:request');
export const tickChannel = channel('vivarium:tick');
