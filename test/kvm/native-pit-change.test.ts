/** Changes of the kernel's PIT that lose nothing of the guest's, whatever its vCPUs do. */
import { setPriority } from 'node:os';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { KvmPitState2 } from '../../lib/abi/kvm-structs.js';
import { Kvm, type PitChange, type PitReading } from '../../lib/kvm/index.js';
import { assemble } from '../lib/assemble.js';
import {
  ACKED,
  change,
  expecting,
  HOST,
  LONGEST_COUNT_NS,
  reload,
  setChannels,
  SPIN,
  threadsNamed,
  turn,
} from '../lib/pit-guests.js';
import { bootPit } from '../lib/pit-rig.js';

describe('change()', () => {
  it('changes the count and the latch of channel 0, and nothing else', async () => {
    const rig = await bootPit(SPIN);
    const latched = { count_latched: 3, latched_count: 0x1234, status_latched: 1, status: 0xb4 };
    setChannels(rig, [
      { ...latched, count: 4773, mode: 2, read_state: 3, write_state: 3, write_latch: 0xa5, rw_mode: 3 },
      { ...latched, count: 18, mode: 2, read_state: 4, write_state: 4, write_latch: 7, rw_mode: 3 },
      { ...latched, count: 1000, mode: 3, read_state: 1, write_state: 2, write_latch: 9, rw_mode: 1, gate: 1 },
    ]);
    rig.vm.setPit({ ...rig.vm.getPit(), flags: 2 });
    const before = rig.vm.getPit();
    const reading = rig.pit.read();
    expect(reading).toEqual({ count: 4773, mode: 2, latch: 0xa5, midWrite: false });
    const startedNs = process.hrtime.bigint();
    const outcome = await change(rig.pit, { expected: expecting(reading), load: HOST, waitForTickNs: 0n });
    expect(outcome).toMatchObject({ result: 'applied', delivered: 0n });
    expect(outcome.atNs >= startedNs && outcome.atNs <= process.hrtime.bigint()).toBe(true);
    const after = rig.vm.getPit();
    const timeless = (state: KvmPitState2): unknown => ({
      ...state,
      channels: state.channels.map((channel) => ({ ...channel, count_load_time: 0n })),
    });
    const [first, ...others] = before.channels;
    const changed = { ...first!, count: HOST.count, write_latch: HOST.latch };
    expect(timeless(after)).toEqual(timeless({ ...before, channels: [changed, ...others] }));
    // The kernel loads the others anew, at this moment.
    expect(after.channels[1]!.count_load_time <= outcome.atNs).toBe(true);
    expect(after.channels[1]!.count_load_time >= startedNs).toBe(true);
  });

  it('fires at the new rate, and the guest counts on', async () => {
    const guest = assemble('pit-ticks', 0x1000, { COUNT: 0xffff, STOP: 100, PIN: 255 });
    const { pit, cpu, memory } = await bootPit(guest);
    cpu.vcpu.resume();
    while (pit.delivered() === 0n) await turn();
    const outcome = await change(pit, {
      expected: { count: 0xffff, mode: 2, latch: 0xff },
      load: { count: 1193, latch: 1 },
      reinject: false,
      waitForTickNs: 100_000_000n,
    });
    expect(outcome).toMatchObject({ result: 'applied' });
    await cpu.nextExit();
    expect(memory.getUint32(ACKED, true)).toBe(100);
    expect(pit.delivered()).toBe(100n);
    expect(pit.read()).toEqual({ count: 1193, mode: 2, latch: 1, midWrite: false });
    cpu.vcpu.complete();
  });

  it('waits for a tick, which may be read by JavaScript first', async () => {
    const guest = assemble('pit-ticks', 0x1000, { COUNT: 11_932, STOP: 0, PIN: 255 });
    const { pit, cpu } = await bootPit(guest);
    cpu.vcpu.resume();
    while (pit.delivered() === 0n) await turn();
    for (let round = 0; round < 10; round++) {
      const before = pit.delivered();
      // A minute: the test would not end in time if a tick were missed.
      const pending = pit.change({ expected: expecting(pit.read()), waitForTickNs: 60_000_000_000n });
      if (round % 2 === 0) while (pit.delivered() === before) await turn();
      expect((await pending).delivered > before).toBe(true);
    }
  });

  it('does nothing to a PIT whose guest was faster, or is in the middle of a load', async () => {
    const { pit, cpu } = await bootPit(assemble('pit-reload', 0x1000, { COUNT: 4773 }));
    const own = { count: 4773, mode: 2, latch: 4773 & 0xff };
    cpu.vcpu.resume();
    expect(await cpu.nextExit()).toMatchObject({ port: 0xc2 });
    cpu.vcpu.complete();
    expect(await cpu.nextExit()).toMatchObject({ port: 0xc1 });
    for (const load of [HOST, { count: 4773, latch: 0x5a }]) {
      expect(await change(pit, { expected: own, load, waitForTickNs: 0n })).toMatchObject({ result: 'applied' });
      const loaded = { ...load, mode: 2 };
      expect(pit.read()).toEqual({ ...loaded, midWrite: false });
      const next = { expected: loaded, load: { count: 1000, latch: 1 }, waitForTickNs: 0n };

      cpu.vcpu.complete();
      expect(await cpu.nextExit()).toMatchObject({ port: 0xc2 });
      const middle = { ...loaded, latch: 4773 & 0xff, midWrite: true };
      expect(await change(pit, next)).toMatchObject({ result: 'changed', reading: middle });
      const honest = { ...next, expected: expecting(middle) };
      expect(await change(pit, honest)).toMatchObject({ result: 'changed', reading: middle });
      expect(pit.read()).toEqual(middle);

      // The very count that it may hold already: the mark tells.
      cpu.vcpu.complete();
      expect(await cpu.nextExit()).toMatchObject({ port: 0xc1 });
      expect(await change(pit, next)).toMatchObject({ result: 'changed', reading: { ...own, midWrite: false } });
      expect(pit.read()).toEqual({ ...own, midWrite: false });
    }
    const otherMode = { expected: { ...own, mode: 3 }, load: HOST, waitForTickNs: 0n };
    expect(await change(pit, otherMode)).toMatchObject({ result: 'changed' });
  });

  it('leaves alone a one-shot count of channel 2', async () => {
    const rig = await bootPit(SPIN);
    setChannels(rig, [{ count: 4773, mode: 2, write_state: 3 }]);
    const seen = new Set<string>();
    for (const mode of [0, 1, 4, 5, 0, 1, 4, 5]) {
      setChannels(rig, [{}, {}, { mode, gate: 1, count: 65_536 }]);
      const loadedNs = rig.vm.getPit().channels[2]!.count_load_time;
      const { count, latch } = rig.pit.read();
      const wish = { expected: { count, mode: 2, latch }, load: { count: count + 1, latch }, waitForTickNs: 0n };
      const outcome = await rig.pit.change(wish);
      seen.add(outcome.result);
      if (outcome.result === 'busy') expect(rig.vm.getPit().channels[2]!.count_load_time).toBe(loadedNs);
      else expect(outcome.atNs - loadedNs > LONGEST_COUNT_NS).toBe(true);
      // It runs out by itself.
      expect(await change(rig.pit, { ...wish, expected: expecting(rig.pit.read()) })).toMatchObject({
        result: 'applied',
      });
    }
    expect(seen).toContain('busy');
    for (const idle of [
      { mode: 0, gate: 0 },
      { mode: 2, gate: 1 },
      { mode: 3, gate: 1 },
    ]) {
      setChannels(rig, [{}, {}, idle]);
      expect(await reload(rig)).toMatchObject({ result: 'applied' });
    }
  });

  it('reads a PIT that was never programmed as count 0', async () => {
    const { vm, pit } = await bootPit(SPIN);
    expect(pit.read()).toEqual({ count: 0, mode: 0, latch: 0, midWrite: false });
    const expected = expecting(pit.read());
    const outcome = await change(pit, { expected, reinject: false, waitForTickNs: 0n });
    expect(outcome).toMatchObject({ result: 'applied' });
    expect(vm.getPit().channels[0]!.mode).toBe(0xff);
  });

  it('takes one at a time, and checks what it takes', async () => {
    const rig = await bootPit(SPIN);
    const { vm, pit } = rig;
    setChannels(rig, [{ count: 4773, mode: 2, write_latch: 3 }]);
    const good: PitChange = { expected: { count: 4773, mode: 2, latch: 3 }, load: HOST, waitForTickNs: 0n };
    const pending = pit.change({ ...good, waitForTickNs: 100_000_000n });
    await expect(pit.change(good)).rejects.toMatchObject({ code: 'ERR_STATE' });
    expect(await pending).toMatchObject({ result: 'applied' });
    const refuse = async (wrong: object, kind: typeof TypeError | typeof RangeError): Promise<void> => {
      await expect(pit.change({ ...good, ...wrong })).rejects.toThrow(kind);
    };
    await refuse({ load: { count: 0, latch: 1 } }, RangeError);
    await refuse({ load: { count: 2 ** 32, latch: 1 } }, RangeError);
    await refuse({ load: { count: 1.5, latch: 1 } }, RangeError);
    await refuse({ load: { count: 1, latch: 256 } }, RangeError);
    await refuse({ load: { count: 1 } }, TypeError);
    await refuse({ load: null }, TypeError);
    await refuse({ expected: undefined }, TypeError);
    await refuse({ expected: { count: 1, mode: 6, latch: 0 } }, RangeError);
    await refuse({ expected: { count: NaN, mode: 2, latch: 0 } }, RangeError);
    await refuse({ reinject: 1 }, TypeError);
    await refuse({ waitForTickNs: 5 }, TypeError);
    await refuse({ waitForTickNs: -1n }, RangeError);
    await refuse({ waitForTickNs: 1n << 63n }, RangeError);
    await refuse({ expiry: { afterNs: 1n << 64n, load: HOST } }, RangeError);
    await refuse({ expiry: { afterNs: 1n } }, TypeError);
    expect(() => vm.openPit()).toThrow(expect.objectContaining({ code: 'ERR_STATE' }) as Error);
  });

  it('is not to be had where the kernel has no PIT', async () => {
    const kvm = Kvm.open();
    const vm = await kvm.createVm();
    onTestFinished(async () => {
      await vm.close();
      kvm.close();
    });
    expect(() => vm.openPit()).toThrow(expect.objectContaining({ code: 'ERR_KVM', ioctl: 'KVM_GET_PIT2' }) as Error);
    vm.createIrqchip();
    vm.createPit();
    expect(vm.openPit().delivered()).toBe(0n);
  });
});

// The last of this file, since only root can give the native thread its time back.
describe('a change against a guest that loads all the time', () => {
  // A native thread that the kernel takes the core away from lets the guest run in the middle of its work, were it not
  // for the hold; on a host of one CPU nothing else does.
  it.each([
    ['', 1000, 0],
    [' while the native thread is short of time', 300, 19],
  ])('never overwrites a load%s', async (_, rounds, niceness) => {
    const { pit, cpu, memory } = await bootPit(assemble('pit-race', 0x1000));
    for (const tid of threadsNamed('vivarium-events')) setPriority(tid, niceness);
    const seen = { applied: 0, changed: 0, busy: 0 };
    const guestsOwn = (): PitReading => {
      const written = memory.getUint16(0x608, true);
      return { count: written || 65_536, mode: 2, latch: written & 0xff, midWrite: false };
    };
    let delay = 1000;
    cpu.vcpu.resume();
    await cpu.nextExit();
    for (let round = 0; round < rounds; round++) {
      const before = guestsOwn();
      // How long the guest waits is steered towards the moment of the change, from both sides.
      memory.setUint32(0x600, Math.round(delay), true);
      memory.setUint16(0x604, 1 + (round % 8), true);
      const pending = pit.change({ expected: expecting(before), load: HOST, waitForTickNs: 300_000n });
      cpu.vcpu.complete();
      const exit = cpu.nextExit();
      const outcome = await pending;
      await exit;
      seen[outcome.result]++;
      // Whether the change came first, in the middle or last: the guest's last load is in force.
      expect(pit.read()).toEqual(guestsOwn());
      if (outcome.result === 'applied') delay = Math.max(1, delay * 0.8);
      else delay = Math.min(10_000_000, delay * 1.25 + 1);
    }
    expect(seen.applied).toBeGreaterThan(0);
    expect(seen.changed).toBeGreaterThan(0);
  });
});
