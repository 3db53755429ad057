/** The agent's end behind a port of the provider: who is told of whom, and what is not kept for another agent. */
import { expect, it } from 'vitest';
import { QemuAgentClient } from '../../agent/qemu/client.js';
import { FakeQemuGa } from '../../agent/qemu/fake-qemu-ga.js';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { AgentPortBackend } from './agent-port.js';
import type { ConsoleGuestEnd } from './contract.js';
import { ConsolePort } from './port.js';
import { fileConsole } from './file.js';

const NAME = 'org.qemu.guest_agent.0';

/** A guest whose driver has the port; `room` is what it has buffers for. */
class Guest implements ConsoleGuestEnd {
  readonly got: Buffer[] = [];
  room = Infinity;
  isHostOpen = false;
  onBytes: ((bytes: Uint8Array) => void) | undefined;
  offer(bytes: Uint8Array): number {
    const taken = Math.min(this.room, bytes.length);
    this.room -= taken;
    if (taken > 0) this.got.push(Buffer.from(bytes.subarray(0, taken)));
    if (taken > 0) this.onBytes?.(Uint8Array.from(bytes.subarray(0, taken)));
    return taken;
  }
  hostOpen(open: boolean): void {
    this.isHostOpen = open;
  }
  resize(): void {
    // It is no terminal.
  }
  get text(): string {
    return Buffer.concat(this.got).toString('latin1');
  }
}

function rig() {
  const backend = new AgentPortBackend();
  const port = new ConsolePort(NAME, false, backend, { clock: new ManualClock(), logger: silentLogger });
  const guest = new Guest();
  port.attach(guest);
  return { backend, port, guest };
}

/** An agent in the guest. */
function runAgent(port: ConsolePort, guest: Guest): FakeQemuGa {
  const ga = new FakeQemuGa();
  guest.onBytes = (bytes) => void ga.send(bytes);
  ga.onReceive = (bytes) => void port.output(bytes);
  port.guestOpen(true);
  return ga;
}

it('an agent that opens the port is greeted, and one that comes after it anew', async () => {
  const { backend, port, guest } = rig();
  expect(guest.isHostOpen).toBe(true);
  const client = new QemuAgentClient(backend, { clock: new ManualClock() });
  expect(guest.text).toBe('');
  const first = runAgent(port, guest);
  await client.ready();
  port.guestOpen(false);
  expect(client.info).toBeUndefined();
  const second = runAgent(port, guest);
  await client.ready();
  for (const ga of [first, second]) {
    expect(ga.requests.map(({ execute }) => execute)).toEqual(['guest-sync-delimited', 'guest-info']);
  }
});

it('is open where the guest of a snapshot has it open, before anybody asks', async () => {
  const { backend, port, guest } = rig();
  runAgent(port, guest);
  const client = new QemuAgentClient(backend, { clock: new ManualClock() });
  await expect(client.ready()).resolves.toMatchObject({ version: '7.2.0' });
});

it('waits while the guest has no buffers, and goes on', async () => {
  const { backend, port, guest } = rig();
  port.guestOpen(true);
  guest.room = 3;
  let isSent = false;
  const sent = backend.send(Buffer.from('request\n')).then(() => (isSent = true));
  await Promise.resolve();
  expect([isSent, guest.text]).toEqual([false, 'req']);
  guest.room = Infinity;
  port.onGuestReady();
  await sent;
  expect(guest.text).toBe('request\n');
});

it('what waits for an agent is given to no other one, and to none of another machine', () => {
  const { backend, port, guest } = rig();
  port.guestOpen(true);
  guest.room = 0;
  void backend.send(Buffer.from('{"execute": "guest-shutdown"}\n'));
  const saved = port.state();
  expect(saved.pending.length).toBe(30);
  port.guestOpen(false);
  guest.room = Infinity;
  port.guestOpen(true);
  expect(guest.text).toBe('');

  const clone = rig();
  clone.port.restore(saved);
  clone.port.guestOpen(true);
  expect(clone.guest.text).toBe('');
});

it('ends with the port, with another backend, and with the driver', async () => {
  for (const end of ['close', 'rebind', 'detach'] as const) {
    const { backend, port } = rig();
    const told: boolean[] = [];
    backend.onOpen = (isOpen) => told.push(isOpen);
    port.guestOpen(true);
    if (end === 'close') await port.close();
    else if (end === 'rebind') await port.rebind(await fileConsole('/dev/null').open());
    else port.attach(undefined);
    expect([told, backend.isOpen], end).toEqual([[true, false], false]);
  }
});

it('serves one port at a time', () => {
  const { backend } = rig();
  expect(() => backend.open()).toThrow(expect.objectContaining({ code: 'ERR_STATE' }));
});
