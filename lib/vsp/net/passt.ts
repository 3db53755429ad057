/**
 * `passt(options)`: a network of one guest without privileges: its connections become sockets of a passt process on this
 * host, which also answers DHCP and name queries, and forwards ports of the host to the guest. This file checks options
 * and starts the first process; frames and restarts are passt-backend.ts's.
 */
import { isIP } from 'node:net';
import { AbortError } from '../../base/errors.js';
import { checkInteger, checkOptionNames } from '../../base/options.js';
import { answered, PASST_NETWORK, type StartPasst } from './passt-process.js';
import { PasstBackend, type PasstBackendOptions } from './passt-backend.js';
import { startPasst } from './passt-start.js';
import type { NetBackend } from './contract.js';
import type { NetOpenContext, NetSource } from './source.js';

/** A port of the host whose connections or datagrams go to a port of the guest. */
export interface PasstForward {
  /** 1 to 65535, both. */
  readonly host: number;
  readonly guest: number;
  /** Default 'tcp'. */
  readonly protocol?: 'tcp' | 'udp';
  /** Of the host, where it listens. Default 127.0.0.1, so that only this host reaches the guest. */
  readonly address?: string;
}

export interface PasstOptions {
  readonly forwards?: readonly PasstForward[];
  /** 1280 to 65520. Default 1500, so that the network can be exchanged for any other; a greater one is faster. */
  readonly mtuBytes?: number;
  /** The guest reaches servers on the host's loopback at 10.0.2.2. Default true. */
  readonly hostLoopback?: boolean;
  /** Starts the process; a parameter for tests. */
  readonly start?: StartPasst;
}

/** IPv6 wants so much (RFC 8200, 5); passt takes so much. */
const MIN_MTU_BYTES = 1280;
const MAX_MTU_BYTES = 65520;
const DEFAULT_MTU_BYTES = 1500;

/**
 * A network over a passt process of its own, in which the guest is 10.0.2.15/24 (by DHCP) and the host 10.0.2.2.
 *
 * @throws TypeError for options that there are not or of a wrong type; RangeError for a port, an address or an MTU that
 *   is none, and for a port that is forwarded twice. On opening VmmError ERR_SETUP: passt is not installed; ERR_DEVICE:
 *   it did not start, for example because a port is taken.
 * @example const network = passt({ forwards: [{ host: 8080, guest: 80 }] })
 */
export function passt(options: PasstOptions = {}): NetSource {
  checkOptionNames('passt', options, ['forwards', 'mtuBytes', 'hostLoopback', 'start']);
  const { mtuBytes = DEFAULT_MTU_BYTES, hostLoopback = true, start = startPasst } = options;
  checkInteger('mtuBytes', mtuBytes, MIN_MTU_BYTES, MAX_MTU_BYTES);
  if (typeof hostLoopback !== 'boolean') throw new TypeError('hostLoopback: true or false is wanted');
  const forwards = checkForwards(options.forwards ?? []);
  const args = [
    ...['--address', PASST_NETWORK.guest, '--netmask', String(PASST_NETWORK.prefixBits)],
    ...['--gateway', PASST_NETWORK.gateway, '--mtu', String(mtuBytes)],
    ...(hostLoopback ? [] : ['--no-map-gw']),
    ...portArguments('tcp', forwards),
    ...portArguments('udp', forwards),
  ];
  const text = forwards.map((forward) => `${forward.protocol} ${specOf(forward)}`).join(', ');
  const fixed = { forwards: text, hostLoopback, mtuBytes };
  return {
    class: 'network',
    onlyOneGuest: 'passt gives each of them the same address, and what comes to whichever spoke last',
    describe: () => ({ kind: 'passt', ...fixed }),
    open: (context) => openPasst(() => start(args), fixed, context),
  };
}

async function openPasst(
  start: () => ReturnType<StartPasst>,
  fixed: Pick<PasstBackendOptions, 'mtuBytes' | 'hostLoopback' | 'forwards'>,
  { id, mac, clock, logger, signal }: NetOpenContext,
): Promise<NetBackend> {
  if (signal?.aborted === true) throw new AbortError(signal);
  const first = start();
  try {
    const reader = await answered(first, { mac, clock, signal });
    return new PasstBackend(first, reader, { ...fixed, id, mac, clock, logger, start });
  } catch (error) {
    await first.ended;
    throw error;
  }
}

function checkForwards(forwards: readonly PasstForward[]): readonly Required<PasstForward>[] {
  if (!Array.isArray(forwards)) throw new TypeError('forwards: a list is wanted');
  const seen = new Set<string>();
  return (forwards as readonly PasstForward[]).map((forward) => {
    if (typeof forward !== 'object' || forward === null) throw new TypeError('forwards: { host, guest } is wanted');
    checkOptionNames('forwards', forward, ['host', 'guest', 'protocol', 'address']);
    const { protocol = 'tcp', address = '127.0.0.1' } = forward;
    const host = checkInteger('forwards: host', forward.host, 1, 65535);
    const guest = checkInteger('forwards: guest', forward.guest, 1, 65535);
    if (protocol !== 'tcp' && protocol !== 'udp') throw new TypeError("forwards: protocol: 'tcp' or 'udp' is wanted");
    if (typeof address !== 'string') throw new TypeError('forwards: address: an IP address is wanted');
    // A scope's name may hold anything, and stands between us and passt's own syntax.
    if (isIP(address) === 0 || address.includes('%')) throw new RangeError(`forwards: '${address}' is no IP address`);
    const key = `${protocol} ${address} ${host}`;
    if (seen.has(key)) throw new RangeError(`forwards: ${protocol} port ${host} of ${address} is named twice`);
    seen.add(key);
    return { host, guest, protocol, address };
  });
}

function portArguments(protocol: 'tcp' | 'udp', forwards: readonly Required<PasstForward>[]): readonly string[] {
  const option = `--${protocol}-ports`;
  const mine = forwards.filter((forward) => forward.protocol === protocol);
  return mine.length === 0 ? [option, 'none'] : mine.flatMap((forward) => [option, specOf(forward)]);
}

/** As passt(1) has it. */
function specOf({ address, host, guest }: Required<PasstForward>): string {
  return `${address}/${host}:${guest}`;
}
