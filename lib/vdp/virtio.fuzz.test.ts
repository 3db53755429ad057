/**
 * Structure-aware fuzzing of split queues and of the devices behind them: chains from well-formed to absurd, memory that
 * changes while it is read, completions in any order, resets at any moment. Nothing may throw, write where the driver
 * gave no buffer, keep more in flight than the queue holds, or go on after a reset.
 */
import { describe, expect, it } from 'vitest';
import { VirtioBlkType, VirtioConsoleEvent, VirtioNetCtrl } from '../abi/virtio.js';
import { ManualClock } from '../base/clock.js';
import { VmmError } from '../base/errors.js';
import { FUZZ_RUNS, FUZZ_TIMEOUT_MS, fuzz, type FuzzerName, Random } from '../base/fuzzing.js';
import { silentLogger } from '../base/logger.js';
import type { IoVector } from '../memory/io-vector.js';
import type { BlockDone } from '../vsp/block/contract.js';
import type { ConsoleGuestEnd, ConsolePortService } from '../vsp/console/contract.js';
import type { DeviceContract } from '../vsp/contract.js';
import type { EntropyService } from '../vsp/entropy/contract.js';
import { NetProvider } from '../vsp/net/provider.js';
import { segmentTcp } from '../vsp/net/segment.js';
import { FakeNetwork, packet } from '../vsp/net/testing.js';
import { BlockDevice } from './block.js';
import { ConsoleDevice } from './console.js';
import { ENTROPY_RETRY_NS, EntropyDevice } from './entropy.js';
import { FakeBlockService } from './fake-block-service.js';
import { breakSomething, checkVector, randomPiece, WatchedQueue } from './fuzzing.js';
import { memory, play, rig, seen, words } from './fuzzing-devices.js';
import type { Piece } from './mock-driver.js';
import { NetDevice } from './net.js';
import { SplitQueue } from './split-queue.js';

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
  const clock = new ManualClock();
  const service: EntropyService = {
    contract: { class: 'entropy', functions: {}, backend: { kind: 'fake' }, rebinds: 0 },
    bytes: (maxBytes) => {
      if (it.random.chance(2)) return Promise.resolve(new Uint8Array(maxBytes));
      return it.random.chance(20)
        ? Promise.reject(new VmmError(seed % 2 === 0 ? 'ERR_CLOSED' : 'ERR_DEVICE', 'no bytes'))
        : new Promise((resolve) => waiting.push((bytes) => resolve(bytes.subarray(0, maxBytes))));
    },
  };
  const device = new EntropyDevice('rng', service, clock);
  const request = (): Piece[] => [
    { gpa: 0x40000 + it.random.below(0x8000), length: 1 + it.random.below(0x2000), writable: true },
  ];
  await play(it, device, request, () => {
    clock.advance(ENTROPY_RETRY_NS);
    waiting.shift()?.(new Uint8Array(1 + it.random.below(64)));
  });
  await Promise.resolve();
}

const FRAMES = [0, 1, 40, 700, 1400].flatMap((length) =>
  ([4, 6] as const).map((version) => packet({ version, payload: new Uint8Array(length) })),
);
const SEGMENTS = [0, 900, 3900].map((length) =>
  segmentTcp(packet({ version: 4, payload: new Uint8Array(length) }), 1000)!,
);

async function fuzzNet(seed: number): Promise<void> {
  const random = new Random(seed ^ 0x4e);
  const network = new FakeNetwork({ takes: { checksum: random.chance(2), segments: random.chance(2) } });
  const provider = new NetProvider({ id: 'net', backend: network, logger: silentLogger, mac: 0x020000000001 });
  const device = new NetDevice('net', provider);
  const it = rig(seed, device.features & (random.chance(2) ? ~0n : BigInt(random.word())), [8, 8, 8]);
  let next = 0x40000;
  const request = (queue: number): Piece[] => {
    const gpa = next;
    next = next > 0x4d000 ? 0x40000 : next + 2048;
    if (queue === 0) return [{ gpa, length: 12 + random.below(2000), writable: true }];
    if (queue === 2) {
      const { RX, MAC, GUEST_OFFLOADS } = VirtioNetCtrl;
      memory.write(gpa, Uint8Array.of(random.chance(8) ? random.word() : random.of([RX, MAC, GUEST_OFFLOADS])));
      memory.write(gpa + 1, Uint8Array.of(random.below(6), random.below(4), 0, 0, 0, random.below(3)));
      return [
        { gpa, length: 2 + random.of([1, 6, 8, 14, 20]) },
        { gpa: gpa + 1000, length: 1, writable: true },
      ];
    }
    const frame = random.of(FRAMES);
    memory.write(gpa + 12, frame);
    const gso = random.of([0, 0, 1, 4, 0x81, random.word() & 0xff]);
    memory.write(gpa, Uint8Array.of(random.below(3), gso, 54, 0, random.below(256), 1, 34, 0, 16, 0, 0, 0));
    return [{ gpa, length: 12 + (random.chance(8) ? random.below(frame.length) : frame.length) }];
  };
  await play(it, device, request, () => {
    seen.ok += network.sent.length;
    for (const { bytes } of network.sent.splice(0)) expect(bytes.length).toBeLessThanOrEqual(65557);
    network.more = random.chance(2);
    if (random.chance(2)) network.host.writable();
    network.host.receive(random.of(SEGMENTS).map((bytes) => ({ bytes })));
    if (random.chance(4)) provider.setLink(random.chance(2));
  });
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
  const targets: [FuzzerName, number, (seed: number) => Promise<void> | void][] = [
    ['the queue', 0.3, fuzzQueue],
    ['the block device', 0.3, fuzzBlock],
    ['the network device', 0.1, fuzzNet],
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
