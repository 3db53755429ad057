/** The port of QEMU's agent on machines: there when it is asked for, and again in the machine of a snapshot without a word of the caller's. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { Machine } from '../../lib/machine/index.js';
import { callbackConsole } from '../../lib/vsp/index.js';
import { makeGuest } from '../lib/machine.js';

it('is there when it is asked for, and in clones', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-qemu-agent-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const without = await makeGuest('halt', { defines: { IDLE: 1 } });
  expect(without.qemuAgentPort).toBeUndefined();

  const vm = await makeGuest('halt', { defines: { IDLE: 1 }, qemuAgent: true });
  expect(vm.qemuAgentPort).toMatchObject({ isOpen: false });
  expect(vm.device('qemu-agent').contract.backend).toEqual({ kind: 'qemu-agent' });
  await vm.start();
  await vm.snapshot(join(folder, 'snap'));

  const clone = await Machine.restore(join(folder, 'snap'), { start: false });
  onTestFinished(() => clone.close());
  expect(clone.qemuAgentPort).toMatchObject({ isOpen: false });
  expect(clone.qemuAgentPort).not.toBe(vm.qemuAgentPort);

  const own = { console: { 'qemu-agent': callbackConsole(() => undefined) } };
  const overridden = await Machine.restore(join(folder, 'snap'), { start: false, overrides: own });
  onTestFinished(() => overridden.close());
  expect(overridden.qemuAgentPort).toBeUndefined();
  expect(overridden.device('qemu-agent').contract.backend).toEqual({ kind: 'callbacks' });
});

it('of a name alone is what its caller says that it stands on', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-qemu-agent-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const backend = callbackConsole(() => undefined);
  const ports = [{ id: 'mine', name: 'org.qemu.guest_agent.0', backend }];
  const vm = await makeGuest('halt', { defines: { IDLE: 1 }, consolePorts: ports });
  expect(vm.qemuAgentPort).toBeUndefined();
  await vm.start();
  await vm.snapshot(join(folder, 'snap'));
  await expect(Machine.restore(join(folder, 'snap'), { start: false })).rejects.toMatchObject({
    code: 'ERR_SNAPSHOT',
    cure: expect.stringMatching(/console: \{ 'mine'/) as string,
  });
});
