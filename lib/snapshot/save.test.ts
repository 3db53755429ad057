import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { FakeSave, type FakeSaveOptions } from './fake-save.js';
import { type GuestThrottle, saveInstant, saveLive, type Saved, type SaveMode, savePaused } from './save.js';

function rig(options: Partial<FakeSaveOptions> = {}) {
  const clock = new ManualClock();
  let seed = 1;
  const random = (below: number): number => (seed = (seed * 48_271) % 0x7fff_ffff) % below;
  const fake = new FakeSave({ groups: 500, clock, busy: 1, random, ...options });
  const save = (
    mode: SaveMode,
    { throttle, ...more }: { signal?: AbortSignal; maxPauseMs?: number; throttle?: GuestThrottle } = {},
  ): Promise<Saved> => {
    const given = { subject: fake, writer: fake, clock, ...more };
    if (mode === 'paused') return savePaused(given);
    if (mode === 'live') return saveLive({ ...given, dirty: fake.dirtyGroups(), throttle });
    return saveInstant({ ...given, intercept: fake.intercept() });
  };
  return { fake, clock, save };
}

const MODES = ['paused', 'live', 'instant'] as const;

describe.each(MODES)('a snapshot in mode %s', (mode) => {
  it.each([0, 1, 2, 3])('is of the instant of its state, with a guest that writes (%i)', async (skip) => {
    const { fake, save } = rig({ groups: 300 + 17 * skip, busy: mode === 'live' ? 1 : 1 + skip, bufferGroups: 400 });
    const { parts, rounds } = await save(mode);
    expect(fake.file).toEqual(fake.instant);
    expect(parts).toHaveLength(1);
    expect(fake.isClean).toBe(true);
    expect(rounds).toBeGreaterThanOrEqual(1);
    // It went on in the meantime, or nothing was shown.
    expect(fake.memory).not.toEqual(fake.instant);
  });

  it.each(['stop', 'state', 'go', 'write', 'copy', 'drained', 'protect', 'arm', 'walk'])(
    'that fails at "%s" leaves the machine running and nothing protected',
    async (where) => {
      const { fake, save } = rig();
      let seen = 0;
      fake.onStep = (what) => {
        if (what !== where) return;
        seen++;
        throw new Error(`failed at ${where}`);
      };
      const result = await save(mode).catch((error: unknown) => error);
      expect(fake.isClean).toBe(true);
      // Not every mode goes everywhere; where it did not, it must have come through.
      if (seen > 0) expect(result).toEqual(new Error(`failed at ${where}`));
      else expect(result).toMatchObject({ rounds: expect.any(Number) as number });
    },
  );

  it('that is aborted at any step leaves the machine running and nothing protected', async () => {
    let steps = 0;
    const count = rig();
    count.fake.onStep = () => {
      steps++;
    };
    await count.save(mode);
    for (let at = 0; at < steps; at += Math.ceil(steps / 100)) {
      const { fake, save } = rig();
      const aborter = new AbortController();
      let step = 0;
      fake.onStep = () => {
        if (step++ === at) aborter.abort(new Error('enough'));
      };
      await save(mode, { signal: aborter.signal }).catch(() => undefined);
      expect(fake.isClean).toBe(true);
    }
  });

  it('keeps the promise of its pause, or refuses', async () => {
    const { fake, save } = rig({ stateUs: 5000n });
    await expect(save(mode, { maxPauseMs: 4 })).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_REFUSED',
      cure: expect.stringMatching(/maxPauseMs|instant/) as string,
    });
    expect(fake.isClean).toBe(true);
    const again = rig({ stateUs: 5000n });
    const { pauseMs } = await again.save(mode, { maxPauseMs: 60 });
    expect(pauseMs).toBeLessThanOrEqual(60);
  });
});

it('stops for less than all of its memory takes: live and instant', async () => {
  const pauses: Record<string, number> = {};
  for (const mode of MODES) pauses[mode] = (await rig({ groups: 5000 }).save(mode)).pauseMs;
  expect(pauses['paused']).toBeGreaterThan(50);
  expect(pauses['live']).toBeLessThan(5);
  expect(pauses['instant']).toBeLessThan(1);
});

it('of a guest that dirties faster than groups are written is refused live, with what it would take', async () => {
  const { fake, save } = rig({ busy: 3, bufferGroups: 100 });
  await expect(save('live')).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_REFUSED' });
  expect(fake.isClean).toBe(true);
  expect(fake.stops).toBe(0);
});

describe('of a guest that dirties faster than groups are written, and may be slowed down,', () => {
  const busy = { busy: 3, bufferGroups: 100 };
  const watched = (fake: FakeSave): { throttle: GuestThrottle; shares: number[] } => {
    const shares: number[] = [];
    const { set, end } = fake.throttle();
    return { shares, throttle: { end, set: (share) => (shares.push(share), set(share)) } };
  };

  it('comes to be, and the guest runs freely again', async () => {
    const { fake, save } = rig(busy);
    const { throttle, shares } = watched(fake);
    const { throttled } = await save('live', { throttle });
    expect(fake.file).toEqual(fake.instant);
    expect(fake.isClean).toBe(true);
    expect(throttled).toBe(shares.at(-1));
    expect(shares).toEqual([...shares].sort());
  });

  it('is not slowed down without need', async () => {
    const { fake, save } = rig({ busy: 0 });
    const { throttle, shares } = watched(fake);
    expect((await save('live', { throttle })).throttled).toBeUndefined();
    expect(shares).toEqual([]);
  });

  it('is refused all the same where nothing helps, with what it would take', async () => {
    const { fake, save } = rig({ busy: 400, bufferGroups: 100 });
    const { throttle, shares } = watched(fake);
    await expect(save('live', { throttle })).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_REFUSED',
      cure: expect.not.stringContaining('throttle') as string,
    });
    expect(shares.at(-1)).toBe(0.99);
    expect(fake.isClean).toBe(true);
    await expect(rig(busy).save('live')).rejects.toMatchObject({
      cure: expect.stringContaining('throttle: true') as string,
    });
  });

  it('that fails or is aborted lets it go', async () => {
    for (const how of ['fail', 'abort'] as const) {
      const { fake, save } = rig(busy);
      const { throttle, shares } = watched(fake);
      const aborter = new AbortController();
      fake.onStep = () => {
        if (shares.length === 0) return;
        if (how === 'fail') throw new Error('failed');
        aborter.abort();
      };
      await expect(save('live', { throttle, signal: aborter.signal })).rejects.toThrow(
        how === 'fail' ? 'failed' : 'aborted',
      );
      expect(fake.isClean).toBe(true);
    }
  });
});
