/** Changes of the kernel's PIT that end by themselves, and the hold of the vCPUs under which each is made. */
import { describe, expect, it } from 'vitest';
import { type PitOutcome } from '../../lib/kvm/index.js';
import {
  change,
  COUNT_UP,
  ECHO,
  HALT,
  HOST,
  LONGEST_COUNT_NS,
  reload,
  setChannels,
  SPIN,
  turn,
} from '../lib/pit-guests.js';
import { bootPit, type PitRig } from '../lib/pit-rig.js';

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
    setChannels(rig, [{ count: nominal.count, mode: 2, write_latch: nominal.latch, write_state: 3 }]);
    const back = { count: nominal.count, latch: 0x5b };
    let told: PitOutcome | undefined;
    const telling = expired(rig).then((outcome) => (told = outcome));
    let outcome: PitOutcome;
    do {
      const changing = rig.pit.change({
        expected: { ...nominal, mode: 2 },
        load: HOST,
        waitForTickNs: 0n,
        expiry: { afterNs: 20_000_000n, load: back },
      });
      // From here JavaScript does nothing else, so that both the change and its end are native code's alone.
      const untilMs = performance.now() + 10_000;
      while (rig.pit.read().latch !== back.latch && performance.now() < untilMs) block(5);
      expect(told).toBeUndefined();
      outcome = await changing;
    } while (outcome.result === 'busy');
    expect(outcome).toMatchObject({ result: 'applied' });
    expect(rig.pit.read()).toEqual({ ...back, mode: 2, midWrite: false });
    const end = await telling;
    expect(end).toMatchObject({ result: 'applied' });
    expect(end.atNs - outcome.atNs >= 20_000_000n).toBe(true);
  });

  it('does nothing once the guest has loaded the PIT itself', async () => {
    const rig = await bootPit(SPIN);
    const told = expired(rig);
    await raise(rig, 1_000_000_000n); // time enough to come before it, also where JavaScript is held up
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
