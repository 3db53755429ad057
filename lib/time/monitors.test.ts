/** The monitors beside the ledger: storms, causes of loss, the health of the source, and the guest's own clock. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UNITS_PER_NS } from './counts.js';
import { FeedbackClock } from './feedback.js';
import { LossCauses } from './loss-causes.js';
import { ReprogramWatch } from './reprogram-watch.js';
import { SourceHealth } from './source-health.js';
import { StormMonitor } from './storm-monitor.js';

const MS = 1_000_000n;
const SECOND = 1_000_000_000n;

describe('StormMonitor', () => {
  /** A guest that takes at most `capacityHz`, caught up at `tableHz` or what the monitor leaves of it, for `seconds`. */
  function catchUp(monitor: StormMonitor, capacityHz: number, tableHz: number, seconds: number): number {
    let taken = 0;
    for (let look = 0; look < seconds * 50; look++) {
      const firingHz = Math.min(tableHz, monitor.limitHz);
      const delivered = Math.min(firingHz, capacityHz) / 50;
      taken += delivered;
      const fired = BigInt(Math.round(firingHz / 50));
      const sample = { windowNs: 20n * MS, fired, delivered: BigInt(Math.round(delivered)), ableToTake: true };
      monitor.observe({ ...sample, nominalHz: 1000, firingHz });
    }
    return taken / seconds;
  }

  /** A monitor that has seen a guest take its nominal rate. */
  function calmMonitor(): StormMonitor {
    const monitor = new StormMonitor();
    catchUp(monitor, 10_000, 1000, 0.2);
    return monitor;
  }

  it('leaves a guest alone that keeps up', () => {
    const monitor = calmMonitor();
    catchUp(monitor, 10_000, 4000, 10);
    expect(monitor).toMatchObject({ active: false, storms: 0, limitHz: Number.POSITIVE_INFINITY });
  });

  it('leaves a swamped guest room for its own work, and still catches it up', () => {
    const monitor = calmMonitor();
    catchUp(monitor, 2000, 4000, 0.2);
    expect(monitor).toMatchObject({ active: true, storms: 1 });
    expect(monitor.limitHz).toBeCloseTo(1400, -2);
    expect(catchUp(monitor, 2000, 4000, 20)).toBeGreaterThan(1400);
  });

  it('never stops catching up for good, however little the guest can take above nominal', () => {
    fc.assert(
      fc.property(fc.double({ min: 1.04, max: 4, noNaN: true }), (capacity) => {
        const monitor = calmMonitor();
        expect(catchUp(monitor, 1000 * capacity, 4000, 30)).toBeGreaterThan(1030);
        expect(monitor.limitHz).toBeGreaterThan(1030);
      }),
    );
  });

  it('recovers when the guest does, and forgets the bound', () => {
    const monitor = calmMonitor();
    catchUp(monitor, 1500, 4000, 0.5);
    expect(monitor.limitHz).toBeLessThan(1100);
    catchUp(monitor, 10_000, 4000, 3);
    expect(monitor.limitHz).toBeGreaterThan(1800);
    catchUp(monitor, 100_000, 16_000, 30);
    expect(monitor).toMatchObject({ active: false, storms: 1 });
  });

  it('blames no guest that could not take its ticks, and learns nothing from a rate below the bound', () => {
    const monitor = calmMonitor();
    const sample = { windowNs: 200n * MS, fired: 400n, delivered: 1n, nominalHz: 1000, firingHz: 2000 };
    expect(monitor.observe({ ...sample, ableToTake: false })).toBe(false);
    expect(monitor.observe({ ...sample, ableToTake: true })).toBe(true);
    const { limitHz } = monitor;
    for (let look = 0; look < 100; look++) {
      monitor.observe({ ...sample, fired: 100n, delivered: 100n, firingHz: limitHz / 2, ableToTake: true });
    }
    expect(monitor.limitHz).toBe(limitHz);
    expect(monitor.storms).toBe(1);
  });

  it('takes the bound back from a guest that idles, however late its host fires', () => {
    const monitor = calmMonitor();
    const late = { windowNs: 100n * MS, fired: 40n, delivered: 25n, nominalHz: 250 };
    monitor.observe({ ...late, ableToTake: true, firingHz: 400 });
    expect([monitor.active, monitor.storms]).toEqual([true, 1]);
    for (let look = 0; look < 200; look++) {
      monitor.observe({ ...late, ableToTake: false, isIdle: true, firingHz: Math.min(1000, monitor.limitHz) });
    }
    expect(monitor.limitHz).toBeGreaterThan(1000);
    expect(monitor.storms).toBe(1);
  });

  it('looks what a guest takes of its nominal rate before it blames it', () => {
    const monitor = new StormMonitor();
    const sample = { windowNs: 100n * MS, nominalHz: 1000, ableToTake: true };
    const raised = { ...sample, fired: 400n, delivered: 280n, firingHz: 4000 };
    expect(monitor.observe(raised)).toBe(false);
    expect(monitor.limitHz).toBeLessThan(1050);
    // Three of ten are lost without it, too.
    for (let look = 0; look < 4; look++) {
      monitor.observe({ ...sample, fired: 103n, delivered: 72n, firingHz: monitor.limitHz });
    }
    expect(monitor).toMatchObject({ limitHz: Number.POSITIVE_INFINITY, active: false, storms: 0 });
    for (let look = 0; look < 30; look++) expect(monitor.observe(raised)).toBe(false);
  });

  it('takes its blame back when a lower rate spares the guest nothing', () => {
    const monitor = calmMonitor();
    const sample = { windowNs: 100n * MS, nominalHz: 1000, ableToTake: true };
    expect(monitor.observe({ ...sample, fired: 400n, delivered: 280n, firingHz: 4000 })).toBe(true);
    for (let look = 0; monitor.active && look < 100; look++) {
      monitor.observe({ ...sample, fired: 103n, delivered: 72n, firingHz: 1031 });
    }
    expect(monitor).toMatchObject({ limitHz: Number.POSITIVE_INFINITY, storms: 1 });
  });
});

describe('LossCauses', () => {
  const window = {
    windowNs: 100n * MS,
    pausedNs: 0n,
    fired: 100n,
    delivered: 100n,
    firingPeriodNs: MS,
    tickNs: MS,
  };
  const unused = () => {
    throw new Error('nothing was lost');
  };

  it('asks nothing while nothing is lost, and takes a late tick for late', () => {
    const causes = new LossCauses();
    expect(causes.observe(window, unused)).toBe(0n);
    expect(causes.observe({ ...window, delivered: 99n }, unused)).toBe(0n);
    expect(causes.observe({ ...window, delivered: 101n }, unused)).toBe(0n);
  });

  it('tells a pause, masking, starvation and silence apart', () => {
    const causes = new LossCauses();
    const none = { masked: false, starvedNs: 0n };
    expect(causes.observe({ ...window, pausedNs: 50n * MS, delivered: 49n }, unused)).toBe(50n);
    expect(causes.observe({ ...window, delivered: 70n }, () => ({ ...none, masked: true }))).toBe(30n);
    expect(causes.observe({ ...window, delivered: 80n }, () => ({ ...none, starvedNs: 15n * MS }))).toBe(20n);
    expect(causes.losses).toEqual({
      paused: { ticks: 50n, ns: 50n * MS },
      masked: { ticks: 30n, ns: 30n * MS },
      notRunning: { ticks: 15n, ns: 15n * MS },
      notAcknowledged: { ticks: 5n, ns: 5n * MS },
    });
  });

  it('lets a gap of the CPU explain what the next window misses by it, and no later one', () => {
    const losing = (starvedMs: bigint) => {
      const causes = new LossCauses();
      causes.observe({ ...window, delivered: 99n }, unused);
      causes.observe({ ...window, delivered: 90n }, () => ({ masked: false, starvedNs: starvedMs * MS }));
      causes.observe({ ...window, delivered: 90n }, () => ({ masked: false, starvedNs: 0n }));
      causes.observe({ ...window, delivered: 90n }, () => ({ masked: false, starvedNs: 0n }));
      return { notRunning: causes.losses.notRunning.ticks, notAcknowledged: causes.losses.notAcknowledged.ticks };
    };
    expect(losing(10n)).toEqual({ notRunning: 10n, notAcknowledged: 20n });
    expect(losing(15n)).toEqual({ notRunning: 15n, notAcknowledged: 15n });
    expect(losing(50n)).toEqual({ notRunning: 20n, notAcknowledged: 10n });
  });

  it('explains every lost tick, once', () => {
    const part = fc.record({
      fired: fc.bigInt(0n, 100n),
      share: fc.nat(100),
      pausedNs: fc.bigInt(0n, 100n * MS),
      starvedNs: fc.bigInt(0n, 100n * MS),
      masked: fc.constantFrom(true, false, undefined),
    });
    fc.assert(
      fc.property(fc.array(part), (parts) => {
        const causes = new LossCauses();
        let lost = 0n;
        for (const { fired, share, pausedNs, starvedNs, masked } of parts) {
          const delivered = (fired * BigInt(share)) / 100n;
          lost += causes.observe({ ...window, fired, delivered, pausedNs }, () => ({ masked, starvedNs }));
        }
        const explained = Object.values(causes.losses).reduce((sum, { ticks }) => sum + ticks, 0n);
        expect(explained).toBe(lost);
      }),
    );
  });
});

describe('SourceHealth', () => {
  const sample = (delivered: bigint, fired = 50n, windowNs = 50n * MS) => ({ windowNs, fired, delivered });
  const able = () => true;

  it('is unavailable after enough silence of a guest that could have taken ticks', () => {
    const health = new SourceHealth();
    expect(health.observe(sample(0n), able)).toBe(false);
    expect(health.observe(sample(0n), able)).toBe(true);
    expect(health.state).toBe('unavailable');
  });

  it('waits for a slow guest, a masked one and one that does not run', () => {
    const health = new SourceHealth();
    for (let look = 0; look < 10; look++) health.observe(sample(0n, 1n, 55n * MS), able);
    expect(health.state).toBe('untested');
    for (let look = 0; look < 100; look++) health.observe(sample(0n), () => false);
    expect(health.state).toBe('untested');
    expect(health.silentNs).toBeGreaterThan(SECOND);
  });

  it('takes a source that was heard for dead only after seconds', () => {
    const health = new SourceHealth();
    health.observe(sample(50n), able);
    expect(health.state).toBe('alive');
    for (let look = 0; look < 39; look++) health.observe(sample(0n), able);
    expect(health.state).toBe('alive');
    health.observe(sample(0n), able);
    expect(health.state).toBe('unavailable');
  });

  it('believes in a recovery only after a quarantine, which grows', () => {
    const health = new SourceHealth();
    const quarantines: number[] = [];
    for (let round = 0; round < 3; round++) {
      while (health.state !== 'unavailable') health.observe(sample(0n), able);
      let looks = 0;
      while (health.state === 'unavailable') {
        health.observe(sample(50n), able);
        looks++;
      }
      quarantines.push(looks * 50);
    }
    expect(quarantines).toEqual([1000, 4000, 16_000]);
  });
});

describe('FeedbackClock', () => {
  function clockOn(bytes: Uint8Array, options: object) {
    const read = (gpa: number, length: number) => {
      if (gpa + length > bytes.length) throw new RangeError('no memory there');
      return bytes.slice(gpa, gpa + length);
    };
    return new FeedbackClock({ gpa: 0, widthBytes: 4, rateHz: 1000, ...options }, read);
  }

  it('turns counts into time, with the remainder of a rate that is no whole number kept', () => {
    const bytes = new Uint8Array(4);
    const view = new DataView(bytes.buffer);
    const clock = clockOn(bytes, { rateHz: 18.2065 });
    clock.look(0n, 1n);
    let units = 0n;
    for (let count = 1; count <= 182_065; count++) {
      view.setUint32(0, count, true);
      units += clock.look(55n * MS, 1n).units;
    }
    expect(units).toBe(10_000n * SECOND * UNITS_PER_NS);
  });

  it.each([
    [1, undefined, 0xff],
    [2, undefined, 0xffff],
    [4, 0x1800b0, 0x1800af],
    [8, undefined, undefined],
  ])('counts on where a counter of %i bytes wraps', (widthBytes, wrapsAt, last) => {
    const bytes = new Uint8Array(8).fill(last === undefined ? 0xff : 0);
    if (last !== undefined) new DataView(bytes.buffer).setUint32(0, last, true);
    const clock = clockOn(bytes, { widthBytes, ...(wrapsAt === undefined ? {} : { wrapsAt }) });
    clock.look(0n, 1n);
    bytes.fill(0);
    bytes[0] = 4;
    expect(clock.look(5n * MS, 1n)).toEqual({ units: 5n * MS * UNITS_PER_NS, jumped: false });
  });

  it('takes a counter that the guest has set anew, forwards or backwards', () => {
    const bytes = new Uint8Array(4);
    const view = new DataView(bytes.buffer);
    const clock = clockOn(bytes, {});
    clock.look(0n, 1n);
    view.setUint32(0, 1_000_000, true);
    expect(clock.look(100n * MS, 1n)).toEqual({ units: 0n, jumped: true });
    view.setUint32(0, 999_000, true);
    expect(clock.look(100n * MS, 1n)).toEqual({ units: 0n, jumped: true });
    view.setUint32(0, 999_100, true);
    expect(clock.look(100n * MS, 1n)).toEqual({ units: 100n * MS * UNITS_PER_NS, jumped: false });
    expect(clock.jumps).toBe(2);
  });

  it('counts programmed ticks, and throws what reading throws', () => {
    const bytes = new Uint8Array(4);
    const clock = clockOn(bytes, { rateHz: 'programmed' });
    clock.look(0n, 7n);
    bytes[0] = 3;
    expect(clock.look(MS, 7n).units).toBe(21n);
    expect(() => clockOn(bytes, { gpa: 2 }).look(0n, 1n)).toThrow(RangeError);
  });
});

describe('ReprogramWatch', () => {
  it('is flooded by what nobody could follow, and calms down after a quiet second', () => {
    const watch = new ReprogramWatch();
    let nowNs = 0n;
    for (let each = 0; each < 119; each++) expect(watch.note((nowNs += 20n * MS))).toBe(false);
    expect(watch.note((nowNs += 20n * MS))).toBe(true);
    expect(watch.isFlooded).toBe(true);
    expect(watch.calm(nowNs + 500n * MS)).toBe(false);
    expect(watch.calm(nowNs + SECOND)).toBe(true);
    expect(watch.isFlooded).toBe(false);
  });

  it('follows 25 a second for ever', () => {
    const watch = new ReprogramWatch();
    for (let each = 0n; each < 1000n; each++) watch.note(each * 40n * MS);
    expect(watch.isFlooded).toBe(false);
  });
});
