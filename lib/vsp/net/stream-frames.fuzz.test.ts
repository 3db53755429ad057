import { describe, it } from 'vitest';
import { FUZZ_TIMEOUT_MS, fuzz, Random } from '../../base/fuzzing.js';
import { FrameReader } from './stream-frames.js';

const LIMITS = { minBytes: 14, maxBytes: 1000 };

/** What is whole in `bytes`, and where it ends or breaks, read plainly. */
function model(bytes: readonly number[]): { frames: number[][]; broken: boolean } {
  const frames: number[][] = [];
  for (let at = 0; at + 4 <= bytes.length;) {
    const lengthBytes = parseInt(
      bytes
        .slice(at, at + 4)
        .map((byte) => byte.toString(16).padStart(2, '0'))
        .join(''),
      16,
    );
    if (lengthBytes < LIMITS.minBytes || lengthBytes > LIMITS.maxBytes) return { frames, broken: true };
    if (at + 4 + lengthBytes > bytes.length) break;
    frames.push(bytes.slice(at + 4, at + 4 + lengthBytes));
    at += 4 + lengthBytes;
  }
  return { frames, broken: false };
}

describe('a stream of frames, fuzzed', () => {
  it(
    'is read as a plain reader does, and nothing of it stays beyond a frame',
    async () => {
      await fuzz('streams of frames', (seed) => {
        const random = new Random(seed);
        const bytes: number[] = [];
        for (let count = random.below(6); count > 0; count--) {
          const lengthBytes = random.chance(8) ? random.word() % 70000 : 14 + random.below(80);
          const field = random.chance(20) ? random.word() : lengthBytes;
          bytes.push(field >>> 24, (field >>> 16) & 255, (field >>> 8) & 255, field & 255);
          for (let left = Math.min(lengthBytes, 1200); left > 0; left--) bytes.push(random.below(256));
        }
        bytes.length = Math.min(bytes.length, random.below(bytes.length + 40));
        const reader = new FrameReader(LIMITS);
        const got: Uint8Array[] = [];
        for (let at = 0; at < bytes.length;) {
          const endAt = at + 1 + random.below(random.chance(3) ? 6 : 400);
          got.push(...reader.push(Uint8Array.from(bytes.slice(at, endAt))));
          if (reader.pendingBytes > LIMITS.maxBytes) throw new Error(`${reader.pendingBytes} bytes are kept`);
          at = endAt;
        }
        const expected = model(bytes);
        const same =
          got.length === expected.frames.length && got.every((one, index) => equal(one, expected.frames[index]!));
        if (!same || (reader.broken !== undefined) !== expected.broken) throw new Error('read in another way');
      });
    },
    FUZZ_TIMEOUT_MS,
  );
});

function equal(one: Uint8Array, other: readonly number[]): boolean {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}
