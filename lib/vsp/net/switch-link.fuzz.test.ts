import { it } from 'vitest';
import { FUZZ_TIMEOUT_MS, fuzz, Random } from '../../base/fuzzing.js';
import type { NetFrame } from './contract.js';
import { NetSwitch } from './switch.js';
import { SwitchLink } from './switch-link.js';
import { checkFrame } from './testing.js';
import { Wire } from './testing-wire.js';

const GREETING = [0x76, 0x76, 0x73, 0x77, 1, 0, 5, 220];

/** What a peer might send: mostly greetings and frames, with damage. */
function noise(random: Random): Uint8Array {
  const bytes: number[] = random.chance(10) ? [] : [...GREETING];
  for (let count = random.below(8); count > 0; count--) {
    const frameBytes = random.chance(6) ? random.below(40) : 14 + random.below(200);
    const lengthBytes = random.chance(12) ? random.word() : 12 + frameBytes;
    bytes.push(lengthBytes >>> 24, (lengthBytes >>> 16) & 255, (lengthBytes >>> 8) & 255, lengthBytes & 255);
    bytes.push(random.below(3), random.of([0, 0, 1, 4, 0x81, 3, 5]), 0, 0, random.below(256), random.below(4));
    bytes.push(random.below(256), random.chance(4) ? 255 : 0, random.below(30), 0, 0, 0);
    for (let left = frameBytes; left > 0; left--) bytes.push(random.below(4));
  }
  for (let count = random.below(3); count > 0 && bytes.length > 0; count--) {
    bytes[random.below(bytes.length)] = random.below(256);
  }
  return Uint8Array.from(bytes);
}

it(
  'lets through frames alone, and takes no more than its share of the addresses',
  async () => {
    await fuzz('links of switches', async (seed) => {
      const random = new Random(seed);
      const net = new NetSwitch({ name: 'lan' });
      const [guest, trunk] = [net.port(), net.port()];
      guest.start({
        receive: (frames) => frames.forEach((frame) => checkFrame(frame)),
        writable: () => {},
        link: () => {},
      });
      const [here, there] = Wire.pair();
      let ends = 0;
      const counts = { lost: 0, badFrames: 0 };
      const user = {
        greeted: () => undefined,
        receive: (frames: readonly NetFrame[]) => void trunk.send(frames),
        ended: () => ends++,
      };
      const link = new SwitchLink(here, 1500, user, counts);
      const bytes = noise(random);
      for (let at = 0; at < bytes.length;) {
        const endAt = at + 1 + random.below(120);
        there.write(bytes.subarray(at, endAt));
        at = endAt;
      }
      if (random.chance(2)) there.destroy();
      await new Promise((resolve) => setImmediate(resolve));
      link.end('done');
      link.end('again');
      if (ends !== 1) throw new Error(`it has ended ${ends} times`);
      const { addresses } = net.inspect() as { addresses: number };
      if (addresses > 256) throw new Error(`${addresses} addresses`);
    });
  },
  FUZZ_TIMEOUT_MS,
);
