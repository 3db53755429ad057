import { describe, expect, it } from 'vitest';
import { ExitReason } from '../abi/kvm.js';
import { ExitDecoder } from './exits.js';

function run(reason: number, fill: (view: DataView) => void): ExitDecoder {
  const buffer = new ArrayBuffer(8192);
  const view = new DataView(buffer);
  view.setUint32(8, reason, true);
  fill(view);
  return new ExitDecoder(buffer);
}

describe('ExitDecoder', () => {
  it('gives a port access with a view of the mailbox', () => {
    const decoder = run(ExitReason.IO, (view) => {
      view.setUint8(32, 1); // KVM_EXIT_IO_OUT
      view.setUint8(33, 2);
      view.setUint16(34, 0x3f8, true);
      view.setUint32(36, 3, true);
      view.setBigUint64(40, 4096n, true);
      view.setUint8(4096, 0xab);
    });
    const exit = decoder.decode();
    expect(exit).toMatchObject({ kind: 'port', isWrite: true, port: 0x3f8, size: 2, count: 3 });
    if (exit.kind !== 'port') throw new Error('not a port exit');
    expect(exit.data.length).toBe(6);
    expect(exit.data[0]).toBe(0xab);
  });

  it('gives a memory access above 4 GiB exactly', () => {
    const exit = run(ExitReason.MMIO, (view) => {
      view.setBigUint64(32, 0xf_fee0_0040n, true);
      view.setUint32(48, 4, true);
      view.setUint8(52, 0);
    }).decode();
    expect(exit).toMatchObject({ kind: 'mmio', isWrite: false, gpa: 0xf_fee0_0040 });
  });

  it('finds the instruction of an emulation failure', () => {
    const exit = run(ExitReason.INTERNAL_ERROR, (view) => {
      view.setUint32(32, 1, true);
      view.setUint32(36, 4, true);
      view.setBigUint64(40, 1n, true);
      view.setUint8(48, 5);
      [0x48, 0x0f, 0xc7, 0x0f, 0xc3].forEach((byte, index) => view.setUint8(49 + index, byte));
    }).decode();
    if (exit.kind !== 'internal-error') throw new Error('not an internal error');
    expect([...(exit.instruction ?? [])]).toEqual([0x48, 0x0f, 0xc7, 0x0f, 0xc3]);
    expect(exit.data).toHaveLength(4);
  });

  it('has a case for everything, also for what it does not know', () => {
    const kinds = [
      [ExitReason.SHUTDOWN, 'shutdown'],
      [ExitReason.FAIL_ENTRY, 'fail-entry'],
      [ExitReason.SYSTEM_EVENT, 'system-event'],
      [ExitReason.HLT, 'halt'],
      [ExitReason.UNKNOWN, 'unknown'],
      [4711, 'unsupported'],
    ] as const;
    for (const [reason, kind] of kinds) expect(run(reason, () => undefined).decode().kind).toBe(kind);
  });

  it('takes no more words than there are', () => {
    const exit = run(ExitReason.SYSTEM_EVENT, (view) => view.setUint32(36, 0xffff_ffff, true)).decode();
    if (exit.kind !== 'system-event') throw new Error('not a system event');
    expect(exit.data).toHaveLength(16);
  });
});
