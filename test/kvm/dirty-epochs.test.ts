/**
 * Dirty bits of a running guest: a copy that is brought up to date by what a consumer takes, and nothing else, becomes
 * equal to guest memory, while the guest and this process write all the time.
 */
import { describe, expect, it } from 'vitest';
import {
  DirtyEpochs,
  KvmDirtyLog,
  OwnDirtyLog,
  type AddressSpace,
  type DirtyConsumer,
} from '../../lib/memory/index.js';
import { until } from '../lib/machine.js';
import { guestMemory, GUEST_BYTES, pagedGuest, PATTERN_GPA, progress, TAIL_GPA } from '../lib/paged-guest.js';
import { onTestFinished } from 'vitest';

const PAGE = 4096;

class Copy {
  readonly bytes: Uint8Array;
  readonly #memory: AddressSpace;
  readonly #consumer: DirtyConsumer;

  constructor(memory: AddressSpace, consumer: DirtyConsumer) {
    this.#memory = memory;
    this.#consumer = consumer;
    this.bytes = memory.read(0, GUEST_BYTES);
  }

  update(): number {
    const taken = this.#consumer.take();
    for (const page of taken) this.bytes.set(this.#memory.read(page * PAGE, PAGE), page * PAGE);
    return taken.count();
  }
}

describe('dirty epochs of a running guest', () => {
  it('miss nothing that is written while they are taken', async () => {
    const memory = guestMemory();
    onTestFinished(() => memory.close());
    const guest = await pagedGuest(memory);
    const epochs = new DirtyEpochs(GUEST_BYTES / PAGE);
    epochs.addSource(new KvmDirtyLog(guest.vm, memory));
    epochs.addSource(new OwnDirtyLog(memory));
    guest.vcpu.resume();
    await until(() => progress(memory) > 0);
    const often = new Copy(memory, epochs.consumer('often'));
    const seldom = new Copy(memory, epochs.consumer('seldom'));
    for (let round = 0; round < 30; round++) {
      const from = progress(memory);
      memory.write(TAIL_GPA + (round % 100) * PAGE, Uint8Array.of(round));
      memory.write(PATTERN_GPA + ((round * 97) % 1000) * PAGE + 100, Uint8Array.of(round + 1));
      often.update();
      if (round === 10) {
        // One that gives up takes nobody's bits along.
        const gone = epochs.consumer('gone');
        gone.take();
        gone.close();
      }
      if (round % 10 === 9) seldom.update();
      await until(() => progress(memory) !== from);
    }
    await guest.vcpu.park();
    expect(often.update()).toBeGreaterThan(0);
    seldom.update();
    const bytes = memory.read(0, GUEST_BYTES);
    expect(Buffer.compare(often.bytes, bytes)).toBe(0);
    expect(Buffer.compare(seldom.bytes, bytes)).toBe(0);
    expect([often.update(), seldom.update()]).toEqual([0, 0]);
  });
});
