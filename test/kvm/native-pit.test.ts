/**
 * The steering of the kernel's PIT: acknowledged ticks against the guest's own count, and changes that lose nothing of
 * the guest's, whatever its vCPUs do.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Irqchip } from '../../lib/abi/kvm.js';
import type { KvmPitState2 } from '../../lib/abi/kvm-structs.js';
import { loadBinding } from '../../lib/kvm/binding.js';
import { Kvm, type PitChange, type PitOutcome, type PitReading } from '../../lib/kvm/index.js';
import { assemble } from '../lib/assemble.js';
import { bootPit, type PitRig } from '../lib/pit-rig.js';

// What the guests keep in memory.
const TICKS = 0x600;
const ACKED = 0x604;

const SPIN = [0xeb, 0xfe];
const HALT = [0xf4, 0xeb, 0xfd];
// in al, 0xc0; out 0xc1, al; jmp back
const ECHO = [0xe4, 0xc0, 0xe6, 0xc1, 0xeb, 0xfa];
// inc dword [0x600]; jmp back
const COUNT_UP = [0x66, 0xff, 0x06, 0x00, 0x06, 0xeb, 0xf9];

/** More than a guest can load, so that it is the host's for certain. */
const HOST = { count: 70_000, latch: 0x5a };
/** The time that a count of 65536 takes, in ns rounded down. */
const LONGEST_COUNT_NS = 54_925_401n;

const expecting = ({ count, mode, latch }: PitReading): PitChange['expected'] => ({ count, mode, latch });
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** The change, again while a vCPU has not come out in time. */
async function change(pit: PitRig['pit'], wish: PitChange): Promise<PitOutcome> {
  for (;;) {
    const outcome = await pit.change(wish);
    if (outcome.result !== 'busy') return outcome;
  }
}

/** The kernel's ids of this process's threads with that name. */
function threadsNamed(name: string): number[] {
  const tasks = readdirSync('/proc/self/task');
  return tasks.filter((id) => readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim() === name).map(Number);
}

/** Loads channel 0 with what it holds already. */
function reload({ pit }: PitRig): Promise<PitOutcome> {
  const reading = pit.read();
  const { count, latch } = reading;
  return change(pit, { expected: expecting(reading), load: { count, latch }, waitForTickNs: 0n });
}

/** Sets channels by hand; the rest as it is. */
function setChannels({ vm }: PitRig, fields: Partial<KvmPitState2['channels'][number]>[]): void {
  const state = vm.getPit();
  vm.setPit({ ...state, channels: state.channels.map((channel, index) => ({ ...channel, ...fields[index] })) });
}

describe('delivered()', () => {
  it.each([
    ['18.2 Hz', 0xffff, 8],
    ['100 Hz', 11_932, 40],
    ['250 Hz', 4773, 100],
    ['1000 Hz', 1193, 200],
    ['4000 Hz', 298, 400],
  ])('equals what the guest counts through the PIC at %s', async (_, count, stop) => {
    const { pit, cpu, memory } = await bootPit(assemble('pit-ticks', 0x1000, { COUNT: count, STOP: stop, PIN: 255 }));
    expect(pit.delivered()).toBe(0n);
    cpu.vcpu.resume();
    expect(await cpu.nextExit()).toMatchObject({ kind: 'port', port: 0xc1 });
    // The guest is in the tick that it has just acknowledged.
    expect([memory.getUint32(TICKS, true), memory.getUint32(ACKED, true)]).toEqual([stop, stop]);
    expect(pit.delivered()).toBe(BigInt(stop));
    cpu.vcpu.complete();
  });

  it.each([0, 2])('equals what the guest counts through pin %d of the IO-APIC', async (pin) => {
    const guest = assemble('pit-ticks', 0x1000, { COUNT: 1193, STOP: 200, PIN: pin });
    const { vm, pit, cpu, memory } = await bootPit(guest);
    if (pin !== 0) vm.setGsiRouting([{ gsi: 0, chip: Irqchip.IOAPIC, pin }]);
    cpu.vcpu.resume();
    expect(await cpu.nextExit()).toMatchObject({ kind: 'port', port: 0xc1 });
    expect(memory.getUint32(ACKED, true)).toBe(200);
    expect(pit.delivered()).toBe(200n);
    expect(pit.irq0Masked()).toBe(false);
    cpu.vcpu.complete();
  });

  it('is between the guest ticks and their acknowledgement wherever the guest is stopped', async () => {
    const guest = assemble('pit-ticks', 0x1000, { COUNT: 600, STOP: 0, PIN: 255 });
    const { pit, cpu, memory } = await bootPit(guest);
    let last = 0n;
    for (let round = 0; round < 50; round++) {
      cpu.vcpu.resume();
      while (pit.delivered() === last) await turn();
      await cpu.vcpu.park();
      last = pit.delivered();
      const [taken, acked] = [memory.getUint32(TICKS, true), memory.getUint32(ACKED, true)];
      // Two of them differ only while the guest is inside its handler.
      expect(BigInt(acked) <= last && last <= BigInt(taken)).toBe(true);
    }
  });

  it('counts each tick once while both sides read it', async () => {
    const guest = assemble('pit-ticks', 0x1000, { COUNT: 600, STOP: 300, PIN: 255 });
    const { pit, cpu } = await bootPit(guest);
    cpu.vcpu.resume();
    let stopped = false;
    const exit = cpu.nextExit().finally(() => (stopped = true));
    const deliveries: bigint[] = [];
    while (!stopped) {
      const waiting = pit.change({ expected: expecting(pit.read()), waitForTickNs: 5_000_000n });
      let settled = false;
      void waiting.finally(() => (settled = true));
      while (!settled) {
        await turn();
        deliveries.push(pit.delivered());
      }
      const { delivered } = await waiting;
      expect(delivered <= deliveries.at(-1)!).toBe(true);
    }
    await exit;
    expect(pit.delivered()).toBe(300n);
    expect(deliveries.every((value, index) => index === 0 || value >= deliveries[index - 1]!)).toBe(true);
    cpu.vcpu.complete();
  });
});

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

describe('an expiry', () => {
  const nominal = { count: 4773, latch: 0xa5 };

  /** Loads HOST, with an expiry. */
  async function raise(rig: PitRig, afterNs: bigint): Promise<PitOutcome> {
    setChannels(rig, [{ count: 4773, mode: 2, write_latch: 0xa5, write_state: 3 }]);
    const outcome = await change(rig.pit, {
      expected: { ...nominal, mode: 2 },
      load: HOST,
      waitForTickNs: 0n,
      expiry: { afterNs, load: nominal },
    });
    expect(outcome).toMatchObject({ result: 'applied' });
    return outcome;
  }

  const expired = ({ pit }: PitRig): Promise<PitOutcome> =>
    new Promise((resolve) => {
      pit.onExpired = resolve;
    });

  /** Nothing runs but native threads. */
  const block = (milliseconds: number): void => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
  };

  it('comes while JavaScript is blocked, and is told afterwards', async () => {
    const rig = await bootPit(COUNT_UP);
    rig.cpu.vcpu.resume();
    const { atNs } = await raise(rig, 20_000_000n);
    let told: PitOutcome | undefined;
    const telling = expired(rig).then((outcome) => (told = outcome));
    while (rig.pit.read().count === HOST.count) block(5);
    expect(rig.pit.read()).toEqual({ ...nominal, mode: 2, midWrite: false });
    expect(told).toBeUndefined();
    const outcome = await telling;
    expect(outcome).toMatchObject({ result: 'applied' });
    expect(outcome.atNs - atNs >= 20_000_000n).toBe(true);
  });

  it('does nothing once the guest has loaded the PIT itself', async () => {
    const rig = await bootPit(SPIN);
    await raise(rig, 20_000_000n);
    const told = expired(rig);
    setChannels(rig, [{ count: HOST.count, write_latch: 0x11 }]);
    expect(await told).toMatchObject({ result: 'changed', reading: { count: HOST.count, latch: 0x11 } });
    expect(rig.pit.read()).toMatchObject({ count: HOST.count, latch: 0x11 });
  });

  it('is taken back by a later change, also while that waits for a tick', async () => {
    const rig = await bootPit(SPIN);
    await raise(rig, 300_000_000n);
    const outcomes: PitOutcome[] = [];
    rig.pit.onExpired = (outcome) => outcomes.push(outcome);
    const last = { count: 1193, latch: 2 };
    const outcome = await change(rig.pit, {
      expected: { ...HOST, mode: 2 },
      load: { count: 2386, latch: 1 },
      waitForTickNs: 350_000_000n, // no tick comes: the first expiry would be due before
      expiry: { afterNs: 10_000_000n, load: last },
    });
    expect(outcome).toMatchObject({ result: 'applied' });
    while (outcomes.length === 0) await turn();
    expect(outcomes).toMatchObject([{ result: 'applied' }]);
    expect(rig.pit.read()).toMatchObject(last);
  });

  it('stands when the later change came to nothing, and waits for a measurement to end', async () => {
    const rig = await bootPit(SPIN);
    await raise(rig, 30_000_000n);
    const told = expired(rig);
    setChannels(rig, [{}, {}, { mode: 0, gate: 1, count: 65_536 }]);
    const loadedNs = rig.vm.getPit().channels[2]!.count_load_time;
    const outcome = await rig.pit.change({
      expected: { ...HOST, mode: 2 },
      load: { count: 1193, latch: 1 },
      waitForTickNs: 0n,
    });
    // On a machine that was held up for so long the measurement is over, and then the change is applied.
    if (outcome.result !== 'busy') {
      expect(outcome.atNs - loadedNs > LONGEST_COUNT_NS || outcome.result === 'changed').toBe(true);
      return;
    }
    const expiry = await told;
    expect(expiry).toMatchObject({ result: 'applied' });
    expect(expiry.atNs - loadedNs > LONGEST_COUNT_NS).toBe(true);
    expect(rig.pit.read()).toMatchObject(nominal);
  });

  it('does not keep the guest from being closed', async () => {
    const rig = await bootPit(SPIN);
    rig.cpu.vcpu.resume();
    await raise(rig, 3_600_000_000_000n);
    await rig.close();
    expect(() => rig.pit.delivered()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }) as Error);
  });
});

describe('the hold', () => {
  it('leaves vCPUs in the states they are in', async () => {
    const rig = await bootPit(ECHO, { vcpus: 2 });
    const [first, second] = rig.cpus.map(({ vcpu }) => vcpu);
    setChannels(rig, [{ count: 4773, mode: 2, write_state: 3 }]);
    expect(await reload(rig)).toMatchObject({ result: 'applied' });
    expect([first!.state, second!.state]).toEqual(['parked', 'parked']);
    first!.resume();
    const read = await rig.cpu.nextExit();
    expect(await reload(rig)).toMatchObject({ result: 'applied' });
    expect([first!.state, second!.state]).toEqual(['exit', 'parked']);
    (read as { data: Uint8Array }).data[0] = 0x77;
    first!.complete();
    expect(await rig.cpu.nextExit()).toMatchObject({ port: 0xc1, data: Uint8Array.of(0x77) });
  });

  it.each([
    ['spin', COUNT_UP, 2],
    ['are halted', HALT, 2],
  ])('takes out vCPUs that %s, and they go on', async (_, code, vcpus) => {
    const rig = await bootPit(code, { vcpus });
    setChannels(rig, [{ count: 4773, mode: 2, write_state: 3 }]);
    for (const { vcpu } of rig.cpus) vcpu.resume();
    for (let round = 0; round < 50; round++) expect(await reload(rig)).toMatchObject({ result: 'applied' });
    expect(rig.cpus.map(({ vcpu }) => vcpu.state)).toEqual(['running', 'running']);
    if (code === COUNT_UP) {
      const counted = rig.memory.getUint32(0x600, true);
      while (rig.memory.getUint32(0x600, true) === counted) await turn();
    }
    for (const { vcpu } of rig.cpus) await vcpu.park();
    const at = rig.cpus.map(({ vcpu }) => Number(vcpu.getRegs().rip) - 0x1000);
    expect(at.every((offset) => offset >= 0 && offset <= code.length)).toBe(true);
  });

  it('in storms changes nothing that the guest or JavaScript sees', async () => {
    const rig = await bootPit(ECHO);
    setChannels(rig, [{ count: 4773, mode: 2, write_state: 3 }]);
    let storming = true;
    let holds = 0;
    const storm = (async () => {
      while (storming) {
        expect(await reload(rig)).toMatchObject({ result: 'applied' });
        holds++;
      }
    })();
    rig.cpu.vcpu.resume();
    for (let round = 0; round < 300; round++) {
      const read = await rig.cpu.nextExit();
      expect(read).toMatchObject({ port: 0xc0, isWrite: false });
      (read as { data: Uint8Array }).data[0] = round & 0xff;
      if (round % 5 === 0) await turn();
      rig.cpu.vcpu.complete();
      expect(await rig.cpu.nextExit()).toMatchObject({ port: 0xc1, data: Uint8Array.of(round & 0xff) });
      rig.cpu.vcpu.complete();
    }
    storming = false;
    await storm;
    expect(holds).toBeGreaterThan(0);
  });

  it('goes together with parking, resuming and new vCPUs', async () => {
    const rig = await bootPit(COUNT_UP);
    setChannels(rig, [{ count: 4773, mode: 2, write_state: 3 }]);
    rig.cpu.vcpu.resume();
    for (let round = 0; round < 40; round++) {
      const pending = reload(rig);
      if (round % 10 === 3) rig.addCpu().vcpu.resume();
      const parked = rig.cpus.map(({ vcpu }) => vcpu.park());
      if (round % 2 === 0) await pending;
      await Promise.all(parked);
      expect(rig.cpus.every(({ vcpu }) => vcpu.state === 'parked')).toBe(true);
      for (const { vcpu } of rig.cpus) vcpu.resume();
      expect(await pending).toMatchObject({ result: 'applied' });
    }
    expect(rig.cpus).toHaveLength(5);
  });
});

describe('the end', () => {
  it('rejects a change that waits, whatever the vCPUs do, and leaves nothing', async () => {
    const { runtime } = loadBinding().dispatcher;
    const before = runtime.counts();
    for (const code of [SPIN, HALT, ECHO]) {
      const rig = await bootPit(code, { vcpus: 2 });
      setChannels(rig, [{ count: 4773, mode: 2, write_state: 3 }]);
      for (const { vcpu } of rig.cpus) vcpu.resume();
      const expected = expecting(rig.pit.read());
      const pending = rig.pit.change({ expected, load: HOST, waitForTickNs: 3_600_000_000_000n });
      const rejected = expect(pending).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      await turn();
      await rig.close();
      await rejected;
      await expect(rig.pit.change({ expected, waitForTickNs: 0n })).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    }
    // In the middle of a hold.
    for (let round = 0; round < 10; round++) {
      const rig = await bootPit(SPIN);
      setChannels(rig, [{ count: 4773, mode: 2, write_state: 3 }]);
      rig.cpu.vcpu.resume();
      const pending = rig.pit.change({ expected: expecting(rig.pit.read()), load: HOST, waitForTickNs: 0n });
      const settled = pending.catch((error: unknown) => error);
      await rig.close();
      expect(await settled).toSatisfy(
        (value: { result?: string; code?: string }) => value.result === 'applied' || value.code === 'ERR_CLOSED',
      );
    }
    expect({ ...runtime.counts(), threads: 0 }).toEqual({ ...before, threads: 0 });
  });
});

describe('irq0Masked()', () => {
  it('asks every pin that GSI 0 leads to', async () => {
    const { vm, pit } = await bootPit(SPIN);
    const setPic = (imr: number): void => vm.setIrqchip(Irqchip.PIC_MASTER, vm.getIrqchip(0).fill(imr, 2, 3));
    const setPin = (pin: number, masked: boolean): void => {
      const state = vm.getIrqchip(Irqchip.IOAPIC);
      new DataView(state.buffer).setUint32(24 + pin * 8, masked ? 0x1_0020 : 0x20, true);
      vm.setIrqchip(Irqchip.IOAPIC, state);
    };
    setPic(0xfe);
    for (const pin of [0, 2]) setPin(pin, true);
    expect(pit.irq0Masked()).toBe(false);
    setPic(0xff);
    expect(pit.irq0Masked()).toBe(true);
    setPin(0, false);
    expect(pit.irq0Masked()).toBe(false);
    vm.setGsiRouting([
      { gsi: 0, chip: Irqchip.PIC_MASTER, pin: 0 },
      { gsi: 0, chip: Irqchip.IOAPIC, pin: 2 },
      { gsi: 1, chip: Irqchip.IOAPIC, pin: 0 },
    ]);
    expect(pit.irq0Masked()).toBe(true);
    setPin(2, false);
    expect(pit.irq0Masked()).toBe(false);
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
