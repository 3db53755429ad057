/**
 * What fuzzers of virtio devices share: queues on fuzzed memory, and rounds of a driver and a device of which some break
 * the rules. Checked: nothing throws, or is written where the driver gave no buffer, or goes on after a reset.
 */
import { Random } from '../base/fuzzing.js';
import { FakeActivation } from './fake-activation.js';
import { breakSomething, FuzzMemory, randomPiece, WatchedQueue } from './fuzzing.js';
import { MockDriver, type Piece } from './mock-driver.js';
import { SplitQueue } from './split-queue.js';
import type { VirtioDevice } from './virtio-device.js';

export const memory = new FuzzMemory();
/** What became of the chains of all executions since a test set it to zero. */
export const seen = { ok: 0, failed: 0, broken: 0, resets: 0, popped: 0 };

export interface Rig {
  readonly random: Random;
  readonly drivers: MockDriver[];
  readonly queues: WatchedQueue[];
  readonly activation: FakeActivation;
}

/** Queues of a device, mostly laid out as they should be. */
export function rig(seed: number, features: bigint, sizes: readonly number[]): Rig {
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
export async function play(
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
  drivers.forEach((driver, index) => {
    if (driver.usedIndex !== used[index]) throw new Error(`queue ${index} went on after the reset`);
  });
  const { length } = activation.resetReasons;
  if (length > 1) throw new Error(`the device asked for a reset ${length} times`);
  seen.broken += queues.some((queue) => queue.broken !== undefined) ? 1 : 0;
  seen.resets += activation.resetReasons.length;
  for (const queue of queues) seen.popped += queue.popped;
}

export function words(gpa: number, list: readonly number[]): void {
  memory.write(gpa, new Uint8Array(Uint32Array.from(list).buffer));
}
