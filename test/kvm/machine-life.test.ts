/** A machine's life on real KVM: start, pause, resume, ends of every kind, close. */
import { describe, expect, it } from 'vitest';
import { Kvm } from '../../lib/kvm/index.js';
import { Machine } from '../../lib/machine/index.js';
import { makeGuest, readU64, startGuest, until } from '../lib/machine.js';

const COUNTER = 0x20000;

describe('the end of a machine', () => {
  it.each(['real16', 'protected32', 'long64'] as const)('is a debug exit with its code, in %s', async (mode) => {
    const name = mode === 'real16' ? 'debug-exit' : mode === 'long64' ? 'debug-exit-64' : 'debug-exit-32';
    const vm = await startGuest(name, { mode, defines: { CODE: 42 } });
    expect(await vm.wait()).toEqual({ reason: 'debug-exit', code: 42 });
    expect(vm.state).toBe('stopped');
  });

  it('is a halt for good, found without an exit', async () => {
    const vm = await startGuest('halt', { defines: { IDLE: 0 } });
    expect(await vm.wait()).toMatchObject({ reason: 'halted' });
  });

  it('is no halt while an interrupt may come', async () => {
    const vm = await startGuest('halt', { defines: { IDLE: 1 } });
    await expect(vm.wait({ signal: AbortSignal.timeout(1500) })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(vm.state).toBe('running');
    expect(await vm.kill()).toEqual({ reason: 'killed' });
  });

  it('is a crash that shows where: triple fault', async () => {
    const vm = await startGuest('triple-fault', { mode: 'protected32' });
    const status = await vm.wait();
    expect(status.reason).toBe('crash');
    expect(status.detail).toMatch(/triple fault/);
  });

  it('is a crash that shows RIP, instruction and registers: internal error', async () => {
    const vm = await startGuest('jump-to-nothing', { mode: 'protected32' });
    const status = await vm.wait();
    expect(status.reason).toBe('crash');
    expect(status.detail).toMatch(/KVM_EXIT_INTERNAL_ERROR, suberror 1/);
    expect(status.detail).toMatch(/rip=0x00000000d0000000/);
    expect(status.detail).toMatch(/rbx=0x000000000000cafe/);
    expect(status.detail).toMatch(/instruction at 0x00000000d0000000: /);
  });

  it.each([
    ['the keyboard controller', 0x64, 0xfe],
    ['the reset register', 0xcf9, 0x06],
  ])('is a reset through %s', async (_, PORT, VALUE) => {
    const vm = await startGuest('port-write', { defines: { PORT, VALUE } });
    expect(await vm.wait()).toMatchObject({ reason: 'reset' });
  });

  it('is a new start when onReset says so, on cleared memory', async () => {
    // The first life marks memory and resets; the second finds the mark gone only if memory was cleared.
    const vm = await startGuest('reset-once', { onReset: 'restart' });
    expect(await vm.wait()).toEqual({ reason: 'debug-exit', code: 1 });
    expect(vm.inspect()).toMatchObject({ resets: 2 });
  });
});

describe('pause and resume', () => {
  it('stops the guest where it is, and lets it go on', async () => {
    const vm = await startGuest('count', { mode: 'long64', defines: { COUNTER } });
    await until(() => readU64(vm, COUNTER) > 1000n);
    await vm.pause();
    expect(vm.state).toBe('paused');
    const stood = readU64(vm, COUNTER);
    await new Promise((resolve) => setImmediate(resolve));
    expect(readU64(vm, COUNTER)).toBe(stood);
    await vm.pause();
    await vm.resume();
    await until(() => readU64(vm, COUNTER) > stood);
    expect(vm.state).toBe('running');
  });

  it('tells of its state, up to its end, until nobody listens', async () => {
    const vm = await makeGuest('count', { mode: 'long64', defines: { COUNTER } });
    const [states, first]: string[][] = [[], []];
    vm.onState((state) => states!.push(state));
    const leave = vm.onState((state) => first!.push(state));
    await vm.start();
    leave();
    await vm.pause();
    await vm.pause();
    await vm.resume();
    await vm.kill();
    expect(states).toEqual(['running', 'paused', 'running', 'stopped']);
    expect(first).toEqual(['running']);
  });

  it('survives being done often, from a machine with two CPUs', async () => {
    const vm = await startGuest('count', { mode: 'long64', cpus: 2, defines: { COUNTER } });
    let last = -1n;
    for (let round = 0; round < 50; round++) {
      await vm.pause();
      const now = readU64(vm, COUNTER);
      expect(now).toBeGreaterThanOrEqual(last);
      last = now;
      await vm.resume();
    }
    await until(() => readU64(vm, COUNTER) > last);
  });

  it('refuses what makes no sense', async () => {
    const vm = await makeGuest('count', { mode: 'long64', defines: { COUNTER } });
    await expect(vm.pause()).rejects.toMatchObject({ code: 'ERR_STATE' });
    await expect(vm.resume()).rejects.toMatchObject({ code: 'ERR_STATE' });
    await vm.start();
    await expect(vm.start()).rejects.toMatchObject({ code: 'ERR_STATE' });
    await vm.kill();
    await expect(vm.start()).rejects.toMatchObject({ code: 'ERR_STATE' });
    await expect(vm.pause()).rejects.toMatchObject({ code: 'ERR_STATE' });
  });
});

describe('close', () => {
  it('can be called twice, from any state, and memory is gone afterwards', async () => {
    const created = await makeGuest('halt', { defines: { IDLE: 1 } });
    await Promise.all([created.close(), created.close()]);
    expect(() => created.memory.read(0, 1)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
    const running = await startGuest('count', { mode: 'long64', defines: { COUNTER } });
    await running.close();
    await running.close();
    expect(await running.wait()).toEqual({ reason: 'killed' });
    const paused = await startGuest('count', { mode: 'long64', defines: { COUNTER } });
    await paused.pause();
    await paused[Symbol.asyncDispose]();
    expect(paused.state).toBe('stopped');
    expect(paused.inspect()).toMatchObject({ state: 'stopped', cpus: [] });
  });
});

describe('several at once', () => {
  it('runs eight machines in one process', async () => {
    const machines = await Promise.all(
      Array.from({ length: 8 }, (_, CODE) => startGuest('debug-exit', { defines: { CODE } })),
    );
    const ends = await Promise.all(machines.map((vm) => vm.wait()));
    expect(ends.map((end) => end.code)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it('starts a second CPU by INIT and SIPI', async () => {
    const vm = await startGuest('smp', { mode: 'long64', cpus: 2 });
    expect(await vm.wait()).toEqual({ reason: 'debug-exit', code: 0x77 });
  });
});

describe('mistakes of the caller', () => {
  it('names the KVM device that is missing, and the cure', async () => {
    const before = process.env['VIVARIUM_KVM'];
    process.env['VIVARIUM_KVM'] = '/dev/there-is-no-kvm';
    try {
      await expect(makeGuest('halt', { defines: { IDLE: 1 } })).rejects.toMatchObject({
        code: 'ERR_KVM_UNAVAILABLE',
        cure: expect.stringContaining('embedded') as string,
      });
    } finally {
      if (before === undefined) delete process.env['VIVARIUM_KVM'];
      else process.env['VIVARIUM_KVM'] = before;
    }
  });

  it('refuses more CPUs than KVM allows, and an aborted call', async () => {
    const boot = { flat: new Uint8Array([0xf4]), address: 0x1000, mode: 'real16' } as const;
    const kvm = Kvm.open();
    const tooMany = kvm.maxVcpus() + 1;
    kvm.close();
    await expect(Machine.create({ boot, cpus: tooMany, memory: '16MiB' })).rejects.toThrow(/more than this KVM allows/);
    await expect(Machine.create({ boot, memory: '16MiB' }, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
  });
});
