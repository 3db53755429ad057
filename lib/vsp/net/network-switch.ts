/**
 * `networkSwitch(name)`: the switches of this process by their names. One is made by the first port that is opened, and
 * goes with the last; between the two all that name it are on one network.
 */
import { checkInteger, checkOptionNames } from '../../base/options.js';
import { VmmError } from '../../base/errors.js';
import type { NetBackend } from './contract.js';
import type { NetOpenContext, NetSource } from './source.js';
import { NetSwitch } from './switch.js';

export interface NetworkSwitchOptions {
  /** The most behind the header of a frame, 68 to 65521; all ports of a switch have the same. Default 1500, or as it is. */
  readonly mtuBytes?: number;
}

const DEFAULT_MTU_BYTES = 1500;
const switches = new Map<string, NetSwitch>();

/**
 * A switch that joins guests of this process; `open` throws VmmError ERR_DEVICE when there is one of another MTU.
 *
 * @throws TypeError for what is no name (letters, digits, '.', '_' and '-', at most 63), RangeError for an MTU that is none.
 * @example nics: [{ id: 'net0', backend: networkSwitch('lan') }]
 */
export function networkSwitch(name: string, options: NetworkSwitchOptions = {}): NetSource {
  if (typeof name !== 'string' || !/^[A-Za-z0-9][\w.-]{0,62}$/.test(name)) {
    throw new TypeError(
      `networkSwitch: ${JSON.stringify(name)} is no name; letters, digits, '.', '_' and '-', at most 63`,
    );
  }
  checkOptionNames('networkSwitch', options, ['mtuBytes']);
  const { mtuBytes } = options;
  if (mtuBytes !== undefined) checkInteger('networkSwitch: mtuBytes', mtuBytes, 68, 65521);
  return {
    class: 'network',
    describe: () => ({ kind: 'switch', name }),
    open: (context) => Promise.resolve().then(() => openPort(name, mtuBytes, context)),
  };
}

function openPort(name: string, mtuBytes: number | undefined, { clock }: NetOpenContext): NetBackend {
  const known = switches.get(name);
  const net = known ?? new NetSwitch({ name, clock, mtuBytes: mtuBytes ?? DEFAULT_MTU_BYTES });
  if (mtuBytes !== undefined && mtuBytes !== net.mtuBytes) {
    const message = `switch ${name}: an MTU of ${mtuBytes} bytes is wanted, and it has ${net.mtuBytes}`;
    throw new VmmError('ERR_DEVICE', message, { cure: 'the same MTU for all of its ports' });
  }
  const port = net.port(() => {
    if (net.portCount === 0) switches.delete(name);
  });
  switches.set(name, net);
  return port;
}
