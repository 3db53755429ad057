import { PassThrough } from 'node:stream';
import { it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { FUZZ_TIMEOUT_MS, fuzz, Random } from '../../base/fuzzing.js';
import { silentLogger } from '../../base/logger.js';
import { CarriedDecoder, encodeHello } from './carried-frames.js';
import { carryNetwork } from './carry-network.js';
import { MIN_SEGMENT_BYTES } from './segment.js';
import { checkFrame, FakeNetwork } from './testing.js';

const HELLO = encodeHello(new FakeNetwork({ takes: { segments: true } }));
/** A large packet's record, and some bytes. */
const MAX_HELD_BYTES = 66_000;

/** What the other end might send: mostly records of all types, with damage. */
function noise(random: Random): Uint8Array {
  const bytes: number[] = random.chance(10) ? [] : [...HELLO];
  const word = () => (random.chance(3) ? random.below(0x10000) : random.below(300));
  for (let count = random.below(8); count > 0; count--) {
    const frameBytes = random.chance(6) ? random.below(20) : 14 + random.below(300);
    const field = random.chance(20) ? random.word() : 8 + frameBytes;
    const words = [word(), word(), word()];
    bytes.push(field >>> 24, (field >>> 16) & 255, (field >>> 8) & 255, field & 255);
    bytes.push(random.chance(20) ? random.below(256) : random.of([1, 1, 1, 1, 2, 0]), random.below(8));
    for (const one of words) bytes.push(one >>> 8, one & 255);
    for (let left = frameBytes; left > 0; left--) bytes.push(random.chance(3) ? random.below(256) : 0x45);
  }
  for (let count = random.below(3); count > 0 && bytes.length > 0; count--) {
    bytes[random.below(bytes.length)] = random.below(256);
  }
  return Uint8Array.from(bytes);
}

it(
  'lets through frames alone, the same however they are cut, and keeps no more than a record',
  async () => {
    await fuzz('carried networks', (seed) => {
      const random = new Random(seed);
      const bytes = noise(random);
      const counts = { lost: 0, badFrames: 0 };
      const decoder = new CarriedDecoder(counts);
      const takes = { checksum: random.chance(2), segments: random.chance(2) };
      const network = new FakeNetwork({ takes });
      const [input, output] = [new PassThrough(), new PassThrough()];
      const { counts: carried } = carryNetwork(
        network,
        { input, output },
        { id: 'net0', clock: new ManualClock(), logger: silentLogger },
      );
      let frames = 0;
      let isBroken = false;
      for (let at = 0; at < bytes.length;) {
        const endAt = at + 1 + random.below(random.chance(3) ? 6 : 400);
        const records = decoder.push(bytes.slice(at, endAt));
        if (isBroken && records !== undefined) throw new Error('goes on after its end');
        isBroken = records === undefined;
        for (const record of records ?? []) {
          if (record.type !== 'frame') continue;
          frames++;
          checkFrame(record.frame, MIN_SEGMENT_BYTES);
        }
        if (decoder.heldBytes > MAX_HELD_BYTES) throw new Error(`${decoder.heldBytes} bytes are kept`);
        at = endAt;
      }
      // In one piece, to a network which takes more or less of it. What was whole before the end of a chunk is lost there.
      input.emit('data', bytes);
      for (const frame of network.sent) checkFrame(frame, MIN_SEGMENT_BYTES);
      if (network.sent.some((frame) => frame.segmentBytes !== undefined && !takes.segments))
        throw new Error('too large');
      if (isBroken) return;
      if (carried.badFrames < counts.badFrames) throw new Error('not counted');
      if (network.sent.length + carried.badFrames < frames) throw new Error('frames are gone');
    });
  },
  FUZZ_TIMEOUT_MS,
);
