/**
 * Ends that meet something else: a guest that is in an exit most of the time is killed, paused and closed; a device has
 * not answered yet; a restart fails; nobody holds a machine any more. Whatever meets, every call resolves.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Machine } from '../../lib/machine/index.js';
import { assemble } from '../lib/assemble.js';
import { playScene } from '../lib/scenes.js';
import { CAN_PAGE } from '../lib/snapshots.js';
import { makeGuest, startGuest, until } from '../lib/machine.js';

const PORT = 0x510;
/** How often a race is run: a machine is made for each in about a third of a second of an emulated host. */
const ROUNDS = 10;

function countingDevice() {
  let reads = 0;
  return {
    reads: () => reads,
    port: {
      firstPort: PORT,
      portCount: 4,
      device: {
        name: 'counting',
        read: () => ++reads,
        write: () => undefined,
        reset: () => undefined,
        inspect: () => reads,
      },
    },
  };
}

/** A device whose first read waits for `release`, or for ever. */
function waitingDevice() {
  let release!: (value: number) => void;
  let asked = false;
  const answer = new Promise<number>((resolve) => (release = resolve));
  return {
    release,
    asked: () => asked,
    port: {
      firstPort: PORT,
      portCount: 4,
      device: {
        name: 'waiting',
        read: () => {
          asked = true;
          return answer;
        },
        write: () => undefined,
        reset: () => undefined,
        inspect: () => asked,
      },
    },
  };
}

const busy = (cpus: number) => ({ mode: 'long64' as const, cpus, memory: '2MiB', defines: { PORT, CPUS: cpus } });

describe.each([1, 2])('a machine of %i CPUs that is in an exit most of the time', (cpus) => {
  it('ends whenever it is killed', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const device = countingDevice();
      const vm = await startGuest('in-loop', { ...busy(cpus), portDevices: [device.port] });
      await until(() => device.reads() > round % 7);
      expect(await vm.kill()).toEqual({ reason: 'killed' });
      await vm.close();
    }
  });

  it('pauses and goes on whenever it is asked to', async () => {
    const device = countingDevice();
    const vm = await startGuest('in-loop', { ...busy(cpus), portDevices: [device.port] });
    for (let round = 0; round < ROUNDS; round++) {
      await vm.pause();
      const stood = device.reads();
      await new Promise((resolve) => setImmediate(resolve));
      expect(device.reads()).toBe(stood);
      await vm.resume();
      await until(() => device.reads() > stood);
    }
  });

  it('ends in the middle of a pause', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const device = countingDevice();
      const vm = await startGuest('in-loop', { ...busy(cpus), portDevices: [device.port] });
      await until(() => device.reads() > 3);
      const paused = vm.pause();
      // Its turn comes with the next microtask: from here on it waits for the CPUs.
      await Promise.resolve();
      expect(await vm.kill()).toEqual({ reason: 'killed' });
      await paused;
      expect(vm.state).toBe('stopped');
      await vm.close();
    }
  });
});

describe('a device that has not answered', () => {
  it('does not hold kill() and close()', async () => {
    const device = waitingDevice();
    const vm = await startGuest('in-loop', { ...busy(1), portDevices: [device.port] });
    await until(device.asked);
    expect(await vm.kill()).toEqual({ reason: 'killed' });
    await vm.close();
    device.release(1);
  });

  it('holds pause(), which can be aborted, and then the machine runs on', async () => {
    const device = waitingDevice();
    const vm = await startGuest('in-loop', { ...busy(1), portDevices: [device.port] });
    await until(device.asked);
    const controller = new AbortController();
    const paused = vm.pause({ signal: controller.signal });
    controller.abort('enough');
    await expect(paused).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'enough' });
    expect(vm.state).toBe('running');
    const again = vm.pause();
    device.release(1);
    await again;
    expect(vm.state).toBe('paused');
  });

  it('may answer after the machine has ended', async () => {
    const device = waitingDevice();
    const vm = await startGuest('in-loop', { ...busy(1), portDevices: [device.port] });
    await until(device.asked);
    await vm.kill();
    device.release(1);
    await new Promise((resolve) => setImmediate(resolve));
    expect(vm.state).toBe('stopped');
  });
});

describe('a restart', () => {
  it('that fails ends the machine, and says why', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'vivarium-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const flat = join(folder, 'guest.bin');
    writeFileSync(flat, assemble('port-write', 0x1000, { PORT: 0x64, VALUE: 0xfe }));
    const vm = await Machine.create({
      memory: '1MiB',
      onReset: 'restart',
      boot: { flat, address: 0x1000, mode: 'real16' },
    });
    onTestFinished(() => vm.close());
    rmSync(flat);
    await vm.start();
    const status = await vm.wait();
    expect(status).toMatchObject({ reason: 'failed', error: { code: 'ERR_KERNEL_IMAGE' } });
    expect(status.detail).toContain('the restart failed');
    expect(vm.inspect()).toMatchObject({ state: 'failed', cpus: [] });
  });

  it('leaves a machine paused that was paused meanwhile', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const vm = await makeGuest('port-write', {
        onReset: 'restart',
        memory: '1MiB',
        defines: { PORT: 0x64, VALUE: 0xfe },
      });
      await vm.start();
      await vm.pause();
      expect(vm.state).toBe('paused');
      await vm.resume();
      expect(vm.state).toBe('running');
      await vm.close();
    }
  });
});

describe('a machine that nobody holds', () => {
  it('is collected, with its threads and descriptors, unless it runs', async () => {
    const { before, during, after, stillRunning } = await playScene('collect-machine');
    expect(during).toMatchObject({ vms: 3 });
    expect(after).toEqual(before);
    expect(stillRunning).toMatchObject({ vms: 1 });
  });
});

if (CAN_PAGE) {
  it('a paused machine whose memory somebody waits for is not collected before', { timeout: 60_000 }, async () => {
    expect(await playScene('await-memory')).toEqual({ ms: expect.any(Number) });
  });
}

describe('Machine.create without descriptors to spare', () => {
  it('fails by name wherever they run out, and leaves nothing behind', async () => {
    const { before, after, made, codes } = await playScene('emfile', { descriptors: 256 });
    expect(made).toBe(1);
    expect(after).toEqual(before);
    expect((codes as string[]).length).toBeGreaterThan(0);
    for (const code of codes as string[]) expect(code).toMatch(/^ERR_\w+( EMFILE)?$/);
    expect(codes).toEqual(expect.arrayContaining([expect.stringMatching(/EMFILE/) as string]));
  });
});

describe('misspelled options', () => {
  it('are named in every call', async () => {
    const vm = await makeGuest('halt', { defines: { IDLE: 1 } });
    const wrong = { timeoutMS: 1 } as object;
    for (const call of ['start', 'resume', 'pause', 'stop', 'kill', 'wait', 'close'] as const) {
      await expect(vm[call](wrong), call).rejects.toThrow(/unknown option 'timeoutMS'/);
    }
    await expect(vm.console.waitFor(/x/, wrong)).rejects.toThrow(/did you mean 'timeoutMs'/);
  });
});
