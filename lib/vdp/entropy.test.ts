import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { VmmError } from '../base/errors.js';
import { FakeGuestMemory } from '../memory/fake.js';
import type { DeviceContract } from '../vsp/contract.js';
import type { EntropyService } from '../vsp/entropy/contract.js';
import { ENTROPY_RETRY_NS, EntropyDevice } from './entropy.js';
import { FakeActivation } from './fake-activation.js';
import { MockDriver } from './mock-driver.js';
import { SplitQueue } from './split-queue.js';

class FakeEntropy implements EntropyService {
  readonly contract: DeviceContract = { class: 'entropy', functions: {}, backend: { kind: 'fake' }, rebinds: 0 };
  /** Those who wait. */
  readonly waiting: { maxBytes: number; give(bytes: Uint8Array): void; fail(error: Error): void }[] = [];
  instant = false;

  bytes(maxBytes: number): Promise<Uint8Array> {
    if (this.instant) return Promise.resolve(new Uint8Array(maxBytes).fill(7));
    return new Promise((give, fail) => this.waiting.push({ maxBytes, give, fail }));
  }
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

function rig() {
  const memory = new FakeGuestMemory(1 << 20);
  const service = new FakeEntropy();
  const clock = new ManualClock();
  const device = new EntropyDevice('rng0', service, clock);
  const driver = new MockDriver(memory, { size: 64, gpa: 0x1000 });
  const activation = new FakeActivation(0n, [new SplitQueue(driver.queueOptions)]);
  device.activate(activation);
  const ask = (length: number, gpa = 0x8000) => {
    const head = driver.add([{ gpa, length, writable: true }])!;
    driver.publish();
    device.notify(0);
    return head;
  };
  return { memory, service, clock, device, driver, activation, ask };
}

describe('EntropyDevice', () => {
  it('asks for one request at a time, and answers with what it is given', async () => {
    const { memory, service, driver, activation, ask } = rig();
    const first = ask(16);
    const second = ask(0x20000, 0x9000);
    await turn();
    expect(service.waiting.map((request) => request.maxBytes)).toEqual([16]);
    service.waiting[0]!.give(Uint8Array.of(1, 2, 3));
    await turn();
    expect(memory.read(0x8000, 4)).toEqual(Uint8Array.of(1, 2, 3, 0));
    expect(service.waiting.map((request) => request.maxBytes)).toEqual([16, 65536]);
    service.waiting[1]!.give(new Uint8Array(70_000).fill(9));
    await turn();
    expect(driver.collect()).toEqual([
      { head: first, length: 3 },
      { head: second, length: 65536 },
    ]);
    expect(activation.interrupts).toEqual([0, 0]);
    ask(1);
    await turn();
    expect(service.waiting).toHaveLength(3);
  });

  it('lets others have their turn, however fast the service is', async () => {
    const { service, driver, device, ask } = rig();
    service.instant = true;
    for (let index = 0; index < 64; index++) ask(8);
    let turns = 0;
    for (let done = 0; done < 64; turns++) {
      await turn();
      done += driver.collect().length;
    }
    expect(turns).toBeGreaterThan(1);
    await turn();
    expect(device.inspect()).toMatchObject({ requests: 64, bytes: 512, waiting: false });
  });

  it('drops what comes after a reset', async () => {
    const { memory, service, device, driver, ask } = rig();
    ask(16);
    await turn();
    await device.reset();
    service.waiting[0]!.give(Uint8Array.of(1, 2, 3));
    await turn();
    expect(memory.read(0x8000, 3)).toEqual(new Uint8Array(3));
    expect(driver.usedIndex).toBe(0);
    device.notify(0);
    device.close();
  });

  it('leaves a request alone when the service is closed', async () => {
    const { service, device, driver, activation, ask } = rig();
    ask(16);
    await turn();
    service.waiting[0]!.fail(new VmmError('ERR_CLOSED', 'closed'));
    await turn();
    expect([driver.usedIndex, activation.resetReasons.length]).toEqual([0, 0]);
    expect(device.inspect()).toMatchObject({ failed: 1, waiting: false });
    ask(16);
    await turn();
    expect(service.waiting).toHaveLength(1);
  });

  it('asks again when the service failed, after a pause, and answers the request that waited', async () => {
    const { service, clock, device, driver, ask } = rig();
    const head = ask(16);
    await turn();
    service.waiting[0]!.fail(new VmmError('ERR_DEVICE', 'this time'));
    await turn();
    clock.advance(ENTROPY_RETRY_NS - 1n);
    await turn();
    expect(service.waiting).toHaveLength(1);
    expect(device.inspect()).toMatchObject({ failed: 1, waiting: true });
    clock.advance(1n);
    await turn();
    expect(service.waiting.map(({ maxBytes }) => maxBytes)).toEqual([16, 16]);
    service.waiting[1]!.give(new Uint8Array(16));
    await turn();
    expect(driver.collect()).toEqual([{ head, length: 16 }]);
    expect(device.inspect()).toMatchObject({ failed: 1, requests: 1, waiting: false });
  });

  it('asks a service that fails no more often for a guest that resets', async () => {
    const { memory, service, clock, device, ask } = rig();
    ask(16);
    await turn();
    service.waiting[0]!.fail(new Error('broken'));
    for (let round = 0; round < 10; round++) {
      await device.reset();
      const driver = new MockDriver(memory, { size: 64, gpa: 0x2000 });
      device.activate(new FakeActivation(0n, [new SplitQueue(driver.queueOptions)]));
      driver.add([{ gpa: 0x8000, length: 32, writable: true }]);
      driver.publish();
      device.notify(0);
      await turn();
    }
    expect(service.waiting).toHaveLength(1);
    clock.advance(ENTROPY_RETRY_NS);
    await turn();
    expect(service.waiting.map(({ maxBytes }) => maxBytes)).toEqual([16, 32]);
  });

  it.each([
    ['readable bytes', [{ gpa: 0x8000, length: 4 }]],
    ['no bytes', [{ gpa: 0x8000, length: 0, writable: true }]],
  ])('asks for a reset on a request of %s', async (_name, pieces) => {
    const { service, device, driver, activation } = rig();
    driver.add(pieces);
    driver.publish();
    device.notify(0);
    await turn();
    expect(activation.resetReasons).toHaveLength(1);
    expect(service.waiting).toEqual([]);
  });

  it('asks for a reset when the queue breaks', async () => {
    const { device, driver, activation } = rig();
    driver.setAvailableIndex(900);
    device.notify(0);
    await turn();
    expect(activation.resetReasons).toHaveLength(1);
  });

  it('leaves one request with the service however often the guest resets', async () => {
    const { memory, service, device, ask } = rig();
    ask(16);
    await turn();
    let driver!: MockDriver;
    for (let round = 0; round < 50; round++) {
      await device.reset();
      driver = new MockDriver(memory, { size: 64, gpa: 0x2000 });
      device.activate(new FakeActivation(0n, [new SplitQueue(driver.queueOptions)]));
      driver.add([{ gpa: 0x8000, length: 32, writable: true }]);
      driver.publish();
      device.notify(0);
      await turn();
    }
    expect(service.waiting.length).toBe(1);
    service.waiting[0]!.give(new Uint8Array(16));
    await turn();
    expect(service.waiting.map(({ maxBytes }) => maxBytes)).toEqual([16, 32]);
    service.waiting[1]!.give(new Uint8Array(32).fill(5));
    await turn();
    expect(driver.collect()).toEqual([{ head: expect.any(Number), length: 32 }]);
    expect(memory.read(0x8000, 1)).toEqual(Uint8Array.of(5));
  });
});
