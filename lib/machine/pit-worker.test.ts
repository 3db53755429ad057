import { describe, expect, it } from 'vitest';
import { preferPitWorkers, type ThreadTable } from './pit-worker.js';

const KERNEL = new Set([2, 98, 101, 102, 103]);

function table(names: Record<number, string>, refuse = false): ThreadTable & { readonly preferred: number[] } {
  const preferred: number[] = [];
  return {
    preferred,
    ownPid: 100,
    pids: () => [...Object.keys(names).map(Number), 999],
    statOf(pid) {
      const name = names[pid];
      if (name === undefined) throw new Error('ENOENT');
      const flags = KERNEL.has(pid) ? 2129984 : 4194304;
      return `${pid} (${name}) I 2 0 0 0 -1 ${flags} 0 0 0 0 0 0 0 0 20 0 1 0 105`;
    },
    prefer(pid) {
      if (refuse) throw new Error('EACCES');
      preferred.push(pid);
    },
  };
}

describe('preferPitWorkers', () => {
  it('prefers those of this process, and nobody else', () => {
    const threads = table({
      2: 'kthreadd',
      98: 'kvm-pit/100',
      99: 'kvm-pit/100', // somebody who calls itself so
      100: 'node',
      101: 'kvm-pit/100',
      102: 'kvm-pit/1000',
      103: 'kvm-pit/100',
    });
    expect(preferPitWorkers(threads)).toBe(3);
    expect(threads.preferred).toEqual([98, 101, 103]);
  });

  it('makes nothing of not being allowed, or of seeing none', () => {
    expect(preferPitWorkers(table({ 101: 'kvm-pit/100' }, true))).toBe(0);
    expect(preferPitWorkers(table({ 101: 'sh' }))).toBe(0);
    expect(
      preferPitWorkers({
        ...table({}),
        pids: () => {
          throw new Error('no /proc');
        },
      }),
    ).toBe(0);
  });
});
