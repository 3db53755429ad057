/**
 * Network interfaces of machines, as a driver in a flat guest finds and uses them on real KVM: frames between two guests
 * over a switch and to networks of the test's own, rebinds, link, resets, and addresses that nobody has twice.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { EtherType } from '../../lib/abi/inet.js';
import type { Machine } from '../../lib/machine/index.js';
import { networkSwitch, type NetSource } from '../../lib/vsp/index.js';
import { FakeNetwork } from '../../lib/vsp/net/testing.js';
import { makeGuest, startGuest, until } from '../lib/machine.js';
import {
  BACK,
  echoesOf,
  FRAME,
  HEADER,
  isDriven,
  nicGuest,
  OWN,
  ownRuntimeFolder,
  RX,
  TestNetwork,
  TX,
  typeOf,
} from '../lib/nic-guest.js';

ownRuntimeFolder();

interface Nic {
  readonly linkUp: boolean;
  readonly mac: string;
  readonly dropped: Record<string, number>;
}

const nic = (vm: Machine, id = 'net0') =>
  (vm.inspect() as unknown as { lent: { devices: Record<string, Nic> } }).lent.devices[id]!;

describe('nics of a machine', () => {
  it('carry frames between two guests over a switch', async () => {
    const echo = await startGuest('virtio-net', nicGuest(networkSwitch('lan')));
    const sender = await makeGuest(
      'virtio-net',
      nicGuest(networkSwitch('lan'), { sends: true, mac: '02:00:00:00:00:02' }),
    );
    sender.memory.write(TX + HEADER, FRAME);
    await until(() => isDriven(echo));
    await sender.start();
    expect(await sender.wait()).toEqual({ reason: 'debug-exit', code: 0x21 });
    expect(sender.memory.read(RX + HEADER, FRAME.length)).toEqual(BACK);
    expect(echo.device('net0').contract).toMatchObject({
      class: 'network',
      backend: { kind: 'switch', name: 'lan' },
      functions: { receive: { by: 'native', calls: 1 }, send: { calls: 1 }, filter: { by: 'emulated' } },
    });
    expect(nic(echo)).toMatchObject({ mac: OWN, linkUp: true });
  });

  it('go on over another network, and pass nothing while the link is down', async () => {
    const [one, two] = [new TestNetwork(), new TestNetwork()];
    const vm = await startGuest('virtio-net', nicGuest(one));
    await until(() => isDriven(vm));
    one.last.host.receive([{ bytes: FRAME }]);
    await until(() => one.last.sent.length === 1);

    expect(await vm.device('net0').rebind(two)).toEqual({ holdNs: 0, drainNs: 0, held: 0 });
    expect(one.last.closed).toBe(true);
    one.last.host.receive([{ bytes: FRAME }]);
    two.last.host.receive([{ bytes: FRAME }]);
    await until(() => echoesOf(two).length === 1);
    expect(echoesOf(two)[0]).toEqual(BACK);
    // The provider itself says there where the guest is.
    expect(two.last.sent.some(({ bytes }) => typeOf(bytes) === EtherType.RARP)).toBe(true);
    expect(vm.device('net0').contract).toMatchObject({ backend: { kind: 'fake' }, rebinds: 1 });

    vm.device('net0').setLink(false);
    expect(nic(vm).linkUp).toBe(false);
    two.last.host.receive([{ bytes: FRAME }]);
    vm.device('net0').setLink(true);
    two.last.host.receive([{ bytes: FRAME }]);
    await until(() => echoesOf(two).length === 2);
    expect(vm.device('net0').contract.functions['receive']).toMatchObject({ calls: 3 });
    await vm.close();
    expect(two.last.closed).toBe(true);
  });

  it('keep their network over a reset of the guest', async () => {
    const network = new TestNetwork();
    const vm = await startGuest('virtio-net', nicGuest(network, { resets: true }));
    for (let echoes = 1; echoes <= 3; echoes++) {
      await until(() => isDriven(vm));
      network.last.host.receive([{ bytes: FRAME }]);
      await until(() => network.last.sent.length === echoes);
      await until(() => (vm.inspect() as { resets: number }).resets === echoes);
    }
    expect(network.opened.length).toBe(1);
    expect(network.last.closed).toBe(false);
  });

  it('refuse what they are not, and leave the old network serving', async () => {
    const network = new TestNetwork();
    const vm = await makeGuest('virtio-net', nicGuest(network));
    const net0 = vm.device('net0');
    await expect(net0.rebind({ class: 'disk' } as never)).rejects.toThrow(/a network is wanted/);
    expect(() => net0.resize({ columns: 1, rows: 1 })).toThrow(/only a console port/);
    expect(() => net0.setLink(1 as never)).toThrow(TypeError);
    const opened = new FakeNetwork({ mtuBytes: 1000 });
    const source = { class: 'network' as const, describe: () => ({ kind: 'narrow' }) };
    const narrow = net0.rebind({ ...source, open: () => Promise.resolve(opened) });
    await expect(narrow).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    expect([opened.closed, network.last.closed, net0.contract.rebinds]).toEqual([true, false, 0]);
    const missing = { ...source, open: () => Promise.reject(new TypeError('no such network')) };
    await expect(makeGuest('virtio-net', nicGuest(missing, { mac: '02:00:00:00:00:09' }))).rejects.toThrow(/no such/);
    // What failed has left nothing behind.
    await makeGuest('virtio-net', nicGuest(network, { mac: '02:00:00:00:00:09' }));
  });
});

describe('addresses', () => {
  const idle = (nics: { id: string; backend: NetSource; mac?: string }[]) =>
    makeGuest('halt', { defines: { IDLE: 1 }, nics });

  it('differ between machines that are open, and are the same each time', async () => {
    const backend = networkSwitch('lan');
    const nics = [
      { id: 'net0', backend },
      { id: 'net1', backend },
    ];
    const [one, two] = [await idle(nics), await idle(nics)];
    const macs = [one, two].flatMap((vm) => [nic(vm, 'net0').mac, nic(vm, 'net1').mac]);
    expect(new Set(macs).size).toBe(4);
    await one.close();
    const three = await idle(nics);
    expect(nic(three).mac).toBe(macs[0]);
  });

  it('that a machine of this user has are refused to others until it is closed', async () => {
    const backend = networkSwitch('lan');
    const one = await idle([{ id: 'net0', backend, mac: OWN }]);
    await expect(idle([{ id: 'lan', backend, mac: OWN }])).rejects.toMatchObject({
      code: 'ERR_STATE',
      message: expect.stringMatching(
        new RegExp(`nic lan: ${OWN} is the address of nic net0 of machine vm, process ${process.pid}`),
      ) as string,
    });
    await one.close();
    const two = await idle([{ id: 'lan', backend, mac: OWN }]);
    onTestFinished(() => two.close());
    expect(nic(two, 'lan').mac).toBe(OWN);
  });

  it('of a machine in another process are refused until that process is gone, however it goes', async () => {
    const backend = networkSwitch('lan');
    const mac = '02:00:00:00:00:0c';
    const child = spawn(process.execPath, [fileURLToPath(new URL('../lib/claim-child.mjs', import.meta.url)), mac]);
    onTestFinished(() => void child.kill('SIGKILL'));
    await new Promise((resolve) => child.stdout.once('data', resolve));
    const holder = `nic net0 of machine child, process ${child.pid}`;
    await expect(idle([{ id: 'net0', backend, mac }])).rejects.toThrow(holder);
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('close', resolve));
    expect(nic(await idle([{ id: 'net0', backend, mac }])).mac).toBe(mac);
  });
});
