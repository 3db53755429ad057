/** The devices that a machine lends its guest, as its user writes them, and the checks that concern all of them. */
import { checkConsolePorts, qemuAgentPort, type ConsolePortOptions } from './console-options.js';
import { DeviceIds } from './device-ids.js';
import { checkDisks, type DiskConfig, type DiskOptions } from './disk-options.js';
import { checkEntropy, type EntropyConfig, type EntropyOptions } from './entropy-options.js';
import { checkNics, type NicConfig, type NicOptions } from './nic-options.js';

export interface DeviceOptions {
  /** Disks of the host that are lent to the guest, in this order: vda, vdb, ... */
  readonly disks?: readonly DiskOptions[];
  /** Network interfaces that are lent to the guest, in this order: eth0, eth1, ... in a Linux guest. */
  readonly nics?: readonly NicOptions[];
  /** Streams of bytes between guest and host, at most 31: /dev/virtio-ports/NAME in a Linux guest. */
  readonly consolePorts?: readonly ConsolePortOptions[];
  /**
   * One more such port, org.qemu.guest_agent.0, by which QEMU's guest agent in the guest is spoken to: what distributions ship, for guests
   * without vivarium's own. Default false.
   */
  readonly qemuAgent?: boolean;
  /** Random bytes of the host's: /dev/hwrng in a Linux guest. Default: true for a kernel, false for other images. */
  readonly entropy?: boolean | EntropyOptions;
}

/** Checked. */
export interface DeviceConfigs {
  readonly disks: readonly DiskConfig[];
  readonly nics: readonly NicConfig[];
  readonly consolePorts: readonly Required<ConsolePortOptions>[];
  readonly entropy: EntropyConfig | undefined;
}

/** Of the PCI bus, beside the host bridge. */
const SLOTS = 31;

/** @throws TypeError for wrong names and types, RangeError for values out of bounds, an id twice, too many devices. */
export function checkDeviceOptions(options: DeviceOptions, isKernel: boolean): DeviceConfigs {
  const ids = new DeviceIds();
  const disks = checkDisks(options.disks ?? [], ids);
  const nics = checkNics(options.nics ?? [], ids);
  const { qemuAgent = false } = options;
  if (typeof qemuAgent !== 'boolean') throw new TypeError('qemuAgent: true or false is wanted');
  // One list, since they are one device, whose ports have names of their own.
  const ports: unknown = options.consolePorts ?? [];
  const all: unknown = qemuAgent && Array.isArray(ports) ? [...(ports as unknown[]), qemuAgentPort()] : ports;
  const consolePorts = checkConsolePorts(all, ids);
  const entropy = checkEntropy(options.entropy ?? isKernel, ids);
  const slots = disks.length + nics.length + (consolePorts.length > 0 ? 1 : 0) + (entropy === undefined ? 0 : 1);
  if (slots > SLOTS) {
    throw new RangeError(
      `disks, nics, consolePorts, entropy: ${slots} devices, where the PCI bus has room for ${SLOTS} ` +
        '(all console ports are one device; entropy: false leaves that one out)',
    );
  }
  return { disks, nics, consolePorts, entropy };
}
