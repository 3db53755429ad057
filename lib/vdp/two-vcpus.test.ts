/**
 * Two vCPUs: one hands over a chain, another changes it while the device reads it. The other one is a real thread on
 * shared memory, which writes descriptors, tables and headers as fast as it can. Whatever the device makes of them is a
 * chain that obeys all rules, or a broken queue.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { gpa } from '../base/address.js';
import type { DeviceMemory } from '../memory/device-memory.js';
import { BlockDevice } from './block.js';
import { FakeActivation } from './fake-activation.js';
import { FakeBlockService } from './fake-block-service.js';
import { checkVector, WatchedQueue } from './fuzzing.js';
import { MockDriver } from './mock-driver.js';
import { SplitQueue } from './split-queue.js';

const SIZE = 8;
const QUEUE = 0x1000;
const TABLE = 0x10000;
const HEADER = 0x40000;
const STATUS = 0x42000;
const DATA = 0x44000;
const UNTOUCHED = 0x50000;
const END = 0x60000;

/** Guest memory that another thread sees; the hole is the one of fuzzing.ts. */
class SharedMemory implements DeviceMemory {
  readonly bytes = new Uint8Array(new SharedArrayBuffer(END));
  readonly sizeBytes = END;
  readonly ranges = [
    { gpa: gpa(0), sizeBytes: 0x20000 },
    { gpa: gpa(0x40000), sizeBytes: 0x20000 },
  ];

  contains(address: number, length: number): boolean {
    return this.ranges.some((range) => address >= range.gpa && address + length <= range.gpa + range.sizeBytes);
  }

  read(address: number, length: number): Uint8Array {
    return this.bytes.slice(address, address + length);
  }

  readInto(address: number, target: Uint8Array): void {
    target.set(this.bytes.subarray(address, address + target.length));
  }

  write(address: number, bytes: Uint8Array): void {
    this.bytes.set(bytes, address);
  }

  fill(address: number, value: number, length: number): void {
    this.bytes.fill(value, address, address + length);
  }

  view(address: number, length: number): Uint8Array {
    return this.bytes.subarray(address, address + length);
  }

  markDirty(): void {}
}

/** The other vCPU: for each word a few values, of which some make sense. */
const OTHER = `
const { workerData, parentPort } = require('node:worker_threads');
const words = new Uint32Array(workerData.buffer);
const flags = (next, bits) => (next << 16) | bits;
const descriptor = (at) => {
  const pick = (list) => list[Math.floor(Math.random() * list.length)];
  words[at] = pick([${HEADER}, ${DATA}, ${STATUS}, ${TABLE}, ${END - 8}, 0x1fff0, 0xfffffff0]);
  words[at + 1] = pick([0, 0, 0, 0, 1, 0x80000000]);
  words[at + 2] = pick([1, 16, 48, 512, 32, 0x20000, 0xffffffff]);
  words[at + 3] = flags(pick([0, 1, 2, 3, 7, 8]), pick([0, 1, 2, 3, 4, 4, 5, 6]));
};
parentPort.postMessage('ready');
for (;;) {
  for (let index = 0; index < ${SIZE}; index++) {
    descriptor((${QUEUE} + 16 * index) / 4);
    descriptor((${TABLE} + 16 * index) / 4);
  }
  words[${HEADER} / 4] = Math.floor(Math.random() * 15);
  words[${HEADER} / 4 + 2] = Math.floor(Math.random() * 300);
}
`;

describe('two vCPUs that change a chain while it is read', () => {
  const memory = new SharedMemory();
  let other: Worker;

  beforeAll(async () => {
    other = new Worker(OTHER, { eval: true, workerData: { buffer: memory.bytes.buffer } });
    await once(other, 'message');
  });

  afterAll(() => other.terminate());

  it('gain nothing from the queue', () => {
    const driver = new MockDriver(memory, { size: SIZE, gpa: QUEUE, indirect: true });
    let chains = 0;
    let broken = 0;
    for (let run = 0; run < 30_000; run++) {
      const state = { availableIndex: run & 0xffff, usedIndex: 0, inFlight: [] };
      // It checks that pieces are in RAM, and that the chain's length is what its pieces say.
      const queue = new WatchedQueue(new SplitQueue({ ...driver.queueOptions, state }));
      memory.view(driver.queueOptions.available + 4, 2 * SIZE).fill(0);
      driver.setAvailableIndex(run + 1);
      const chain = queue.pop();
      if (chain === undefined) {
        expect(queue.broken).toBeDefined();
        broken++;
        continue;
      }
      chains++;
      expect(chain.readable.gpas.length + chain.writable.gpas.length).toBeLessThanOrEqual(SIZE);
    }
    // Both happen, or the test shows nothing.
    expect(Math.min(chains, broken)).toBeGreaterThan(100);
  });

  it('gain nothing from the block device', async () => {
    const driver = new MockDriver(memory, { size: SIZE, gpa: QUEUE, indirect: true });
    memory.fill(UNTOUCHED, 0xee, END - 8 - UNTOUCHED - 0x1000);
    const service = new (class extends FakeBlockService {
      override read(...[offset, data, done]: Parameters<FakeBlockService['read']>): void {
        checkVector(data);
        // Checked by the proxy once, and what it hands on is whole sectors.
        expect(data.lengthBytes % 512).toBe(0);
        super.read(offset, data, done);
      }
      override write(...[offset, data, done]: Parameters<FakeBlockService['write']>): void {
        checkVector(data);
        expect(data.lengthBytes % 512).toBe(0);
        super.write(offset, data, done);
      }
    })(0x10000);
    service.logging = false;
    const device = new BlockDevice(service, { queueSize: SIZE });
    const answers = { used: 0, resets: 0 };
    for (let run = 0; run < 10_000; run++) {
      const state = { availableIndex: run & 0xffff, usedIndex: 0, inFlight: [] };
      const queue = new WatchedQueue(new SplitQueue({ ...driver.queueOptions, state }));
      const activation = new FakeActivation(device.features, [queue]);
      memory.view(driver.queueOptions.available + 4, 2 * SIZE).fill(0);
      driver.setAvailableIndex(run + 1);
      device.activate(activation);
      device.notify(0);
      await device.reset();
      answers.used += queue.pushed;
      answers.resets += activation.resetReasons.length;
      expect(queue.inFlight + queue.pushed).toBeLessThanOrEqual(1);
    }
    expect(Math.min(answers.used, answers.resets)).toBeGreaterThan(10);
    expect(memory.read(UNTOUCHED, 0x1000).every((byte) => byte === 0xee)).toBe(true);
  });
});
