/** Machines of flat guests, reached by their names over their control sockets as other processes do. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { connect, listMachines, scrapeMachines, serveMachine, type RemoteMachine } from '../../lib/control/index.js';
import type { Machine } from '../../lib/machine/index.js';
import { makeGuest, readU64, until } from '../lib/machine.js';

const COUNTER = 0x20000;
const folder = mkdtempSync(join(tmpdir(), 'vivarium-control-'));
const before = process.env['XDG_RUNTIME_DIR'];
beforeAll(() => {
  process.env['XDG_RUNTIME_DIR'] = folder;
});
afterAll(() => {
  if (before === undefined) delete process.env['XDG_RUNTIME_DIR'];
  else process.env['XDG_RUNTIME_DIR'] = before;
  rmSync(folder, { recursive: true, force: true });
});

async function served(name: string): Promise<{ vm: Machine; remote: RemoteMachine }> {
  const vm = await makeGuest('count', { name, mode: 'long64', defines: { COUNTER } });
  const served = await serveMachine(vm);
  onTestFinished(async () => {
    await vm.close();
    await served.close();
  });
  expect(statSync(served.socketPath).mode & 0o777).toBe(0o600);
  return { vm, remote: await connect(name) };
}

describe('a machine that is served', () => {
  it('lives as the other end says', async () => {
    const { vm, remote } = await served('life');
    expect(remote.state).toBe('created');
    await remote.start();
    expect(vm.state).toBe('running');
    await until(() => readU64(vm, COUNTER) > 1000n);
    await expect(remote.start()).rejects.toMatchObject({ code: 'ERR_STATE' });
    await remote.pause({ clock: 'freeze' });
    expect([vm.state, remote.state]).toEqual(['paused', 'paused']);
    const stood = readU64(vm, COUNTER);
    const bytes = await remote.memory.read(COUNTER, 8);
    expect(Buffer.from(bytes).readBigUInt64LE()).toBe(stood);
    await remote.memory.write(COUNTER + 64, Buffer.from('hello'));
    expect(Buffer.from(vm.memory.read(COUNTER + 64, 5)).toString()).toBe('hello');
    await remote.resume();
    await until(() => readU64(vm, COUNTER) > stood);
    const { cpus, memoryBytes } = await remote.stats();
    expect(cpus).toHaveLength(1);
    expect(memoryBytes).toBe(16 * 1024 * 1024);
    expect(await remote.inspect()).toMatchObject({ name: 'life', state: 'running' });
    expect(await remote.pit.status()).toMatchObject({ phase: expect.any(String) as string });
    const watched = remote.watchStats({ everyMs: 50, writes: true });
    const looks = [(await watched.next()).value!, (await watched.next()).value!];
    expect(looks[0]).toMatchObject({ state: 'running', writes: { pages: expect.any(Number) as number } });
    expect(looks[1]!.writes!.pages).toBeGreaterThan(looks[0]!.writes!.pages);
    // One that is left in the middle, and one that is aborted, harm nobody.
    for await (const look of remote.watchStats({ everyMs: 50 })) {
      expect(look.state).toBe('running');
      break;
    }
    const abort = new AbortController();
    const aborted = remote.watchStats({ everyMs: 50, signal: abort.signal });
    await aborted.next();
    abort.abort();
    await expect(aborted.next()).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    const waiting = remote.wait();
    expect(await remote.kill()).toMatchObject({ reason: 'killed' });
    expect(await waiting).toMatchObject({ reason: 'killed' });
    expect(await vm.wait()).toEqual({ reason: 'killed' });
    let last: unknown;
    for await (const look of watched) last = look;
    expect(last).toMatchObject({ state: 'stopped' });
  });

  it('tells what happens to it, whoever does it, until its end', async () => {
    const { vm, remote } = await served('told');
    const taken: string[] = [];
    const listening = (async () => {
      for await (const event of remote.events()) {
        if (event.type === 'state') taken.push(event.state);
        else if (event.type === 'snapshot' && event.what !== 'progress') taken.push(`snapshot ${event.what}`);
        else if (event.type === 'ended') taken.push(`ended: ${event.reason}`);
      }
    })();
    await until(() => taken.length === 1);
    await vm.start();
    await until(() => readU64(vm, COUNTER) > 1000n);
    await remote.snapshot(join(folder, 'told'), { mode: 'paused' });
    await expect(remote.snapshot(join(folder, 'told'))).rejects.toThrow();
    await remote.pause();
    await vm.resume();
    await vm.kill();
    await listening;
    expect(taken).toEqual([
      'created',
      'running',
      'snapshot started',
      'snapshot done',
      'snapshot started',
      'snapshot failed',
      'paused',
      'running',
      'stopped',
      'ended: killed',
    ]);
  });

  it("has its counters in Prometheus's text, alone and with the others", async () => {
    const { vm, remote } = await served('counted');
    const { vm: other } = await served('other');
    await Promise.all([vm.start(), other.start()]);
    await until(() => readU64(vm, COUNTER) > 1000n && readU64(other, COUNTER) > 1000n);
    const value = (text: string, sample: string): number =>
      Number(
        text
          .split('\n')
          .find((line) => line.startsWith(`${sample} `))
          ?.slice(sample.length),
      );
    const cpuSeconds = (name: string): string => `vivarium_vcpu_cpu_seconds_total{machine="${name}",cpu="0"}`;
    const alone = await remote.metrics();
    expect(value(alone, cpuSeconds('counted'))).toBeGreaterThan(0);
    expect(value(alone, 'vivarium_machine_state{machine="counted",state="running"}')).toBe(1);
    expect(value(alone, 'vivarium_guest_memory_bytes{machine="counted"}')).toBe(16 * 1024 * 1024);
    for (const name of ['exits_total', 'exits_answered_total', 'cpu_seconds_total']) {
      expect(alone).toContain(`\nvivarium_vcpu_${name}{machine="counted",cpu="0"`);
    }
    for (const name of ['phase', 'firing_hertz', 'ticks_delivered_total', 'ticks_owed', 'lag_seconds']) {
      expect(alone).toContain(`\nvivarium_pit_${name}{machine="counted"`);
    }
    const all = await scrapeMachines();
    expect(value(all, cpuSeconds('counted'))).toBeGreaterThanOrEqual(value(alone, cpuSeconds('counted')));
    expect(value(all, cpuSeconds('other'))).toBeGreaterThan(0);
    expect(value(all, 'vivarium_scrape_failed')).toBe(0);
  });

  it('is saved as the other end says, and errors come back as they are', async () => {
    const { vm, remote } = await served('saved');
    await vm.start();
    const dir = join(folder, 'snapshot');
    const { stats, id } = await remote.snapshot(dir, { mode: 'paused' });
    expect(stats.pages).toBe(4096);
    expect(id).toMatch(/./);
    expect(readdirSync(dir)).toContain('memory');
    expect(vm.state).toBe('running');
    await expect(remote.snapshot(dir)).rejects.toMatchObject({ code: expect.stringMatching(/^ERR_S/) as string });
    await expect(remote.device('nope').contract()).rejects.toThrow(RangeError);
    await expect(remote.run({ argv: ['ls'], waitMs: 10 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
  });

  it('is listed while it lives', async () => {
    const { vm } = await served('listed');
    await vm.start();
    expect(await listMachines()).toEqual([expect.objectContaining({ name: 'listed', state: 'running' })]);
    await vm.kill();
    await expect.poll(() => listMachines()).toEqual([]);
    await expect(connect('listed')).rejects.toMatchObject({
      code: 'ERR_NO_MACHINE',
      message: expect.stringContaining('the last one ended at') as string,
    });
  });

  it('shows its console, to be waited for', async () => {
    const vm = await makeGuest('uart-letters', { name: 'letters' });
    const served = await serveMachine(vm);
    onTestFinished(() => served.close());
    const remote = await connect('letters');
    const found = remote.console.waitFor(/ABC/);
    await vm.start();
    expect((await found)[0]).toBe('ABC');
  });
});

describe('a process that was killed', () => {
  it('leaves its name to others, and nothing in the list', async () => {
    const child = spawn(
      process.execPath,
      [fileURLToPath(new URL('../lib/served-child.mjs', import.meta.url)), 'victim'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
        env: process.env,
      },
    );
    await new Promise((resolve) => child.stdout.once('data', resolve));
    const remote = await connect('victim');
    const waiting = remote.wait();
    waiting.catch(() => undefined);
    await remote.summary();
    const gone = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGKILL');
    await expect(waiting).rejects.toMatchObject({ code: 'ERR_CONTROL' });
    await gone;
    await expect(remote.summary()).rejects.toMatchObject({ code: 'ERR_NO_MACHINE' });
    expect(readdirSync(join(folder, 'vivarium', 'machines'))).not.toContain('victim');
    const { remote: next } = await served('victim');
    expect(next.record.pid).toBe(process.pid);
  });
});
