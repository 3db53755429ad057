/** A machine's devices on real KVM: console, devices of the user's own, faults, a blocked event loop. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { BusDevice } from '../../lib/bus/index.js';
import { makeGuest, readU64, startGuest } from '../lib/machine.js';

const PORT = 0x700;
const RESULT = 0x20000;

function device(read: () => number | Promise<number>): BusDevice {
  return { name: 'mine', read, write: () => undefined, reset: () => undefined, inspect: () => null };
}

const at = (mine: BusDevice) => ({ portDevices: [{ firstPort: PORT, portCount: 4, device: mine }] });

describe('the console', () => {
  it('goes both ways, every byte unharmed', async () => {
    const vm = await startGuest('uart-echo');
    await vm.console.waitFor(/ready\n/);
    const sent = new Uint8Array(20_000).map((_, index) => 5 + ((index * 7) % 250));
    const hash = createHash('sha256').update(sent).digest('hex');
    vm.console.write(sent);
    vm.console.write(new Uint8Array([4]));
    expect(await vm.wait()).toEqual({ reason: 'debug-exit', code: 9 });
    const all: Uint8Array[] = [];
    for await (const chunk of vm.console.output) all.push(chunk);
    const echoed = Buffer.concat(all).subarray('ready\n'.length);
    expect(echoed.length).toBe(sent.length);
    expect(createHash('sha256').update(echoed).digest('hex')).toBe(hash);
  });
});

describe("a device of the user's own", () => {
  it('answers at once, or later, without holding the event loop', async () => {
    const now = await startGuest('port-read', {
      mode: 'long64',
      defines: { PORT, RESULT },
      ...at(device(() => 0xdeadbeef)),
    });
    expect(await now.wait()).toEqual({ reason: 'debug-exit', code: 5 });
    expect(readU64(now, RESULT)).toBe(0xdeadbeefn);

    let answer: (value: number) => void = () => undefined;
    const later = await startGuest('port-read', {
      mode: 'long64',
      defines: { PORT, RESULT },
      ...at(device(() => new Promise((resolve) => (answer = resolve)))),
    });
    await expect(later.wait({ signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    answer(17);
    expect(await later.wait()).toEqual({ reason: 'debug-exit', code: 5 });
    expect(readU64(later, RESULT)).toBe(17n);
  });

  it.each([
    [
      'throws',
      () => {
        throw new Error('my bug');
      },
    ],
    ['rejects', () => Promise.reject(new Error('my bug'))],
  ])('that %s ends its own machine with a typed fault, and no other', async (_, read) => {
    const other = await startGuest('halt', { defines: { IDLE: 1 } });
    const vm = await startGuest('port-read', { mode: 'long64', defines: { PORT, RESULT }, ...at(device(read)) });
    const status = await vm.wait();
    expect(status).toMatchObject({ reason: 'failed', error: { code: 'ERR_DEVICE' } });
    expect(status.detail).toMatch(/mine.*my bug/);
    expect(vm.state).toBe('failed');
    expect(other.state).toBe('running');
  });

  it('can be paused around: the access is complete when the machine is parked', async () => {
    let asked = 0;
    let answer: (value: number) => void = () => undefined;
    const vm = await startGuest('port-read', {
      mode: 'long64',
      defines: { PORT, RESULT },
      ...at(device(() => (asked++, new Promise((resolve) => (answer = resolve))))),
    });
    while (asked === 0) await new Promise((resolve) => setImmediate(resolve));
    const paused = vm.pause();
    answer(0x1234);
    await paused;
    const cpu = (vm.inspect() as { cpus: { regs: { rax: string } }[] }).cpus[0];
    expect(cpu?.regs.rax).toBe('0x1234');
    await vm.resume();
    expect(await vm.wait()).toEqual({ reason: 'debug-exit', code: 5 });
    expect(asked).toBe(1);
  });

  it('may not stand where one of the machine stands', async () => {
    const clash = { portDevices: [{ firstPort: 0x3f8, portCount: 8, device: device(() => 0) }] };
    await expect(makeGuest('halt', { defines: { IDLE: 1 }, ...clash })).rejects.toThrow(/overlaps/);
  });
});

describe('a blocked event loop', () => {
  it('makes the guest wait, and nothing else', async () => {
    const vm = await makeGuest('port-read', { mode: 'long64', defines: { PORT, RESULT }, ...at(device(() => 3)) });
    const started = vm.start();
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5000);
    await started;
    expect(await vm.wait()).toEqual({ reason: 'debug-exit', code: 5 });
  });
});
