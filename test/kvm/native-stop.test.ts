/** The raw addon: vCPU threads that are parked, kicked, fail, or are several. */
import { describe, expect, it } from 'vitest';
import { EXIT_MMIO, STATE } from '../lib/native-rig.mjs';
import { al, boot, ds, failure, halt, input, out, POSTED, PUBLISHED, rig, spin } from '../lib/native-run.js';

describe('park', () => {
  it('acknowledges through the queue, and resume goes on where it was', async () => {
    const { cpu } = boot({ code: [0xc0, ...spin.map((byte) => (byte === 0xfe ? 0xfd : byte))] }); // inc ax; jmp -3
    cpu.native.park(); // never started: nothing to do
    cpu.native.resume();
    rig.rung.sources.length = 0;
    cpu.native.park();
    cpu.native.park();
    await rig.until(() => rig.rung.sources.includes(cpu.native.sourceId));
    expect(cpu.state()).toBe(STATE.PARKED);
    const first = cpu.regs()[0]!;
    cpu.native.resume();
    cpu.native.resume();
    expect(cpu.state()).toBe(STATE.RUNNING);
    await cpu.park();
    expect(cpu.regs()[0]).not.toBe(first - 1n);
  });

  it('completes a port read that JavaScript has just answered, before it acknowledges', async () => {
    const { cpu } = boot({ code: [...input(0xc0), ...out(0xc1), ...spin] });
    cpu.native.resume();
    const exit = await cpu.nextExit();
    expect(cpu.regs()[16]).toBe(0x1000n); // not finished: the instruction is still the `in`
    cpu.native.park();
    await new Promise((resolve) => setImmediate(resolve));
    expect(cpu.state()).toBe(STATE.EXIT); // the exit comes first
    exit.data[0] = 0x5a;
    cpu.native.complete();
    await rig.until(() => cpu.state() === STATE.PARKED);
    expect(cpu.regs()[16]).toBe(0x1002n);
    expect(cpu.regs()[0]! & 0xffn).toBe(0x5an);
    cpu.native.resume();
    expect((await cpu.nextExit()).data[0]).toBe(0x5a);
  });

  it('completes a posted write as well', async () => {
    const { cpu, portFlags, takePosted } = boot({ code: [...out(0xc0), 0xeb, 0xfc] });
    portFlags[0xc0] = POSTED;
    cpu.native.resume();
    for (let round = 0; round < 20; round++) {
      await cpu.park();
      takePosted();
      expect([0x1000n, 0x1002n]).toContain(cpu.regs()[16]);
      cpu.native.resume();
    }
  });

  it('serves both halves of a split access', async () => {
    // mov eax, [0xffe] with ds = 0xcfff... the access of 4 bytes crosses from page 0xd0000 into 0xd1000
    const { cpu } = boot({ code: [...ds(0xd000), 0x66, 0xa1, 0xfe, 0x0f, ...out(0xc1), ...spin] });
    cpu.native.resume();
    const exit = await cpu.nextExit();
    expect(exit).toMatchObject({ reason: EXIT_MMIO, address: 0xd0ffe });
    exit.data.fill(0x11);
    cpu.native.park();
    cpu.native.complete();
    await rig.until(() => cpu.state() === STATE.PARKED || cpu.state() === STATE.EXIT);
    if (cpu.state() === STATE.EXIT) {
      const second = cpu.exit();
      expect(second).toMatchObject({ reason: EXIT_MMIO, address: 0xd1000 });
      second.data.fill(0x22);
      cpu.native.complete();
      await rig.until(() => cpu.state() === STATE.PARKED);
      expect(cpu.regs()[0]).toBe(0x2222_1111n);
    }
  });

  it('is withdrawn by a resume that comes before it', async () => {
    const { cpu } = boot({ code: [...input(0xc0), ...out(0xc1), ...spin] });
    cpu.native.resume();
    await cpu.nextExit();
    cpu.native.park();
    cpu.native.resume();
    cpu.native.complete();
    expect((await cpu.nextExit()).address).toBe(0xc1);
  });

  it('comes out of a halt', async () => {
    const { cpu } = boot({ code: halt });
    cpu.native.resume();
    await cpu.park();
    const KVM_MP_STATE_HALTED = 3;
    while (cpu.native.ioctl('KVM_GET_MP_STATE')[0] !== KVM_MP_STATE_HALTED) {
      cpu.native.resume();
      await cpu.park();
    }
  });

  it('and resume in any order never tear the state', async () => {
    const { cpu, portFlags, takePosted } = boot({ code: [...out(0xc0), ...input(0xc2), 0xeb, 0xfa] });
    portFlags[0xc0] = POSTED;
    cpu.native.resume();
    for (let round = 0; round < 300; round++) {
      if (round % 3 === 0) cpu.native.kick();
      if (cpu.state() === STATE.EXIT) cpu.native.complete();
      cpu.native.park();
      if (round % 2 === 0) cpu.native.resume();
      else {
        await rig.until(() => {
          takePosted();
          if (cpu.state() === STATE.EXIT) cpu.native.complete();
          return cpu.state() === STATE.PARKED;
        });
        expect(cpu.regs()[16]! >= 0x1000n && cpu.regs()[16]! <= 0x1006n).toBe(true);
        cpu.native.resume();
      }
    }
  });
});

describe('kick', () => {
  it('is never lost: each one that is waited for is counted', async () => {
    const { cpu } = boot({ code: spin });
    cpu.native.resume();
    for (let round = 0; round < 200; round++) {
      const { kicks } = cpu.counters();
      cpu.native.kick();
      while (cpu.counters().kicks === kicks) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(cpu.state()).toBe(STATE.RUNNING);
  });

  it('in storms changes nothing that the guest or JavaScript sees', async () => {
    // in al, 0xc0; out 0xc1, al; jmp back
    const { cpu } = boot({ code: [...input(0xc0), ...out(0xc1), 0xeb, 0xfa] });
    cpu.native.resume();
    for (let round = 0; round < 300; round++) {
      for (let kick = 0; kick < round % 5; kick++) cpu.native.kick();
      const read = await cpu.nextExit();
      expect(read.address).toBe(0xc0);
      read.data[0] = round & 0xff;
      cpu.native.kick();
      cpu.native.complete();
      cpu.native.kick();
      const write = await cpu.nextExit();
      expect([write.address, write.data[0]]).toEqual([0xc1, round & 0xff]);
      cpu.native.complete();
    }
  });

  it('takes a halted vCPU out, and a parked one not', async () => {
    const { cpu } = boot({ code: halt });
    cpu.native.kick(); // no thread yet
    cpu.native.resume();
    cpu.native.kick();
    while (cpu.counters().kicks === 0n) await new Promise((resolve) => setImmediate(resolve));
    await cpu.park();
    const { kicks } = cpu.counters();
    cpu.native.kick();
    expect(cpu.counters().kicks).toBe(kicks);
    expect(cpu.state()).toBe(STATE.PARKED);
  });
});

describe('a KVM_RUN that fails', () => {
  it('ends in the state failed, with the errno', async () => {
    const { cpu } = boot({ code: spin });
    cpu.run.setBigUint64(288, 1n << 31n, true); // kvm_run.kvm_valid_regs: a bit that KVM does not know, of those it looks at
    cpu.native.resume();
    await rig.until(() => cpu.state() === STATE.FAILED);
    expect(cpu.runErrno()).toBe(22);
    expect(() => cpu.native.resume()).toThrow(failure({ kind: 'state', detail: 'KVM_RUN failed' }));
    cpu.native.park();
    cpu.native.kick();
    expect(cpu.state()).toBe(STATE.FAILED);
    expect(cpu.regs()[16]).toBe(0x1000n); // what it was can be looked at
  });

  it('is no way out of kvm_run: a data offset of JavaScript is bounded', async () => {
    const { cpu, portFlags } = boot({ code: [...input(0xc0), ...out(0xc1), ...spin] });
    portFlags[0xc0] = PUBLISHED;
    cpu.run.setBigUint64(40, 1n << 40n, true);
    cpu.native.resume();
    expect((await cpu.nextExit()).address).toBe(0xc1); // KVM wrote its own offset; ours never mattered
  });
});

describe('several', () => {
  it('machines with several vCPUs each keep to themselves', async () => {
    // out 0xc0 + id, al; then ask for a value, add it, and again
    const program = (port: number): number[] => [...input(port), ...out(port + 1), 0xeb, 0xfa];
    const machines = [
      boot({ code: [program(0xc0), program(0x50)], vcpus: 2 }),
      boot({ code: [program(0xd0), program(0xe0)], vcpus: 2 }),
    ];
    const cpus = machines.flatMap(({ cpus: both }) => both);
    const ports = [0xc0, 0x50, 0xd0, 0xe0];
    for (const cpu of cpus) cpu.native.resume();
    for (let round = 0; round < 50; round++) {
      const reads = await Promise.all(cpus.map((cpu) => cpu.nextExit()));
      expect(reads.map(({ address }) => address)).toEqual(ports);
      reads.forEach((read, index) => (read.data[0] = round + index));
      for (const cpu of cpus) cpu.native.complete();
      const writes = await Promise.all(cpus.map((cpu) => cpu.nextExit()));
      expect(writes.map(({ data }) => data[0])).toEqual(ports.map((_, index) => round + index));
      for (const cpu of cpus) cpu.native.complete();
    }
    machines[0]!.close();
    const [, , third] = cpus;
    expect((await third!.nextExit()).address).toBe(0xd0);
  });

  it('vCPUs post into one ring', async () => {
    const program = (port: number): number[] => [...al(0), ...out(port), 0xfe, 0xc0, 0x75, 0xfa, ...out(0x90), ...spin];
    const { cpus, portFlags, takePosted } = boot({ code: [program(0xc0), program(0x50)], vcpus: 2 });
    portFlags[0xc0] = portFlags[0x50] = POSTED;
    for (const cpu of cpus) cpu.native.resume();
    for (const cpu of cpus) expect((await cpu.nextExit()).address).toBe(0x90);
    const posted = takePosted();
    for (const port of [0xc0, 0x50]) {
      expect(posted.filter(({ address }) => address === port).map(({ value }) => value)).toEqual(
        Array.from({ length: 256 }, (_, value) => value),
      );
    }
  });
});
