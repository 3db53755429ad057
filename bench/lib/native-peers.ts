/**
 * The peers in plain C++ (bench/native/peers.cc): the same KVM calls in a straight line on the calling thread. Built by
 * scripts/bench.mjs before a program runs.
 */
import { createRequire } from 'node:module';
import path from 'node:path';

interface Peers {
  plainExits(image: Uint8Array, exits: number): bigint;
  bareCreate(image: Uint8Array, memoryBytes: number): BareTimes;
}

/** Nanoseconds; readyNs is open() to the first port exit, totalNs to the last close. */
export interface BareTimes {
  readonly vmNs: number;
  readonly memoryNs: number;
  readonly vcpuNs: number;
  readonly firstExitNs: number;
  readonly closeNs: number;
  readonly readyNs: number;
  readonly totalNs: number;
}

const peers = createRequire(import.meta.url)(path.resolve('bench/native/build/Release/vivarium_bench.node')) as Peers;

/** Microseconds for one of `exits` port exits that follow the first. It blocks this thread, as a C program would. */
export function plainExits(image: Uint8Array, exits: number): number {
  return Number(peers.plainExits(image, exits)) / 1000 / exits;
}

/** One bare machine's whole life. */
export function bareCreate(image: Uint8Array, memoryBytes: number): BareTimes {
  return peers.bareCreate(image, memoryBytes);
}
