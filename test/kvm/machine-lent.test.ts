/** Devices that a machine lends: all classes through `vm.device(id)`, on machines whose guests leave them alone. */
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  callbackConsole,
  fileConsole,
  hostEntropy,
  memoryDisk,
  streamConsole,
  unixSocketConsole,
} from '../../lib/vsp/index.js';
import { makeGuest } from '../lib/machine.js';

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'vivarium-lent-'));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

describe('vm.device', () => {
  it('has contract, rebind and refresh for each class', async () => {
    const place = folder();
    const socket = join(place, 'port.sock');
    const vm = await makeGuest('halt', {
      defines: { IDLE: 1 },
      disks: [{ id: 'data', backend: memoryDisk('1MiB') }],
      consolePorts: [
        { id: 'agent', name: 'org.qemu.guest_agent.0', backend: unixSocketConsole(socket) },
        { id: 'tty', terminal: true, backend: callbackConsole(() => undefined) },
      ],
      entropy: true,
    });
    expect(vm.device('agent').contract).toMatchObject({ class: 'console', backend: { kind: 'unix-socket' } });
    expect(vm.device('entropy').contract).toMatchObject({ class: 'entropy', backend: { kind: 'host' } });
    expect(await vm.device('data').refresh()).toEqual({ sizeBytes: 1024 * 1024 });
    const misspelled = vm.device('data').rebind(memoryDisk('1MiB'), { acceptLos: true } as never);
    await expect(misspelled).rejects.toThrow(/did you mean 'acceptLoss'/);
    expect(await vm.device('tty').refresh()).toEqual({});
    vm.device('tty').resize({ columns: 100, rows: 30 });
    expect(await vm.device('tty').refresh()).toEqual({ terminal: { columns: 100, rows: 30 } });
    expect(vm.device('tty').contract.functions).toMatchObject({ resize: { by: 'emulated', calls: 1 } });

    expect(statSync(socket).isSocket()).toBe(true);
    await vm.device('agent').rebind(fileConsole(join(place, 'port.log')));
    expect(() => statSync(socket)).toThrow(/ENOENT/);
    expect(vm.device('agent').contract).toMatchObject({ backend: { kind: 'file' }, rebinds: 1 });
    expect(readFileSync(join(place, 'port.log'), 'utf8')).toBe('');
    await vm.device('entropy').rebind(hostEntropy());
    expect(vm.device('entropy').contract.rebinds).toBe(1);
    expect(vm.inspect()).toMatchObject({ lent: { devices: { agent: { contract: { class: 'console' } } } } });
  });

  it('refuses what a device is not, and leaves the old backend serving', async () => {
    const socket = join(folder(), 'port.sock');
    const vm = await makeGuest('halt', {
      defines: { IDLE: 1 },
      consolePorts: [{ id: 'port', backend: unixSocketConsole(socket) }],
      entropy: { id: 'rng' },
    });
    expect(() => vm.device('prot')).toThrow(/no device 'prot'; the machine has 'port', 'rng'/);
    await expect(vm.device('port').rebind(memoryDisk('1MiB'))).rejects.toThrow(/a console is wanted/);
    await expect(vm.device('rng').rebind(memoryDisk('1MiB'))).rejects.toThrow(/a generator is wanted/);
    expect(() => vm.device('rng').resize({ columns: 1, rows: 1 })).toThrow(/only a console port/);
    expect(() => vm.device('port').resize({ columns: 0, rows: 1 })).toThrow(RangeError);
    const taken = vm.device('port').rebind(unixSocketConsole(socket));
    await expect(taken).rejects.toMatchObject({ code: 'ERR_STATE' });
    const refused = vm.device('port').rebind(streamConsole({ writable: new PassThrough() }), { refuse: () => 'no' });
    await expect(refused).rejects.toThrow(/rebind refused: no/);
    await expect(vm.device('rng').rebind(hostEntropy(), { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
    const client = connect(socket);
    await new Promise((resolve, reject) => client.once('connect', resolve).once('error', reject));
    client.destroy();
    expect([vm.device('port').contract.rebinds, vm.device('rng').contract.rebinds]).toEqual([0, 0]);
  });

  it('leaves nothing open when a backend cannot be opened', async () => {
    const place = folder();
    const consolePorts = [
      { id: 'one', backend: unixSocketConsole(join(place, 'port.sock')) },
      { id: 'two', backend: fileConsole(join(place, 'missing', 'port.log')) },
    ];
    await expect(
      makeGuest('halt', {
        defines: { IDLE: 1 },
        consolePorts,
      }),
    ).rejects.toMatchObject({
      code: 'ERR_SYSTEM',
      message: expect.stringContaining('port.log') as string,
    });
    expect(() => statSync(join(place, 'port.sock'))).toThrow(/ENOENT/);
  });
});
