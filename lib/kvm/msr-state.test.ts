import { describe, expect, it } from 'vitest';
import { KvmError } from '../base/errors.js';
import { readKnownMsrs, stateMsrs, writeKnownMsrs } from './msr-state.js';

/** A vCPU that refuses as KVM does: by the first index, those before it being done. */
class FakeCpu {
  readonly values: Map<number, bigint>;
  readonly unwritable: Set<number>;
  readonly written: number[] = [];

  constructor(values: Record<number, bigint>, unwritable: number[] = []) {
    this.values = new Map(Object.entries(values).map(([index, value]) => [Number(index), value]));
    this.unwritable = new Set(unwritable);
  }

  readMsrs(indices: readonly number[]) {
    return indices.map((index) => {
      const value = this.values.get(index);
      if (value === undefined) throw new KvmError('KVM_GET_MSRS', 'EINVAL', 22, `msr 0x${index.toString(16)}`);
      return { index, value };
    });
  }

  writeMsrs(entries: readonly { index: number; value: bigint }[]): void {
    for (const { index, value } of entries) {
      if (this.unwritable.has(index) || !this.values.has(index)) {
        throw new KvmError('KVM_SET_MSRS', 'EINVAL', 22, `msr 0x${index.toString(16)}`);
      }
      this.values.set(index, value);
      this.written.push(index);
    }
  }
}

describe('the MSRs of a state', () => {
  it('are KVM’s list, what it leaves out, and no clock', () => {
    const indices = stateMsrs([0x10, 0x174, 0x6e0, 0x277, 0x4000_0020]);
    expect(indices).toContain(0x174);
    expect(indices).toContain(0x2ff);
    expect(indices).toContain(0x47f);
    expect(indices).not.toContain(0x10);
    expect(indices).not.toContain(0x6e0);
    expect(indices).not.toContain(0x4000_0020);
    expect(new Set(indices).size).toBe(indices.length);
  });

  it('are read but for those refused, which are named', () => {
    const cpu = new FakeCpu({ 1: 5n, 3: 6n });
    expect(readKnownMsrs(cpu, [1, 2, 3, 4])).toEqual({
      entries: [
        { index: 1, value: 5n },
        { index: 3, value: 6n },
      ],
      refused: [2, 4],
    });
  });

  it('are written only where they differ, in order, and those refused are told', () => {
    const cpu = new FakeCpu({ 1: 5n, 2: 6n, 3: 7n, 4: 8n, 5: 0n }, [2, 3, 5]);
    const saved = [
      { index: 4, value: 1n },
      { index: 2, value: 6n },
      { index: 3, value: 1n },
      { index: 1, value: 2n },
      { index: 9, value: 0n },
      { index: 10, value: 3n },
      { index: 5, value: 1n },
    ];
    expect(writeKnownMsrs(cpu, saved).map(({ index }) => index)).toEqual([3, 10, 5]);
    expect(cpu.written).toEqual([4, 1]);
  });

  it('are no failure where they only tell of what was', () => {
    const cpu = new FakeCpu({ 0x1db: 0n, 1: 0n }, [0x1db]);
    const saved = [
      { index: 0x1db, value: 5n },
      { index: 1, value: 2n },
    ];
    expect(writeKnownMsrs(cpu, saved)).toEqual([]);
    expect(cpu.written).toEqual([1]);
  });

  it('do not hide a failure that is about something else', () => {
    const broken = {
      readMsrs: () => {
        throw new KvmError('KVM_GET_MSRS', 'EFAULT', 14);
      },
    };
    expect(() => readKnownMsrs(broken, [1])).toThrow(/EFAULT/);
  });
});
