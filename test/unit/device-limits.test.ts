/** The limits of a machine's devices are the devices': they are shown, and stay when a backend is changed. */
import { expect, it, onTestFinished } from 'vitest';
import { gpa } from '../../lib/base/address.js';
import { ManualClock } from '../../lib/base/clock.js';
import { silentLogger } from '../../lib/base/logger.js';
import { checkDisks } from '../../lib/machine/disk-options.js';
import { MachineDevices } from '../../lib/machine/machine-devices.js';
import { checkNics } from '../../lib/machine/nic-options.js';
import { AddressSpace } from '../../lib/memory/index.js';
import { memoryDisk, type NetSource } from '../../lib/vsp/index.js';
import { NetSwitch } from '../../lib/vsp/net/switch.js';

const net = new NetSwitch({ name: 'lan' });
const lan: NetSource = {
  class: 'network',
  describe: () => ({ kind: 'switch' }),
  open: () => Promise.resolve(net.port()),
};

it('shows limits, before and after a rebind', async () => {
  const memory = new AddressSpace({ ranges: [{ gpa: gpa(0), sizeBytes: 65536 }] });
  const limits = { operationsPerSecond: 100, bytesPerSecond: 1e6 };
  const devices = await MachineDevices.open({
    disks: checkDisks([
      { id: 'disk', backend: memoryDisk('1MiB'), limits },
      { id: 'free', backend: memoryDisk('1MiB') },
    ]),
    nics: checkNics([
      { id: 'nic', backend: lan, limits: { send: limits } },
      { id: 'open', backend: lan },
    ]),
    name: 'limited',
    consolePorts: [],
    entropy: undefined,
    memory,
    clock: new ManualClock(),
    logger: silentLogger,
  });
  onTestFinished(async () => {
    await devices.close();
    await devices.release(memory);
  });
  for (let round = 0; round < 2; round++) {
    expect(devices.find('disk').contract).toMatchObject({ rebinds: round, limits });
    expect(devices.find('nic').contract).toMatchObject({ rebinds: round, limits: { send: limits } });
    expect(devices.find('free').contract).not.toHaveProperty('limits');
    expect(devices.find('open').contract).not.toHaveProperty('limits');
    expect(devices.inspect()).toMatchObject({
      devices: {
        disk: { paced: 0, contract: { limits } },
        nic: { limiter: { send: { waiting: 0, dropped: 0 }, receive: undefined } },
      },
    });
    await devices.find('disk').rebind(memoryDisk('1MiB'));
    await devices.find('nic').rebind(lan);
  }
});
