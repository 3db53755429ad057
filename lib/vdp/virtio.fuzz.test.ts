/**
 * Structure-aware fuzzing of split queues and of the devices behind them: chains from well-formed to absurd, memory that
 * changes while it is read, completions in any order, resets at any moment. Nothing may throw, write where the driver
 * gave no buffer, keep more in flight than the queue holds, or go on after a reset.
 */
import { describe, expect, it } from 'vitest';
import { VirtioBlkType, VirtioConsoleEvent } from '../abi/virtio.js';
import { FUZZ_RUNS, FUZZ_TIMEOUT_MS, fuzz, Random } from '../base/fuzzing.js';
import type { IoVector } from '../memory/io-vector.js';
import type { BlockDone } from '../vsp/block/contract.js';
import type { ConsoleGuestEnd, ConsolePortService } from '../vsp/console/contract.js';
import type { DeviceContract } from '../vsp/contract.js';
import { BlockDevice } from './block.js';
import { ConsoleDevice } from './console.js';
import { EntropyDevice } from './entropy.js';
import { FakeActivation } from './fake-activation.js';
import { FakeBlockService } from './fake-block-service.js';
import { breakSomething, checkVector, FuzzMemory, randomPiece, WatchedQueue } from './fuzzing.js';
import { MockDriver, type Piece } from './mock-driver.js';
import { SplitQueue } from './split-queue.js';
import type { VirtioDevice } from './virtio-device.js';

const memory = new FuzzMemory();
const seen = { ok: 0, failed: 0, broken: 0, resets: 0, popped: 0 };

interface Rig {
  readonly random: Random;
  readonly drivers: MockDriver[];
  readonly queues: WatchedQueue[];
  readonly activation: FakeActivation;
}

/** Queues of a device, mostly laid out as they should be. */
function rig(seed: number, features: bigint, sizes: readonly number[]): Rig {
  memory.renew(seed);
  const random = new Random(seed);
  const eventIndex = random.chance(2);
  const indirect = !random.chance(4);
  const startIndex = random.chance(3) ? 65530 + random.below(6) : 0;
  const drivers = sizes.map(
    (size, index) =>
      new MockDriver(memory, { size, index, gpa: 0x1000 * (index + 1), eventIndex, indirect, startIndex }),
  );
  const queues = drivers.map(({ queueOptions }) => {
    const odd = random.chance(200);
    const used = odd ? queueOptions.used + random.below(0x40000) : queueOptions.used;
    const isOneView = Math.floor(used / 0x10000) === Math.floor((used + 6 + 8 * queueOptions.size) / 0x10000);
    return new WatchedQueue(new SplitQueue(isOneView ? { ...queueOptions, used } : queueOptions));
  });
  return { random, drivers, queues, activation: new FakeActivation(features, queues) };
}

/** Runs something of the device with its writes watched. */
function watched(queues: readonly WatchedQueue[], act: () => void): void {
  memory.mayWrite = (gpa, length) => queues.some((queue) => queue.mayWrite(gpa, length));
  act();
  memory.mayWrite = undefined;
}

/** Rounds of a driver and a device; `request` makes the pieces of one well-formed request to a queue. */
async function play(
  { random, drivers, queues, activation }: Rig,
  device: VirtioDevice,
  request: (queue: number) => Piece[],
  complete: () => void,
): Promise<void> {
  device.activate(activation);
  // Completions and starts of a device come in microtasks, too.
  memory.mayWrite = (gpa, length) => queues.some((queue) => queue.mayWrite(gpa, length));
  await Promise.resolve();
  for (let round = 1 + random.below(4); round > 0; round--) {
    const at = random.below(drivers.length);
    const driver = drivers[at]!;
    memory.mayWrite = undefined;
    for (let count = random.below(4); count > 0; count--) {
      const pieces = random.chance(5)
        ? Array.from({ length: random.below(4) }, () => randomPiece(random))
        : request(at);
      if (random.chance(8)) pieces.splice(random.below(pieces.length + 1), 1, randomPiece(random));
      if (random.chance(3) && pieces.length > 0 && pieces.length <= driver.size) driver.addIndirect(pieces, 0x50000);
      else driver.add(pieces);
    }
    driver.publish();
    if (random.chance(4)) breakSomething(random, driver);
    if (random.chance(4)) driver.publish();
    watched(queues, () => {
      device.notify(random.chance(20) ? random.below(100) : at);
      if (random.chance(2)) complete();
    });
    memory.mayWrite = (gpa, length) => queues.some((queue) => queue.mayWrite(gpa, length));
    if (random.chance(2)) await Promise.resolve();
    driver.collect();
    driver.enableInterrupts();
  }
  const used = drivers.map((driver) => driver.usedIndex);
  // Until the reset is done, reads that are under way may fill their buffers.
  const gone = device.reset();
  for (let index = 0; index < 40; index++) complete();
  await gone;
  memory.mayWrite = () => false;
  complete();
  device.notify(0);
  await Promise.resolve();
  expect(drivers.map((driver) => driver.usedIndex)).toEqual(used);
  expect(activation.resetReasons.length).toBeLessThanOrEqual(1);
  seen.broken += queues.some((queue) => queue.broken !== undefined) ? 1 : 0;
  seen.resets += activation.resetReasons.length;
  for (const queue of queues) seen.popped += queue.popped;
}

function words(gpa: number, list: readonly number[]): void {
  memory.write(gpa, new Uint8Array(Uint32Array.from(list).buffer));
}

class CheckedBlockService extends FakeBlockService {
  override read(offset: number, data: IoVector, done: BlockDone): void {
    checkVector(data);
    super.read(offset, data, count(done));
  }

  override write(offset: number, data: IoVector, done: BlockDone): void {
    checkVector(data);
    super.write(offset, data, count(done));
  }
}

function count(done: BlockDone): BlockDone {
  return (error) => {
    seen[error === undefined ? 'ok' : 'failed']++;
    done(error);
  };
}

const disk = new CheckedBlockService(0x10000);
disk.logging = false;

async function fuzzBlock(seed: number): Promise<void> {
  const features = new Random(seed ^ 0xb10c).word();
  const size = [2, 4, 8, 16][seed & 3]!;
  const it = rig(seed, BigInt(features), [size]);
  const { random } = it;
  disk.held.length = 0;
  disk.hold = !random.chance(3);
  disk.readOnly = random.chance(8);
  const device = new BlockDevice(disk, { queueSize: size });
  const { IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES } = VirtioBlkType;
  let next = 0x40000;
  const take = (length: number, writable = false) => {
    const gpa = next;
    next = next + length > 0x4f000 ? 0x40000 : next + length;
    return { gpa, length, writable };
  };
  const request = (): Piece[] => {
    const type = random.chance(16)
      ? random.word()
      : random.of([IN, IN, OUT, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES]);
    const head = take(16);
    words(head.gpa, [
      type,
      0,
      random.chance(16) ? random.word() : random.below(140),
      random.chance(32) ? 0x80000000 : 0,
    ]);
    const tail = take(1, true);
    if (type === IN) return [head, take(512 * (1 + random.below(4)), true), tail];
    if (type === OUT) return [head, take(512 * (1 + random.below(4))), tail];
    if (type === GET_ID) return [head, take(20, true), tail];
    if (type !== DISCARD && type !== WRITE_ZEROES) return [head, tail];
    const ranges = take(16 * (1 + random.below(3)));
    for (let at = 0; at < ranges.length; at += 16) {
      words(ranges.gpa + at, [random.below(130), 0, random.below(130), random.chance(8) ? random.word() : 0]);
    }
    return [head, ranges, tail];
  };
  await play(it, device, request, () => {
    const [held] = disk.held.splice(random.below(disk.held.length + 1), 1);
    held?.finish(random.chance(4) ? random.of(['io', 'unsupported', 'closed'] as const) : undefined);
  });
  device.close();
}

class FuzzPort implements ConsolePortService {
  readonly contract: DeviceContract = { class: 'console', functions: {}, backend: { kind: 'fake' }, rebinds: 0 };
  readonly name: string;
  readonly isConsole: boolean;
  readonly random: Random;
  guest: ConsoleGuestEnd | undefined;
  waiting: (() => void)[] = [];

  constructor(name: string, isConsole: boolean, random: Random) {
    this.name = name;
    this.isConsole = isConsole;
    this.random = random;
  }

  attach(guest: ConsoleGuestEnd | undefined): void {
    this.guest = guest;
  }

  output(): Promise<void> | undefined {
    seen.ok++;
    return this.random.chance(3) ? new Promise((resolve) => this.waiting.push(resolve)) : undefined;
  }

  onGuestReady(): void {
    this.guest?.offer(new Uint8Array(this.random.below(40)));
  }

  guestOpen(open: boolean): void {
    if (open) this.guest?.offer(new Uint8Array(this.random.below(100)));
  }
}

async function fuzzConsole(seed: number): Promise<void> {
  const random = new Random(seed ^ 0xc0);
  const ports = ['', 'agent', 'log']
    .slice(0, 1 + random.below(3))
    .map((name, id) => new FuzzPort(name, id === 0, random));
  const device = new ConsoleDevice('con', ports);
  const it = rig(
    seed,
    random.chance(8) ? 0n : device.features,
    device.queueSizes.map(() => 8),
  );
  let next = 0x40000;
  const request = (queue: number): Piece[] => {
    const gpa = next;
    next = next > 0x4e000 ? 0x40000 : next + 256;
    if ((queue & 1) === 0) return [{ gpa, length: 8 + random.below(90), writable: true }];
    if (queue !== 3) return [{ gpa, length: random.below(200) }];
    const { DEVICE_READY, PORT_READY, PORT_OPEN } = VirtioConsoleEvent;
    const event = random.chance(10) ? random.below(12) : random.of([DEVICE_READY, PORT_READY, PORT_OPEN]);
    words(gpa, [random.chance(10) ? random.word() : random.below(3), event | (random.below(8) === 0 ? 0 : 1 << 16)]);
    return [{ gpa, length: 8 }];
  };
  await play(it, device, request, () => {
    const port = random.of(ports);
    port.waiting.shift()?.();
    port.guest?.hostOpen(random.chance(2));
    port.guest?.resize({ columns: random.below(300), rows: random.below(100) });
    port.guest?.offer(new Uint8Array(random.below(600)));
  });
}

async function fuzzEntropy(seed: number): Promise<void> {
  const it = rig(seed, 0n, [8]);
  const waiting: ((bytes: Uint8Array) => void)[] = [];
  const device = new EntropyDevice('rng', {
    contract: { class: 'entropy', functions: {}, backend: { kind: 'fake' }, rebinds: 0 },
    bytes: (maxBytes) => {
      if (it.random.chance(2)) return Promise.resolve(new Uint8Array(maxBytes));
      return it.random.chance(20)
        ? Promise.reject(new Error('closed'))
        : new Promise((resolve) => waiting.push((bytes) => resolve(bytes.subarray(0, maxBytes))));
    },
  });
  const request = (): Piece[] => [
    { gpa: 0x40000 + it.random.below(0x8000), length: 1 + it.random.below(0x2000), writable: true },
  ];
  await play(it, device, request, () => waiting.shift()?.(new Uint8Array(1 + it.random.below(64))));
  await Promise.resolve();
}

/** The queue alone: pops, pushes and publishes at random, and once in a while goes on from its state. */
function fuzzQueue(seed: number): void {
  const size = [1, 2, 8, 32][seed & 3]!;
  const { random, drivers, queues } = rig(seed, 0n, [size]);
  const driver = drivers[0]!;
  let queue = queues[0]!;
  for (let step = 10 + random.below(20); step > 0; step--) {
    switch (random.below(9)) {
      case 0:
      case 1:
      case 2: {
        const pieces = Array.from({ length: 1 + random.below(4) }, () => randomPiece(random));
        if (!random.chance(4)) pieces.sort((a, b) => Number(a.writable) - Number(b.writable));
        if (random.chance(2) && pieces.length <= size) driver.addIndirect(pieces, 0x50000 + random.below(64) * 16);
        else driver.add(pieces);
        driver.publish();
        break;
      }
      case 3:
        if (random.chance(6)) breakSomething(random, driver);
        break;
      case 4:
        driver.collect();
        break;
      case 5: {
        queue.publish();
        if (!random.chance(6)) break;
        const state = queue.state();
        seen.popped += queue.popped;
        queue = new WatchedQueue(new SplitQueue({ ...driver.queueOptions, state }));
        break;
      }
      case 6: {
        const head = [...queue.chains.keys()][0];
        if (head !== undefined) queue.push(head, random.below(queue.chains.get(head)!.writable.lengthBytes + 1));
        break;
      }
      default:
        memory.mayWrite = () => false;
        queue.pop();
        memory.mayWrite = undefined;
        if (random.chance(2)) queue.enableNotifications();
        else queue.disableNotifications();
    }
  }
  seen.popped += queue.popped;
  seen.broken += queue.broken === undefined ? 0 : 1;
}

describe('fuzzing', () => {
  const targets: [string, number, (seed: number) => Promise<void> | void][] = [
    ['the queue', 0.3, fuzzQueue],
    ['the block device', 0.4, fuzzBlock],
    ['the console device', 0.2, fuzzConsole],
    ['the entropy device', 0.1, fuzzEntropy],
  ];

  it.each(targets)(
    '%s',
    async (name, share, target) => {
      Object.assign(seen, { ok: 0, failed: 0, broken: 0, resets: 0, popped: 0 });
      const runs = Math.ceil(FUZZ_RUNS * share);
      await fuzz(
        name,
        async (seed) => {
          try {
            await target(seed);
          } finally {
            memory.mayWrite = undefined;
          }
        },
        runs,
      );
      // It reaches what it is meant to: most chains are taken, some break the queue, few break it at once.
      if (runs < 1000) return;
      expect(seen.popped).toBeGreaterThan(runs / 4);
      expect(seen.broken).toBeGreaterThan(runs / 50);
      expect(seen.broken).toBeLessThan(runs);
      if (target === fuzzBlock) expect(Math.min(seen.ok, seen.failed, seen.resets)).toBeGreaterThan(runs / 50);
    },
    FUZZ_TIMEOUT_MS,
  );
});
