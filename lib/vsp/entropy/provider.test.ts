import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { openHostEntropy } from './host.js';
import { EntropyProvider } from './provider.js';
import { TokenBucket } from './token-bucket.js';

const SECOND = 1_000_000_000n;
const turn = () => new Promise(setImmediate);

describe('EntropyProvider', () => {
  it('gives random bytes, at most as many as asked for, and counts', async () => {
    const entropy = new EntropyProvider({ id: 'rng' });
    const [a, b] = await Promise.all([entropy.bytes(32), entropy.bytes(32)]);
    expect([a.length, b.length]).toEqual([32, 32]);
    expect(Buffer.compare(a, b)).not.toBe(0);
    expect((await entropy.bytes(1e9)).length).toBeLessThanOrEqual(65536);
    expect(entropy.contract).toMatchObject({
      class: 'entropy',
      functions: { bytes: { by: 'native', calls: 3, errors: 0 } },
      backend: { kind: 'host' },
    });
    await entropy.close();
  });

  it('makes a greedy guest wait, and ends its waiting when it is closed', async () => {
    const clock = new ManualClock();
    const entropy = new EntropyProvider({ id: 'rng', clock, rate: { bytesPerSecond: 10, burstBytes: 20 } });
    expect((await entropy.bytes(100)).length).toBe(20);
    let got: number | undefined;
    const later = entropy.bytes(10).then((bytes) => (got = bytes.length));
    await turn();
    expect(got).toBeUndefined();
    clock.advance(SECOND);
    await later;
    expect(got).toBe(10);
    const waiting = entropy.bytes(1);
    const refused = expect(waiting).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    await entropy.close();
    await refused;
    await expect(entropy.bytes(1)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    expect(entropy.contract.functions['bytes']).toMatchObject({ calls: 4, errors: 2 });
  });

  it('takes another generator, and none after its end', async () => {
    const fake = (value: number) => ({
      closed: 0,
      bytes: (length: number) => Promise.resolve(new Uint8Array(length).fill(value)),
      describe: () => ({ kind: `fake ${value}` }),
      close() {
        this.closed++;
        return Promise.resolve();
      },
    });
    const [old, next] = [fake(1), fake(2)];
    const entropy = new EntropyProvider({ id: 'rng', backend: old });
    expect([...(await entropy.bytes(2))]).toEqual([1, 1]);
    await entropy.rebind(next);
    expect([...(await entropy.bytes(2))]).toEqual([2, 2]);
    expect([old.closed, next.closed]).toEqual([1, 0]);
    expect(entropy.contract).toMatchObject({ rebinds: 1, backend: { kind: 'fake 2' } });
    await entropy.close();
    await expect(entropy.rebind(old)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('is not closed by a generator that says that it is', async () => {
    const error = new VmmError('ERR_CLOSED', 'the generator was unplugged');
    const broken = { bytes: () => Promise.reject(error), describe: () => ({ kind: 'x' }), close: async () => {} };
    const entropy = new EntropyProvider({ id: 'rng', backend: broken });
    await expect(entropy.bytes(1)).rejects.toMatchObject({ code: 'ERR_DEVICE', cause: error });
    await entropy.rebind(openHostEntropy());
    expect((await entropy.bytes(1)).length).toBe(1);
    await entropy.rebind(broken);
    const waiting = entropy.bytes(1);
    const refused = expect(waiting).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    await entropy.close();
    await refused;
  });

  it('refuses a request or a rate that is none', async () => {
    const entropy = new EntropyProvider({ id: 'rng' });
    await expect(entropy.bytes(0)).rejects.toThrow(RangeError);
    expect(() => new EntropyProvider({ id: 'rng', rate: { bytesPerSecond: 0 } })).toThrow(RangeError);
  });
});

describe('TokenBucket', () => {
  it('never gives more than the burst and what has flowed in, and leaves nobody waiting', async () => {
    const steps = fc.array(fc.record({ most: fc.integer({ min: 1, max: 50 }), waitMs: fc.nat({ max: 500 }) }), {
      maxLength: 20,
    });
    const rate = fc.record({
      ratePerSecond: fc.integer({ min: 1, max: 1000 }),
      burst: fc.integer({ min: 1, max: 100 }),
    });
    await fc.assert(
      fc.asyncProperty(steps, rate, async (requests, options) => {
        const clock = new ManualClock();
        const bucket = new TokenBucket(clock, options);
        let given = 0;
        let left = requests.length;
        const bound = () => options.burst + (Number(clock.nowNs()) * options.ratePerSecond) / 1e9 + 1e-6;
        for (const { most, waitMs } of requests) {
          void bucket.take(most).then((tokens) => {
            expect(tokens).toBeGreaterThanOrEqual(1);
            expect(tokens).toBeLessThanOrEqual(most);
            given += tokens;
            left--;
          });
          clock.advance(BigInt(waitMs) * 1_000_000n);
          await Promise.resolve();
          expect(given).toBeLessThanOrEqual(bound());
        }
        clock.advance(2000n * SECOND);
        await Promise.resolve();
        expect(left).toBe(0);
        expect(given).toBeLessThanOrEqual(bound());
      }),
    );
  });
});
