/**
 * `tap(name)`: a tap interface of this host, by which a guest is on a bridge, a routed network or wherever the
 * administrator puts it. This file decides how it is opened and says what stands in the way; frames are tap-backend.ts's.
 * An interface that exists is left as it is.
 */
import { InterfaceFlag, TunFlag } from '../../abi/tun.js';
import { AbortError, SystemError, VmmError } from '../../base/errors.js';
import { checkOptionNames } from '../../base/options.js';
import { interfaceExists, TapDevice } from '../../kvm/index.js';
import type { NetBackend } from './contract.js';
import { INTERFACE_NAME_RULE, isInterfaceName } from './interface-name.js';
import type { NetOpenContext, NetSource } from './source.js';
import { TapBackend, type TapPort } from './tap-backend.js';

export interface TapOptions {
  /**
   * Makes the interface, up and without addresses, where there is none; it goes with the device. Wants CAP_NET_ADMIN.
   * Default: one that is missing is an error.
   */
  readonly create?: boolean;
  /** The kernel's taps; a parameter for tests. */
  readonly system?: TapSystem;
}

export interface TapSystem {
  exists(name: string): boolean;
  open(name: string, flags: number): TapPort;
}

const kernel: TapSystem = { exists: interfaceExists, open: (name, flags) => new TapDevice(name, flags) };
const FLAGS = TunFlag.TAP | TunFlag.NO_PI | TunFlag.VNET_HDR;

/**
 * The network behind the tap interface `name`. Its MTU is the interface's when it is opened.
 *
 * @throws TypeError for a name that is no text, or an option that there is not; RangeError for one that no interface has.
 *   On opening VmmError ERR_DEVICE: there is no such interface, it is no tap, somebody has it, or it may not be opened.
 * @example const network = tap('tap0')
 */
export function tap(name: string, options: TapOptions = {}): NetSource {
  if (typeof name !== 'string') throw new TypeError('tap: the name of an interface is wanted');
  checkOptionNames('tap', options, ['create', 'system']);
  if (!isInterfaceName(name)) {
    throw new RangeError(`tap: '${name}' is no name of an interface: ${INTERFACE_NAME_RULE}`);
  }
  return {
    class: 'network',
    describe: () => ({ kind: 'tap', name }),
    // eslint-disable-next-line @typescript-eslint/require-await -- what it throws has to be a rejection
    open: async (context) => openTap(name, options, context),
  };
}

function openTap(name: string, options: TapOptions, context: NetOpenContext): NetBackend {
  if (context.signal?.aborted === true) throw new AbortError(context.signal);
  const { create = false, system = kernel } = options;
  const isThere = system.exists(name);
  if (!isThere && !create) {
    throw new VmmError('ERR_DEVICE', `tap ${name}: there is no such interface`, {
      cure: `as root: ip tuntap add dev ${name} mode tap user NAME-OF-USER && ip link set ${name} up`,
    });
  }
  let port: TapPort | undefined;
  try {
    port = openPort(name, isThere, system);
    if (!isThere) port.setInterfaceFlags(port.interfaceFlags() | InterfaceFlag.UP);
    return new TapBackend(port);
  } catch (error) {
    port?.close();
    throw error instanceof SystemError ? explained(name, isThere, error) : error;
  }
}

function openPort(name: string, isThere: boolean, system: TapSystem): TapPort {
  try {
    return system.open(name, FLAGS);
  } catch (error) {
    // One that was made for several queues wants the flag, though it is but one that is taken.
    if (!isThere || !(error instanceof SystemError) || error.errno !== 'EINVAL') throw error;
    return system.open(name, FLAGS | TunFlag.MULTI_QUEUE);
  }
}

function explained(name: string, isThere: boolean, error: SystemError): VmmError {
  const say = (what: string, cure?: string) =>
    new VmmError('ERR_DEVICE', `tap ${name}: ${what} (${error.message})`, {
      cause: error,
      ...(cure === undefined ? {} : { cure }),
    });
  if (error.syscall === 'open') {
    if (error.errno === 'EACCES' || error.errno === 'EPERM') {
      return say('/dev/net/tun may not be opened', 'as root: chmod 0666 /dev/net/tun');
    }
    return say('this host has no /dev/net/tun', 'as root: modprobe tun; a container has to be given the device');
  }
  if (error.syscall !== 'TUNSETIFF') return say('it can not be used');
  switch (error.errno) {
    case 'EPERM':
      return isThere
        ? say('it belongs to another user', `as root: make it anew with: ip tuntap add dev ${name} mode tap user NAME`)
        : say('this user may not make interfaces', `as root: ip tuntap add dev ${name} mode tap user NAME-OF-USER`);
    case 'EBUSY':
      return say('somebody has it already', 'each guest needs a tap of its own; several can share a bridge');
    case 'EINVAL':
      return say('it is an interface of another kind', `name a tap: ip tuntap add dev OTHER-NAME mode tap`);
    default:
      return say('it can not be had');
  }
}
