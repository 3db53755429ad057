/** What the tests of the vCPU threads share: the rig, a few instructions, and how ports are answered. */
import { expect, onTestFinished } from 'vitest';
import { makeRig, type RigBoot, type RigVm } from './native-rig.mjs';

export const rig = makeRig();
export const { runtime } = rig;

export const PUBLISHED = 1;
export const POSTED = 2;
export const IGNORED = 4;
export const QUEUED = 8;

// Real-mode code by hand: `out port, al`, `in al, port`, `mov al, value`, `jmp $`.
export const out = (port: number): number[] => [0xe6, port];
export const input = (port: number): number[] => [0xe4, port];
export const al = (value: number): number[] => [0xb0, value];
export const spin = [0xeb, 0xfe];
export const halt = [0xf4, 0xeb, 0xfd];
/** `mov ax, segment; mov ds, ax` */
export const ds = (segment: number): number[] => [0xb8, segment & 0xff, segment >> 8, 0x8e, 0xd8];
/** `mov [offset], al` */
export const store = (offset: number): number[] => [0xa2, offset & 0xff, offset >> 8];

export function boot(options?: RigBoot): RigVm {
  const made = rig.boot(options);
  onTestFinished(() => made.close());
  return made;
}

export function failure(fields: object): Error {
  return expect.objectContaining(fields) as Error;
}

/** A zone of MMIO or ports that KVM collects. */
export function zone(address: number, sizeBytes: number, pio: boolean): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(address), true);
  view.setUint32(8, sizeBytes, true);
  view.setUint32(12, pio ? 1 : 0, true);
  return bytes;
}
