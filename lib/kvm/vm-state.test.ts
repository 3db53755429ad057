import { describe, expect, it } from 'vitest';
import { kvmPitState2 } from '../abi/kvm-structs.js';
import { asTheGuestLeftIt, loadVm, restoreVm, saveVm } from './vm-state.js';

function pit(count: number, latch: number) {
  const state = kvmPitState2.decode(new Uint8Array(kvmPitState2.sizeBytes));
  Object.assign(state.channels[0]!, { count, write_latch: latch, mode: 2, count_load_time: 99n });
  return state;
}

const chip = (fill: number): Uint8Array => new Uint8Array(512).fill(fill);

describe('the PIT of a state', () => {
  it('has the guest’s own count, where the host had loaded another', () => {
    const raised = asTheGuestLeftIt(pit(700, 0x33), {
      own: { count: 1193, latch: 0xa9 },
      inForce: { count: 700, latch: 0x33 },
    });
    expect(raised.channels[0]).toMatchObject({ count: 1193, write_latch: 0xa9, count_load_time: 0n });
    const reloading = asTheGuestLeftIt(pit(700, 0x12), {
      own: { count: 1193, latch: 0xa9 },
      inForce: { count: 700, latch: 0x33 },
    });
    expect(reloading.channels[0]).toMatchObject({ count: 1193, write_latch: 0x12 });
    const own = { count: 1193, latch: 0xa9 };
    expect(asTheGuestLeftIt(pit(1193, 0xa9), { own, inForce: own }).channels[0]).toMatchObject({ count: 1193 });
  });

  it('is set last, after the controllers that it fires into', () => {
    const own = { count: 1193, latch: 0xa9 };
    const data = loadVm(
      saveVm({ getIrqchip: (id) => chip(id + 1), getPit: () => pit(1193, 0xa9) }, { own, inForce: own }),
    );
    const calls: unknown[] = [];
    restoreVm(
      {
        setIrqchip: (id, state) => calls.push([id, state[0]]),
        setPit: (state) => calls.push(state.channels[0]!.count),
      },
      data,
    );
    expect(calls).toEqual([[0, 1], [1, 2], [2, 3], 1193]);
  });
});
