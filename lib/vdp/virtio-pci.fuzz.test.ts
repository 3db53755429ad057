/**
 * Structure-aware fuzzing of a virtio function and the host bridge: random accesses, most of them where registers are and
 * with values that mean something, mixed with whole steps of a driver, device events and resets that take their time.
 * VIVARIUM_FUZZ_RUNS accesses (default 100,000) from VIVARIUM_FUZZ_SEED; a failure names the seed.
 */
import { describe, expect, it } from 'vitest';
import { CommonCfg } from '../abi/virtio-pci.js';
import { RIG_MEMORY_BYTES, VirtioPciRig } from './virtio-pci-rig.js';

const RUNS = Number(process.env['VIVARIUM_FUZZ_RUNS'] ?? 100_000);
const SEED = Number(process.env['VIVARIUM_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** Accesses to one machine before the next is made. */
const ACCESSES_A_MACHINE = 500;

/** Mulberry32: small, and the same everywhere. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const COMMON_FIELDS: readonly (readonly [number, number])[] = [
  ...[0x00, 0x04, 0x08, 0x0c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34].map((offset) => [offset, 4] as const),
  ...[0x10, 0x12, 0x16, 0x18, 0x1a, 0x1c, 0x1e].map((offset) => [offset, 2] as const),
  [CommonCfg.DEVICE_STATUS, 1],
  [CommonCfg.CONFIG_GENERATION, 1],
];
const VALUES = [0, 1, 2, 3, 4, 7, 8, 0xb, 0xf, 0x10, 0x40, 0x80, 0xff, 0xffff, 0x8000, 0xc000, 0xffff_ffff];
const ADDRESSES = [0, 0x1_0000, 0xc000_0000, 0xc000_4000, 0xd000_0000, 0xfebf_c000, 0xfee0_0000, RIG_MEMORY_BYTES];
const SIZES = [1, 2, 4, 8] as const;

function step(rig: VirtioPciRig, random: (below: number) => number): void {
  const pick = <T>(list: readonly T[]): T => list[random(list.length)]!;
  const value = (): number => (random(4) === 0 ? random(2 ** 32) : pick(random(3) === 0 ? ADDRESSES : VALUES));
  const registers = rig.configRead(0x10, 4);
  const access = (gpa: number, size: number): void => {
    if (random(3) === 0) rig.read(gpa, size);
    else rig.write(gpa, size, value());
  };
  switch (random(12)) {
    case 0: {
      const size = pick([1, 2, 4] as const);
      const register = random(256 / size) * size;
      if (random(2) === 0) rig.configRead(register, size);
      else rig.configWrite(register, size, value());
      break;
    }
    case 1:
      rig.configWrite(pick([0x04, 0x10, 0x14]), 4, pick(random(2) === 0 ? [6, 2, 0, 0x406] : ADDRESSES));
      break;
    case 2:
      return access(registers + random(0x4000), pick(SIZES));
    case 3:
      return access(rig.msixTable + (random(2) === 0 ? 4 * random(16) : random(0x1000)), pick(SIZES));
    case 4:
      return access(registers + pick([0x1000, 0x3000, 0x3004, 0x2000, 0x2010]), pick(SIZES));
    case 5:
      rig.status = pick([0, 1, 3, 0xb, 0xf, 0x8f]);
      break;
    case 6:
      for (const ring of rig.doorbells.values()) ring();
      break;
    case 7: {
      const { activation } = rig.device;
      if (random(2) === 0) activation?.interrupt(random(3));
      else if (random(4) === 0) activation?.needsReset('fuzzed');
      else activation?.configChanged();
      break;
    }
    case 8:
      rig.device.holdReset = random(3) === 0;
      if (random(2) === 0) rig.device.finishReset?.();
      break;
    case 9:
      if (random(4) === 0) rig.initialise({ msix: random(2) === 0 });
      break;
    default: {
      const [offset, size] = pick(COMMON_FIELDS);
      return access(registers + offset, size);
    }
  }
}

function checkInvariants(rig: VirtioPciRig): void {
  const state = rig.pci.inspect() as { status: string; resetting: boolean; queues: { enabled: boolean }[] };
  const status = Number(state.status);
  const active = rig.device.activation !== undefined;
  // The device is active only under DRIVER_OK; FEATURES_OK stands before DRIVER_OK; doorbells ring only for it.
  if (active) expect(status & 0xc).toBe(0xc);
  if ((status & 4) !== 0) expect(status & 8).toBe(8);
  if (state.resetting) expect(status).not.toBe(0);
  if (!active) expect(rig.doorbells.size).toBe(0);
  expect(rig.failures).toEqual([]);
  // Logged at a bounded rate: the clock stands still, so only the burst.
  expect(rig.warnings.length).toBeLessThanOrEqual(8);
}

describe(`fuzzing with VIVARIUM_FUZZ_SEED=${SEED}`, () => {
  it(`stands ${RUNS} accesses`, { timeout: 3_600_000 }, async () => {
    const random = generator(SEED);
    let activations = 0;
    for (let done = 0; done < RUNS; done += ACCESSES_A_MACHINE) {
      const rig = new VirtioPciRig();
      rig.probe();
      for (let i = 0; i < ACCESSES_A_MACHINE; i++) {
        step(rig, random);
        if (i % 25 === 0) {
          await Promise.resolve();
          checkInvariants(rig);
        }
      }
      activations += rig.device.log.filter((entry) => entry === 'activate').length;
      rig.device.holdReset = false;
      rig.device.finishReset?.();
      await rig.pci.close();
      expect(rig.device.log.at(-1)).toBe('close');
      expect(rig.doorbells.size).toBe(0);
    }
    // It got where the states are.
    expect(activations).toBeGreaterThan(RUNS / 1000);
  });
});
