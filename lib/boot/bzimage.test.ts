import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { VmmError } from '../base/errors.js';
import { isBzImage, parseBzImage } from './bzimage.js';
import { memoryImage } from './errors.js';
import { buildBzImage, TEST_PAYLOAD_OFFSET, type TestBzImage } from './testing.js';

const payload = new Uint8Array(20_000).fill(0x5a);
const parse = (options: Partial<TestBzImage>) =>
  parseBzImage(memoryImage("kernel 'x'", buildBzImage({ payload, ...options })));
const fault = (message: RegExp) =>
  expect.objectContaining({
    code: 'ERR_KERNEL_IMAGE',
    message: expect.stringMatching(message),
    cure: expect.any(String),
  });

describe('parseBzImage', () => {
  it('reads the header', () => {
    const image = parse({ cmdlineBytes: 2047 });
    expect(image).toMatchObject({
      protocol: 0x20f,
      systemOffset: 5 * 512,
      systemBytes: 0x400 + 20_000,
      payload: { offset: 5 * 512 + TEST_PAYLOAD_OFFSET, lengthBytes: 20_000 },
      preferredGpa: 0x100_0000,
      initBytes: 0x10_0000,
      cmdlineBytes: 2047,
      initrdMaxGpa: 0x7fff_ffff,
    });
    expect(image.setupHeader.length).toBe(0x26c - 0x1f1);
  });

  it('takes 0 setup sectors for 4, and a file without a payload', () => {
    expect(parse({ setupSectors: 0 }).systemOffset).toBe(5 * 512);
    expect(parse({ payloadBytes: 0 }).payload).toBeUndefined();
  });

  it.each<[string, RegExp, Partial<TestBzImage>]>([
    ['of protocol 2.11', /protocol is 2\.11/, { protocol: 0x20b }],
    ['of 32 bits', /32-bit only/, { xloadflags: 2 }],
    ['that loads low', /zImage/, { loadflags: 0 }],
    ['with a short header', /header ends at 0x252/, { headerBytes: 0x50 }],
    ['with a header into the memory map', /header ends at 0x301/, { headerBytes: 0xff }],
    ['without a kernel', /there is no kernel/, { systemUnits: 0, payloadBytes: 0, payloadOffset: 0 }],
    ['whose payload is outside', /payload lies outside|truncated/, { payloadOffset: 0x500 }],
    ['whose payload is huge', /truncated/, { payloadBytes: 0xffff_ffff }],
    ['whose size is huge', /truncated/, { systemUnits: 0xffff_ffff }],
    ['with no preferred address', /preferred address/, { preferredGpa: 0n }],
    ['with a preferred address out of reach', /preferred address/, { preferredGpa: 1n << 63n }],
    ['that needs less memory than it is long', /needs 4096 bytes of memory/, { initBytes: 4096 }],
  ])('refuses a kernel %s', (_what, message, options) => {
    expect(() => parse(options)).toThrow(fault(message));
  });

  it('finds out a file that is cut at any multiple of 512, also in its signature', () => {
    for (const signature of [undefined, new Uint8Array(1472)]) {
      const whole = buildBzImage({ payload, ...(signature ? { signature } : {}) });
      expect(parseBzImage(memoryImage("kernel 'x'", whole)).systemBytes).toBe(0x400 + 20_000);
      for (let length = 0; length < whole.length; length += 512) {
        expect(() => parseBzImage(memoryImage("kernel 'x'", whole.subarray(0, length)))).toThrow(fault(/truncated/));
      }
      expect(() => parseBzImage(memoryImage("kernel 'x'", whole.subarray(0, whole.length - 16)))).toThrow(
        fault(/truncated/),
      );
    }
  });

  it('tells a kernel from other files', () => {
    const whole = buildBzImage({ payload });
    expect(isBzImage(whole)).toBe(true);
    expect(isBzImage(whole.subarray(0, 0x205))).toBe(false);
    expect(isBzImage(new Uint8Array(0x300))).toBe(false);
    expect(isBzImage(new Uint8Array(0))).toBe(false);
  });

  it('answers any header with an image inside the file or a VmmError', () => {
    const seed = buildBzImage({ payload: new Uint8Array(64), signature: new Uint8Array(32) });
    const headerByte = fc.integer({ min: 0, max: 0x2a0 });
    fc.assert(
      fc.property(fc.array(fc.tuple(headerByte, fc.integer({ min: 0, max: 255 })), { maxLength: 10 }), (changes) => {
        const bytes = seed.slice();
        for (const [at, value] of changes) bytes[at] = value;
        try {
          const image = parseBzImage(memoryImage("kernel 'x'", bytes));
          expect(image.systemOffset + image.systemBytes).toBeLessThanOrEqual(bytes.length);
          const end = image.payload ? image.payload.offset + image.payload.lengthBytes : 0;
          expect(end).toBeLessThanOrEqual(bytes.length);
          expect(image.preferredGpa + image.initBytes).toBeLessThanOrEqual(2 ** 32);
        } catch (error) {
          expect(error).toBeInstanceOf(VmmError);
        }
      }),
      { numRuns: 3000 },
    );
  });
});
