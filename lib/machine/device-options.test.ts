import { describe, expect, it } from 'vitest';
import { callbackConsole, fileConsole, fileDisk, hostEntropy, memoryDisk, networkSwitch } from '../vsp/index.js';
import { qemuAgentEnd } from './console-options.js';
import { checkDeviceOptions, type DeviceOptions } from './device-options.js';

const backend = fileConsole('port.log');
const disk = (id: string) => ({ id, backend: memoryDisk('1MiB') });

describe('checkDeviceOptions', () => {
  it('gives a kernel an entropy device, other images none, and whoever says so', () => {
    expect(checkDeviceOptions({}, true)).toMatchObject({
      disks: [],
      nics: [],
      consolePorts: [],
      entropy: { id: 'entropy' },
    });
    expect(checkDeviceOptions({}, false).entropy).toBeUndefined();
    expect(checkDeviceOptions({ entropy: false }, true).entropy).toBeUndefined();
    const own = { id: 'rng', backend: hostEntropy(), bytesPerSecond: 1024 };
    expect(checkDeviceOptions({ entropy: own }, false).entropy).toEqual({
      id: 'rng',
      backend: own.backend,
      rate: { bytesPerSecond: 1024, burstBytes: undefined },
    });
  });

  it('completes console ports', () => {
    const ports = [
      { id: 'agent', name: 'org.qemu.guest_agent.0', backend },
      { id: 'tty', terminal: true, backend: callbackConsole(() => undefined) },
    ];
    expect(checkDeviceOptions({ consolePorts: ports }, false).consolePorts).toEqual([
      { ...ports[0], terminal: false },
      { ...ports[1], name: 'tty' },
    ]);
  });

  it("adds the port of QEMU's agent to them", () => {
    const consolePorts = [{ id: 'log', backend }];
    const { consolePorts: ports } = checkDeviceOptions({ consolePorts, qemuAgent: true }, false);
    expect(ports.map(({ id, name, terminal }) => ({ id, name, terminal }))).toEqual([
      { id: 'log', name: 'log', terminal: false },
      { id: 'qemu-agent', name: 'org.qemu.guest_agent.0', terminal: false },
    ]);
    expect(qemuAgentEnd(ports)).toBe(ports[1]?.backend);
    expect(qemuAgentEnd(checkDeviceOptions({ consolePorts }, false).consolePorts)).toBeUndefined();
    expect(checkDeviceOptions({ qemuAgent: true }, true).consolePorts).toHaveLength(1);
  });

  it.each<[string, unknown, new () => Error, RegExp]>([
    ['a word for qemuAgent', { qemuAgent: 'yes' }, TypeError, /qemuAgent: true or false/],
    [
      "a port of that name beside QEMU's agent's",
      { qemuAgent: true, consolePorts: [{ id: 'mine', name: 'org.qemu.guest_agent.0', backend }] },
      RangeError,
      /'org.qemu.guest_agent.0' is the name of another port too/,
    ],
    [
      "no port left for QEMU's agent",
      { qemuAgent: true, consolePorts: Array.from({ length: 31 }, (_, n) => ({ id: `p${n}`, backend })) },
      RangeError,
      /consolePorts.length: 32/,
    ],
    ['no list of ports', { consolePorts: {} }, TypeError, /consolePorts: an array/],
    ['a path as a port', { consolePorts: ['a'] }, TypeError, /consolePorts\[0\]: \{ id, backend \}/],
    ['a misspelled option', { consolePorts: [{ id: 'a', backend, nane: 'b' }] }, TypeError, /did you mean 'name'/],
    ['a port without an id', { consolePorts: [{ backend }] }, TypeError, /consolePorts\[0\].id: undefined is no id/],
    ['a name with a slash', { consolePorts: [{ id: 'a', name: 'a/b', backend }] }, TypeError, /is no name of a port/],
    ['a path as backend', { consolePorts: [{ id: 'a', backend: 'a.log' }] }, TypeError, /such as unixSocketConsole/],
    ['a disk as backend', { consolePorts: [{ id: 'a', backend: fileDisk('a') }] }, TypeError, /a console is wanted/],
    ['a word for a boolean', { consolePorts: [{ id: 'a', terminal: 'yes', backend }] }, TypeError, /true or false/],
    [
      'two ports of one name',
      {
        consolePorts: [
          { id: 'a', backend },
          { id: 'b', name: 'a', backend },
        ],
      },
      RangeError,
      /consolePorts\[1\].name: 'a' is the name of another port too/,
    ],
    [
      'a port with the id of a disk',
      { disks: [disk('a')], consolePorts: [{ id: 'a', backend }] },
      RangeError,
      /consolePorts\[0\].id: 'a' is the id of another device too/,
    ],
    [
      'more ports than a device has',
      { consolePorts: Array.from({ length: 32 }, (_, n) => ({ id: `p${n}`, backend })) },
      RangeError,
      /consolePorts.length: 32/,
    ],
    ['a number for entropy', { entropy: 7 }, TypeError, /entropy: true, false or/],
    ['a misspelled option of entropy', { entropy: { burstbytes: 1 } }, TypeError, /did you mean 'burstBytes'/],
    ['no rate', { entropy: { bytesPerSecond: 0 } }, RangeError, /entropy.bytesPerSecond/],
    ['a console as a generator', { entropy: { backend } }, TypeError, /such as hostEntropy/],
    [
      'a disk with the id of the generator',
      { disks: [disk('entropy')] },
      RangeError,
      /entropy.id: 'entropy' is the id/,
    ],
    [
      'a nic with the id of a disk',
      { disks: [disk('a')], nics: [{ id: 'a', backend: networkSwitch('lan') }] },
      RangeError,
      /nics\[0\].id: 'a' is the id of another device too/,
    ],
    [
      'more devices than the bus holds',
      { disks: Array.from({ length: 31 }, (_, n) => disk(`d${n}`)) },
      RangeError,
      /32 devices, where the PCI bus has room for 31/,
    ],
  ])('refuses %s', (_, options, kind, message) => {
    const check = () => checkDeviceOptions(options as DeviceOptions, true);
    expect(check).toThrow(kind);
    expect(check).toThrow(message);
  });
});
