/**
 * Structure-aware fuzzing of a virtio function's registers: common configuration, notification, ISR, device
 * configuration, the MSI-X table, and its configuration space, mixed with whole steps of a driver, doorbells, device
 * events and resets that take their time. Whatever was done to it, the device's states keep their order, nothing
 * throws, it asks for interrupts that there are only, and a driver that starts anew gets a device that works.
 */
import { describe, expect, it } from 'vitest';
import { CommonCfg } from '../abi/virtio-pci.js';
import { FUZZ_RUNS, FUZZ_TIMEOUT_MS, fuzz, Random } from '../base/fuzzing.js';
import { FakeGuestMemory } from '../memory/fake.js';
import { RIG_MEMORY_BYTES, VirtioPciRig } from './virtio-pci-rig.js';

const COMMON_FIELDS: readonly (readonly [number, number])[] = [
  ...[0x00, 0x04, 0x08, 0x0c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34].map((offset) => [offset, 4] as const),
  ...[0x10, 0x12, 0x16, 0x18, 0x1a, 0x1c, 0x1e].map((offset) => [offset, 2] as const),
  [CommonCfg.DEVICE_STATUS, 1],
  [CommonCfg.CONFIG_GENERATION, 1],
];
const VALUES = [0, 1, 2, 3, 4, 7, 8, 0xb, 0xf, 0x10, 0x40, 0x80, 0xff, 0xffff, 0x8000, 0xc000, 0xffff_ffff];
const ADDRESSES = [0, 0x1_0000, 0xc000_0000, 0xc000_4000, 0xd000_0000, 0xfebf_c000, 0xfee0_0000, RIG_MEMORY_BYTES];
const SIZES = [1, 2, 4, 8] as const;
const NEEDS_RESET = 0x40;
/** Nothing is written to it: the device behind the registers has no requests. */
const memory = new FakeGuestMemory(RIG_MEMORY_BYTES);
const seen = { activations: 0, needResets: 0, held: 0 };

function step(rig: VirtioPciRig, random: Random): void {
  const value = (): number => (random.chance(4) ? random.word() : random.of(random.chance(3) ? ADDRESSES : VALUES));
  const registers = rig.configRead(0x10, 4);
  const access = (gpa: number, size: number): void => {
    if (random.chance(3)) rig.read(gpa, size);
    else rig.write(gpa, size, value());
  };
  switch (random.below(12)) {
    case 0: {
      const size = random.of([1, 2, 4] as const);
      const register = random.below(256 / size) * size;
      if (random.chance(2)) rig.configRead(register, size);
      else rig.configWrite(register, size, value());
      break;
    }
    case 1:
      rig.configWrite(random.of([0x04, 0x10, 0x14]), 4, random.of(random.chance(2) ? [6, 2, 0, 0x406] : ADDRESSES));
      break;
    case 2:
      return access(registers + random.below(0x4000), random.of(SIZES));
    case 3:
      return access(rig.msixTable + (random.chance(2) ? 4 * random.below(16) : random.below(0x1000)), random.of(SIZES));
    case 4:
      return access(registers + random.of([0x1000, 0x3000, 0x3004, 0x2000, 0x2010]), random.of(SIZES));
    case 5:
      rig.status = random.of([0, 1, 3, 0xb, 0xf, 0x8f]);
      break;
    case 6:
      for (const ring of rig.doorbells.values()) ring();
      break;
    case 7: {
      const { activation } = rig.device;
      if (random.chance(2)) activation?.interrupt(random.below(3));
      else if (random.chance(2)) activation?.needsReset('fuzzed');
      else activation?.configChanged();
      break;
    }
    case 8:
      rig.device.holdReset = random.chance(3);
      if (random.chance(2)) rig.device.finishReset?.();
      break;
    case 9:
      if (random.chance(3)) rig.initialise({ msix: random.chance(2) });
      break;
    default: {
      const [offset, size] = random.of(COMMON_FIELDS);
      return access(registers + offset, size);
    }
  }
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

function checkInvariants(rig: VirtioPciRig): void {
  const state = rig.pci.inspect() as { status: string; resetting: boolean };
  const status = Number(state.status);
  const active = rig.device.activation !== undefined;
  if (active) check((status & 0xc) === 0xc, 'active without DRIVER_OK and FEATURES_OK');
  if ((status & 4) !== 0) check((status & 8) !== 0, 'DRIVER_OK without FEATURES_OK');
  if (state.resetting) check(status !== 0, 'status 0 in the middle of a reset');
  if (!active) check(rig.doorbells.size === 0, 'doorbells of a device that is not active');
  if (rig.failures.length > 0) throw new Error('a failure', { cause: rig.failures[0] });
  // Logged at a bounded rate: the clock stands still, so only the burst.
  check(rig.warnings.length <= 8, `${rig.warnings.length} warnings`);
  for (const interrupt of rig.interrupts) check(/^(msix [012]|intx (high|low))$/.test(interrupt), interrupt);
  if ((status & NEEDS_RESET) === 0) return;
  seen.needResets++;
  const { length } = rig.device.log;
  for (const ring of rig.doorbells.values()) ring();
  check(rig.device.log.length === length, 'notified while it needs a reset');
}

/** A driver that knows nothing of what was before. */
async function checkRevival(rig: VirtioPciRig): Promise<void> {
  rig.device.holdReset = false;
  rig.device.finishReset?.();
  rig.configWrite(0x10, 4, 0xc000_0000);
  rig.configWrite(0x14, 4, 0xc000_4000);
  rig.configWrite(0x04, 2, 6);
  const status = 0xc000_0000 + CommonCfg.DEVICE_STATUS;
  rig.write(status, 1, 0);
  for (let turn = 0; turn < 5 && rig.read(status, 1) !== 0n; turn++) await Promise.resolve();
  rig.initialise({ msix: true });
  check(rig.status === 0xf, `status ${rig.status} of a fresh start`);
  check(rig.device.activation !== undefined, 'not active after a fresh start');
  rig.interrupts.length = 0;
  rig.device.activation?.interrupt(1);
  check(rig.interrupts.join() === 'msix 2', `interrupts after a fresh start: ${rig.interrupts.join()}`);
  rig.write(rig.place(2) + 4, 2, 1);
  check(rig.device.log.at(-1) === 'notify 1', 'not notified after a fresh start');
}

async function execute(seed: number): Promise<void> {
  const random = new Random(seed);
  const rig = new VirtioPciRig(memory);
  if (random.chance(2)) rig.initialise({ msix: random.chance(2) });
  else rig.probe();
  for (let round = 1 + random.below(2); round > 0; round--) {
    for (let count = 4 + random.below(8); count > 0; count--) step(rig, random);
    await Promise.resolve();
    checkInvariants(rig);
  }
  seen.activations += rig.device.log.filter((entry) => entry === 'activate').length;
  if (rig.device.holdReset) seen.held++;
  await checkRevival(rig);
  await rig.pci.close();
  check(rig.device.log.at(-1) === 'close', 'not closed');
  check(rig.doorbells.size === 0, 'doorbells after the end');
}

describe('fuzzing', () => {
  it(
    'virtio registers',
    async () => {
      await fuzz('virtio registers', execute);
      // It got where the states are.
      if (FUZZ_RUNS < 1000) return;
      expect(seen.activations).toBeGreaterThan(FUZZ_RUNS / 4);
      expect(seen.needResets).toBeGreaterThan(FUZZ_RUNS / 200);
      expect(seen.held).toBeGreaterThan(FUZZ_RUNS / 200);
    },
    FUZZ_TIMEOUT_MS,
  );
});
