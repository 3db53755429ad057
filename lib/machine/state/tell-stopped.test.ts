import { describe, expect, it } from 'vitest';
import { Msr } from '../../abi/x86.js';
import { KvmError } from '../../base/errors.js';
import { FakeGuestMemory } from '../../memory/fake.js';
import { tellStopped } from './tell-stopped.js';

const AT = 0x1040;
const refused = (errno: string) => new KvmError('KVM_GET_MSRS', errno, 22);

function cpu(msr: bigint | Error, clock?: Error) {
  const told: string[] = [];
  return {
    told,
    readMsrs: ([index]: readonly number[]) => {
      if (msr instanceof Error) throw msr;
      expect(index).toBe(Msr.KVM_STEAL_TIME);
      return [{ index: index!, value: msr }];
    },
    kvmclockControl: () => {
      if (clock) throw clock;
      told.push('stopped');
    },
  };
}

describe('tellStopped', () => {
  it('adds to what was stolen from each CPU that keeps an account, and leaves the rest of it', () => {
    const memory = new FakeGuestMemory(0x2000);
    memory.fill(0x1000, 0xee, 0x100);
    const view = new DataView(new ArrayBuffer(8));
    view.setBigUint64(0, 2n ** 64n - 5n, true);
    memory.write(AT, new Uint8Array(view.buffer));
    const cpus = [cpu(BigInt(AT) | 1n), cpu(BigInt(AT + 0x40))];
    tellStopped(cpus, memory, 7n);
    expect([...memory.read(AT, 10)]).toEqual([2, 0, 0, 0, 0, 0, 0, 0, 0xee, 0xee]);
    expect([...memory.read(AT + 0x40, 8)]).toEqual(Array(8).fill(0xee));
    expect(cpus.map(({ told }) => told)).toEqual([['stopped'], ['stopped']]);
  });

  it('passes over a guest without kvmclock, a KVM without the register, and an address that is no memory', () => {
    const memory = new FakeGuestMemory(0x2000);
    const cpus = [cpu(refused('EINVAL'), refused('EINVAL')), cpu(0x2000n | 1n)];
    tellStopped(cpus, memory, 7n);
    expect([...memory.read(0, 0x2000)].some((byte) => byte !== 0)).toBe(false);
    expect(() => tellStopped([cpu(0n, refused('EIO'))], memory, 7n)).toThrow(/EIO/);
  });
});
