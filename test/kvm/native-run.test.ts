/** The raw addon: exits and their completion, ports that the thread answers itself, the order of posted and coalesced writes. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { PortReadQueue } from '../../lib/kvm/read-queue.js';
import { EXIT_IO, EXIT_MMIO, STATE } from '../lib/native-rig.mjs';
import {
  al,
  boot,
  ds,
  failure,
  halt,
  IGNORED,
  input,
  out,
  POSTED,
  PUBLISHED,
  QUEUED,
  rig,
  runtime,
  spin,
  store,
  zone,
} from '../lib/native-run.js';

describe('exits', () => {
  it('show port reads and writes, and take the answer', async () => {
    const { cpu } = boot({ code: [...input(0xc0), ...out(0xc1), ...spin] });
    expect(cpu.state()).toBe(STATE.PARKED);
    cpu.native.resume();
    const read = await cpu.nextExit();
    expect(read).toMatchObject({ reason: EXIT_IO, write: false, sizeBytes: 1, address: 0xc0, count: 1 });
    read.data[0] = 0x5a;
    cpu.native.complete();
    const write = await cpu.nextExit();
    expect(write).toMatchObject({ reason: EXIT_IO, write: true, address: 0xc1, data: Uint8Array.of(0x5a) });
    expect(cpu.counters()).toEqual({ exits: 2n, native: 0n, script: 2n, kicks: 0n });
  });

  it('show MMIO reads and writes', async () => {
    // mov al, [0]; mov [2], al with ds = 0xd000
    const { cpu } = boot({ code: [...ds(0xd000), 0xa0, 0, 0, ...store(2), ...spin] });
    cpu.native.resume();
    const read = await cpu.nextExit();
    expect(read).toMatchObject({ reason: EXIT_MMIO, write: false, sizeBytes: 1, address: 0xd0000 });
    read.data[0] = 0x77;
    cpu.native.complete();
    const write = await cpu.nextExit();
    expect(write).toMatchObject({ reason: EXIT_MMIO, write: true, address: 0xd0002 });
    expect(write.data[0]).toBe(0x77);
  });

  it('of several elements go to JavaScript even where a port is fast', async () => {
    // mov di, 0x2000; mov cx, 3; mov dx, 0xc0; rep insb
    const { cpu, portFlags, bytes } = boot({
      code: [0xbf, 0, 0x20, 0xb9, 3, 0, 0xba, 0xc0, 0, 0xf3, 0x6c, ...out(0xc1), ...spin],
    });
    portFlags[0xc0] = PUBLISHED;
    cpu.native.resume();
    const exit = await cpu.nextExit();
    expect(exit).toMatchObject({ address: 0xc0, write: false, sizeBytes: 1, count: 3 });
    exit.data.set([7, 8, 9]);
    cpu.native.complete();
    expect((await cpu.nextExit()).address).toBe(0xc1);
    expect(bytes.slice(0x2000, 0x2004)).toEqual(Uint8Array.of(7, 8, 9, 0));
  });

  it('can only be completed once', async () => {
    const { cpu } = boot({ code: [...out(0xc0), ...spin] });
    const refused = failure({ kind: 'state', name: 'vcpu 0', detail: 'no exit waits' });
    expect(() => cpu.native.complete()).toThrow(refused);
    cpu.native.resume();
    await cpu.nextExit();
    cpu.native.complete();
    expect(() => cpu.native.complete()).toThrow(refused);
  });

  it('wait as long as JavaScript likes', async () => {
    const { cpu } = boot({ code: [...input(0xc0), ...out(0xc1), ...spin] });
    runtime.setVcpuSpin(10_000);
    onTestFinished(() => runtime.setVcpuSpin(0));
    cpu.native.resume();
    await cpu.nextExit();
    cpu.native.resume(); // changes nothing
    cpu.native.kick();
    await new Promise((resolve) => setImmediate(resolve));
    expect(cpu.state()).toBe(STATE.EXIT);
    expect(cpu.counters().script).toBe(1n);
    cpu.native.complete();
    await cpu.nextExit();
  });
});

describe('ports that the thread answers', () => {
  it('published: with the value of the moment', async () => {
    const { cpu, portFlags, portValues } = boot({ code: [...input(0xc0), ...out(0xc1), 0xeb, 0xfa] });
    portFlags[0xc0] = PUBLISHED;
    for (const value of [0x11, 0xff, 0]) {
      portValues[0xc0] = value;
      if (cpu.state() === STATE.PARKED) cpu.native.resume();
      else cpu.native.complete();
      expect((await cpu.nextExit()).data[0]).toBe(value);
    }
    expect(cpu.counters()).toMatchObject({ native: 3n, script: 3n });
    portFlags[0xc0] = 0;
    cpu.native.complete();
    expect(await cpu.nextExit()).toMatchObject({ address: 0xc0, write: false });
  });

  it('published says nothing of writes, posted and ignored nothing of reads', async () => {
    const { cpu, portFlags } = boot({ code: [...out(0xc0), ...input(0xc1), ...spin] });
    portFlags[0xc0] = PUBLISHED;
    portFlags[0xc1] = POSTED | IGNORED;
    cpu.native.resume();
    expect(await cpu.nextExit()).toMatchObject({ address: 0xc0, write: true });
    cpu.native.complete();
    expect(await cpu.nextExit()).toMatchObject({ address: 0xc1, write: false });
  });

  it('queued: byte by byte, then with the published value, then by JavaScript', async () => {
    const { cpu, vm, portFlags, portValues } = boot({ code: [...input(0xc0), ...out(0xc1), 0xeb, 0xfa] });
    const queue = new PortReadQueue(vm.readQueues, 0xc0);
    portFlags[0xc0] = QUEUED | PUBLISHED;
    portValues[0xc0] = 0x99;
    const seen: number[] = [];
    const round = async () => {
      seen.push((await cpu.nextExit()).data[0]!);
      cpu.native.complete();
    };
    expect(queue.offer([7, 8, 9, 10], 1, 4)).toBe(3);
    cpu.native.resume();
    for (let count = 0; count < 4; count++) await round();
    expect(seen).toEqual([8, 9, 10, 0x99]);
    await cpu.nextExit();
    expect(queue.takenBytes()).toBe(3);
    // A full queue takes no more; what is taken back is not given.
    const many = Uint8Array.from({ length: 300 }, (_, index) => index);
    expect(queue.offer(many, 0, 300)).toBe(256);
    expect(queue.offer(many, 256, 300)).toBe(0);
    queue.clear();
    portFlags[0xc0] = QUEUED;
    cpu.native.complete();
    expect(await cpu.nextExit()).toMatchObject({ address: 0xc0, write: false });
    expect(queue.takenBytes()).toBe(0);
  });

  it('queued: is left alone by heads that make no sense', async () => {
    const { cpu, vm, portFlags } = boot({ code: [...input(0xc0), ...out(0xc1), 0xeb, 0xfa] });
    const words = new Uint32Array(vm.readQueues);
    expect(new PortReadQueue(vm.readQueues, 0xc0).offer([1], 0, 1)).toBe(1);
    portFlags[0xc0] = QUEUED;
    Atomics.store(words, 0, 0x7fff_0000); // far more than there is room for
    cpu.native.resume();
    for (let count = 0; count < 600; count++) {
      expect((await cpu.nextExit()).address).toBe(0xc1);
      cpu.native.complete();
    }
    Atomics.store(words, 0, 0x9000_0000); // behind the tail
    // The write that may be under way, then the read that nothing answers.
    while ((await cpu.nextExit()).address === 0xc1) cpu.native.complete();
    expect(cpu.exit()).toMatchObject({ address: 0xc0, write: false });
    for (let port = 1; port < 4; port++) new PortReadQueue(vm.readQueues, port);
    expect(() => new PortReadQueue(vm.readQueues, 9)).toThrow(RangeError);
  });

  it('ignored: nothing reaches anyone', async () => {
    const { cpu, portFlags, takePosted } = boot({ code: [...out(0xc0), ...out(0xc1), ...spin] });
    portFlags[0xc0] = IGNORED;
    cpu.native.resume();
    expect((await cpu.nextExit()).address).toBe(0xc1);
    expect(takePosted()).toEqual([]);
    expect(cpu.counters().native).toBe(1n);
  });

  it('posted: in order, before the exit that comes after', async () => {
    const { cpu, vm, portFlags, takePosted } = boot({
      code: [...al(1), ...out(0xc0), ...al(2), ...out(0xc2), ...al(3), ...out(0xc0), ...out(0xc1), ...spin],
    });
    portFlags[0xc0] = POSTED;
    portFlags[0xc2] = POSTED | IGNORED;
    cpu.native.resume();
    expect((await cpu.nextExit()).address).toBe(0xc1);
    expect(takePosted()).toEqual([
      { address: 0xc0, value: 1, sizeBytes: 1, space: 0 },
      { address: 0xc2, value: 2, sizeBytes: 1, space: 0 },
      { address: 0xc0, value: 3, sizeBytes: 1, space: 0 },
    ]);
    await rig.until(() => rig.rung.sources.includes(vm.sourceId));
  });

  it('only for one byte', async () => {
    // out 0xc0, ax
    const { cpu, portFlags } = boot({ code: [0xe7, 0xc0, ...spin] });
    portFlags[0xc0] = POSTED | IGNORED;
    cpu.native.resume();
    expect(await cpu.nextExit()).toMatchObject({ address: 0xc0, sizeBytes: 2 });
  });
});

describe('the posted ring', () => {
  // mov al, 0; loop: out 0xc0, al; inc al; jmp loop
  const endless = [...al(0), ...out(0xc0), 0xfe, 0xc0, 0xeb, 0xfa];

  it('holds the vCPU when it is full, and loses nothing', async () => {
    const { cpu, portFlags, takePosted, postedWaiters, postedCount } = boot({ code: endless });
    portFlags[0xc0] = POSTED;
    cpu.native.resume();
    let expected = 0;
    for (let round = 0; round < 3; round++) {
      // Both: in a second round the thread may not have seen yet that there is room again.
      while (postedCount() < 4096 || postedWaiters() === 0) await new Promise((resolve) => setImmediate(resolve));
      const taken = takePosted();
      expect(taken).toHaveLength(4096);
      expect(taken.every(({ value }) => value === (expected++ & 0xff))).toBe(true);
    }
  });

  it('lets a vCPU park that waits for room, once there is room', async () => {
    const { cpu, portFlags, takePosted, postedWaiters } = boot({ code: endless });
    portFlags[0xc0] = POSTED;
    cpu.native.resume();
    while (postedWaiters() === 0) await new Promise((resolve) => setImmediate(resolve));
    cpu.native.park();
    expect(takePosted()).toHaveLength(4096);
    await rig.until(() => cpu.state() === STATE.PARKED);
    // The write that waited is in the ring, and the instruction after it is next.
    const rest = takePosted();
    expect(rest.length).toBeGreaterThan(0);
    expect(cpu.regs()[0]! & 0xffn).toBe(BigInt((rest.at(-1)!.value + (cpu.regs()[16] === 0x1004n ? 0 : 1)) & 0xff));
  });

  it('lets a machine close whose vCPU waits for room', async () => {
    const { cpu, vm, memory, portFlags, postedWaiters } = rig.boot({ code: endless });
    portFlags[0xc0] = POSTED;
    cpu.native.resume();
    while (postedWaiters() === 0) await new Promise((resolve) => setImmediate(resolve));
    vm.close();
    memory.close();
    expect(runtime.counts().threads).toBe(1); // the event thread
  });

  it('is left alone by indices that make no sense', async () => {
    const { cpu, vm, portFlags } = boot({ code: endless });
    portFlags[0xc0] = POSTED;
    const control = new Uint32Array(vm.postedControl);
    Atomics.store(control, 0, 0xffff_fff0); // HEAD is native code's: what stands here is never read
    Atomics.store(control, 16, 0x8000_0000);
    cpu.native.resume();
    while (Atomics.load(control, 17) === 0) await new Promise((resolve) => setImmediate(resolve));
    for (let tail = 0; tail < 100; tail++) {
      Atomics.store(control, 16, (tail * 0x0123_4567) >>> 0);
      vm.postedConsumed();
    }
  });
});

describe('coalesced zones', () => {
  it('stand in the posted ring in the order of the guest, among posted writes, before the next exit', async () => {
    const { cpu, vm, portFlags, takePosted } = boot({
      code: [
        ...[...ds(0xd000), ...al(1), ...store(0), ...al(2), ...out(0xc0), ...al(3), ...store(4), ...al(4)],
        ...[...out(0x50), ...al(5), ...out(0xc1), ...spin],
      ],
    });
    vm.ioctl('KVM_REGISTER_COALESCED_MMIO', zone(0xd0000, 0x1000, false));
    vm.ioctl('KVM_REGISTER_COALESCED_MMIO', zone(0x50, 1, true));
    portFlags[0xc0] = POSTED;
    cpu.native.resume();
    expect(await cpu.nextExit()).toMatchObject({ address: 0xc1, data: Uint8Array.of(5) });
    expect(takePosted()).toEqual([
      { address: 0xd0000, value: 1, sizeBytes: 1, space: 1 },
      { address: 0xc0, value: 2, sizeBytes: 1, space: 0 },
      { address: 0xd0004, value: 3, sizeBytes: 1, space: 1 },
      { address: 0x50, value: 4, sizeBytes: 1, space: 0 },
    ]);
    vm.ioctl('KVM_UNREGISTER_COALESCED_MMIO', zone(0x50, 1, true));
    expect(cpu.counters()).toMatchObject({ script: 1n, native: 1n });
  });

  it('reach JavaScript while the guest is halted', async () => {
    const { cpu, vm, takePosted } = boot({ code: [...ds(0xd000), ...al(9), ...store(8), ...halt] });
    vm.ioctl('KVM_REGISTER_COALESCED_MMIO', zone(0xd0000, 0x1000, false));
    cpu.native.resume();
    await rig.until(() => rig.rung.sources.includes(vm.sourceId));
    expect(takePosted()).toEqual([{ address: 0xd0008, value: 9, sizeBytes: 1, space: 1 }]);
    expect(cpu.counters().exits).toBe(0n);
  });

  it('are read on request, and before a vCPU has parked', async () => {
    const { cpu, vm, takePosted } = boot({ code: [...ds(0xd000), ...al(9), ...store(8), ...halt] });
    vm.ioctl('KVM_REGISTER_COALESCED_MMIO', zone(0xd0000, 0x1000, false));
    cpu.native.resume();
    const taken: unknown[] = [];
    while (taken.length === 0) {
      vm.drainCoalesced();
      taken.push(...takePosted());
    }
    await cpu.park();
    taken.push(...takePosted());
    expect(taken).toHaveLength(1);
  });

  it('lose nothing when they are more than a ring holds', async () => {
    // mov cx, 20000; loop: mov [8], al; dec cx; jnz loop; out 0xc1
    const { cpu, vm, takePosted } = boot({
      code: [...ds(0xd000), 0xb9, 0x20, 0x4e, ...store(8), 0x49, 0x75, 0xfa, ...out(0xc1), ...spin],
    });
    vm.ioctl('KVM_REGISTER_COALESCED_MMIO', zone(0xd0000, 0x1000, false));
    cpu.native.resume();
    let writes = 0;
    await rig.until(() => {
      writes += takePosted().length;
      if (cpu.state() !== STATE.EXIT) return false;
      if (cpu.exit().reason === EXIT_IO) return true;
      writes++; // KVM's ring was full: an ordinary exit, after all that stood in it
      cpu.native.complete();
      return false;
    });
    writes += takePosted().length;
    expect(writes).toBe(20_000);
  });
});
