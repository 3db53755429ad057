/** The end of a machine whose disk does not answer: it comes in bounded time, and nothing that may still be written to goes. */
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../lib/base/clock.js';
import { Machine } from '../../lib/machine/index.js';
import { faultyDisk, memoryDisk } from '../../lib/vsp/index.js';
import { assemble } from '../lib/assemble.js';
import { until } from '../lib/machine.js';

const SECOND_NS = 1_000_000_000n;
const HOUR_NS = 3600n * SECOND_NS;
/** Of real time, between two seconds of the clock's. */
const STEP_MS = 5;
const ADDRESS = 0x10000;
const DATA = 0x30_0000;

/** A guest that reads a sector; its disk answers in an hour of `clock`. */
async function startReader(clock: ManualClock): Promise<Machine> {
  const defines = { MSIX: 1, MASTER: 1, GATED: 0, RESETS: 0, SECTOR: 3, DATA, TAKEN: 0x30_1000, GATE: 0x700 };
  const vm = await Machine.create({
    memory: '16MiB',
    debugExit: true,
    clock,
    boot: { flat: assemble('virtio-blk', ADDRESS, defines), address: ADDRESS, mode: 'long64' },
    disks: [
      {
        id: 'disk',
        backend: faultyDisk(memoryDisk('1MiB'), { clock, rules: [{ on: 'read', fault: { delayNs: HOUR_NS } }] }),
      },
    ],
  });
  await vm.start();
  await until(() => inFlight(vm) === 1);
  return vm;
}

function inFlight(vm: Machine): number {
  const { lent } = vm.inspect() as unknown as { lent: { devices: Record<string, { inFlight: number }> } };
  return lent.devices['disk']!.inFlight;
}

describe('a machine whose disk does not answer', () => {
  it('is closed after half a minute with a typed error, and its memory stays until the disk has answered', async () => {
    const clock = new ManualClock();
    const vm = await startReader(clock);
    let ended = false;
    const closed = vm.close().finally(() => (ended = true));
    closed.catch(() => undefined);
    const startNs = clock.nowNs();
    // What a close does before it waits for the disk takes real time, in which the clock must not pass the disk's hour.
    let steppedMs = 0;
    await until(() => {
      if (!ended && performance.now() - steppedMs >= STEP_MS) {
        steppedMs = performance.now();
        clock.advance(SECOND_NS);
      }
      return ended;
    });
    await expect(closed).rejects.toMatchObject({ code: 'ERR_TIMEOUT', message: expect.stringContaining('disk disk') });
    expect(clock.nowNs() - startNs).toBeLessThan(HOUR_NS);
    expect(inFlight(vm)).toBe(1);
    vm.memory.write(DATA, new Uint8Array(512).fill(0xa5));

    // The late answer finds the memory where it was.
    clock.advance(HOUR_NS);
    expect(vm.memory.read(DATA, 512).every((byte) => byte === 0)).toBe(true);
    await until(() => {
      try {
        vm.memory.read(DATA, 1);
        return false;
      } catch (error) {
        return (error as { code?: string }).code === 'ERR_CLOSED';
      }
    });
    expect(inFlight(vm)).toBe(0);
  });
});
