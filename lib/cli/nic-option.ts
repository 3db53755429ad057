/**
 * `--nic BACKEND[,id=NAME][,mac=ADDRESS][,mtu=BYTES][,bps=SIZE][,iops=NUMBER]` and `-p HOST:GUEST`: from the texts to checked choices. What a network
 * stands on is looked at when it is opened, outside of the embedded host; networks.ts makes them.
 *
 *     tap:NAME      switch:NAME      passt[:FORWARD,...]      FORWARD = [ADDRESS:]HOST:GUEST[/tcp|/udp]
 */
import { isIP } from 'node:net';
import { INTERFACE_NAME_RULE, isInterfaceName } from '../vsp/net/interface-name.js';
import { isGroupMac, parseMac } from '../vsp/net/mac-address.js';
import { formatLimits, type LimitChoice, withLimit } from './limit-option.js';
import { VmmError } from '../base/errors.js';
import { UsageError } from './usage-error.js';

/** A port of the host that leads to one of the guest's. */
export interface ForwardChoice {
  /** The host's address that it listens on; undefined for the backend's default. */
  readonly address: string | undefined;
  readonly hostPort: number;
  readonly guestPort: number;
  readonly protocol: 'tcp' | 'udp';
}

export type NetworkChoice =
  | { readonly kind: 'tap'; readonly name: string }
  | { readonly kind: 'switch'; readonly name: string }
  | { readonly kind: 'passt'; readonly forwards: readonly ForwardChoice[] }
  /** Inside the embedded host: the session's channel that its frames come over. No user's. */
  | { readonly kind: 'carried'; readonly channel: number };

export interface NicChoice {
  readonly id: string;
  readonly network: NetworkChoice;
  /** As the user wrote it. */
  readonly mac: string | undefined;
  readonly mtuBytes: number | undefined;
  /** Of each direction. */
  readonly limits?: LimitChoice | undefined;
}

const ID = /^[A-Za-z0-9][\w.-]{0,19}$/;
const NO_NETWORK = 'none of tap:NAME, switch:NAME, passt[:HOST:GUEST,...]';
const SWITCH_NAME = /^[A-Za-z0-9][\w.-]{0,62}$/;

/** @throws UsageError that names the option and what is wrong with it. */
export function parseNics(texts: readonly string[], forwardTexts: readonly string[]): NicChoice[] {
  const nics = texts.map((text, index) => parseNic(text, `net${index}`));
  const forwards = forwardTexts.flatMap((text) => text.split(',').map((part) => parseForward(`-p ${text}`, part)));
  if (forwards.length > 0) addForwards(nics, forwards);
  const known: ForwardChoice[] = [];
  for (const [index, nic] of nics.entries()) {
    if (nics.findIndex(({ id }) => id === nic.id) !== index) {
      throw new UsageError(`--nic: two nics have the id '${nic.id}'`);
    }
    const mac = nic.mac === undefined ? undefined : parseMac(nic.mac);
    if (mac !== undefined && nics.slice(0, index).some((other) => other.mac && parseMac(other.mac) === mac)) {
      throw new UsageError(`--nic: two nics have the address ${nic.mac ?? ''}`);
    }
    if (nic.network.kind === 'passt') known.push(...nic.network.forwards);
  }
  for (const [index, forward] of known.entries()) {
    if (known.findIndex((other) => isSamePort(other, forward)) !== index) {
      throw new UsageError(`the host's ${forward.protocol} port ${forward.hostPort} is forwarded twice`);
    }
  }
  return nics;
}

/** To the first nic on passt; a nic is added where there is none. */
function addForwards(nics: NicChoice[], forwards: readonly ForwardChoice[]): void {
  const index = nics.findIndex(({ network }) => network.kind === 'passt');
  const nic = nics[index];
  if (nic?.network.kind !== 'passt') {
    const ids = new Set(nics.map(({ id }) => id));
    let number = nics.length;
    while (ids.has(`net${number}`)) number++;
    nics.push({ id: `net${number}`, network: { kind: 'passt', forwards }, mac: undefined, mtuBytes: undefined });
  } else {
    nics[index] = { ...nic, network: { kind: 'passt', forwards: [...nic.network.forwards, ...forwards] } };
  }
}

function parseNic(text: string, defaultId: string): NicChoice {
  const option = `--nic ${text}`;
  const refuse = (what: string): never => {
    throw new UsageError(`${option}: ${what}`);
  };
  let id = defaultId;
  let mac: string | undefined;
  let mtuBytes: number | undefined;
  let limits: LimitChoice | undefined;
  const parts = text.split(',');
  // Options stand behind the backend, whose own list of forwards has commas too.
  for (let last = parts.at(-1) ?? ''; parts.length > 1 && last.includes('='); last = parts.at(-1) ?? '') {
    parts.pop();
    const name = last.slice(0, last.indexOf('='));
    const value = last.slice(name.length + 1);
    if (name === 'id')
      id = ID.test(value) ? value : refuse(`'${value}' is no id; letters, digits, '.', '_' and '-', at most 20`);
    else if (name === 'mac') mac = checkMac(value, refuse);
    else if (name === 'mtu') mtuBytes = checkMtu(value, refuse);
    else
      limits =
        withLimit(limits, name, value, refuse) ??
        refuse(`unknown option '${name}'; there are id, mac, mtu, bps and iops`);
  }
  return { id, network: parseNetwork(parts.join(','), option, refuse), mac, mtuBytes, limits };
}

function parseNetwork(text: string, option: string, refuse: (what: string) => never): NetworkChoice {
  const colon = text.indexOf(':');
  const kind = colon < 0 ? text : text.slice(0, colon);
  const rest = colon < 0 ? undefined : text.slice(colon + 1);
  switch (kind) {
    case 'tap':
      // A comma would be the kernel's to take, and is an option without a value here.
      if (rest === undefined || !isInterfaceName(rest) || rest.includes(',')) {
        refuse(`tap:NAME is wanted, with the name of an interface: ${INTERFACE_NAME_RULE} ,`);
      }
      return { kind, name: rest };
    case 'switch':
      if (rest === undefined || !SWITCH_NAME.test(rest)) {
        refuse("switch:NAME is wanted; letters, digits, '.', '_' and '-', at most 63");
      }
      return { kind, name: rest };
    case 'passt':
      return { kind, forwards: rest === undefined ? [] : rest.split(',').map((part) => parseForward(option, part)) };
    case 'carried':
      if (/^\d{1,2}$/.test(rest ?? '')) return { kind, channel: Number(rest) };
      break;
  }
  return refuse(`'${kind}' is ${NO_NETWORK}`);
}

function parseForward(option: string, text: string): ForwardChoice {
  const refuse = (what: string): never => {
    throw new UsageError(`${option}: '${text}': ${what}`);
  };
  const found = /^(?:(\[[^\]]*\]|[^:[\]]*):)?(\d+):(\d+)(?:\/(\w+))?$/.exec(text);
  if (found === null) return refuse('HOST:GUEST is wanted, two numbers of ports, such as 8080:80');
  const [, bracketed, hostText, guestText, protocol = 'tcp'] = found;
  const address = bracketed?.replace(/^\[|\]$/g, '');
  if (address !== undefined && isIP(address) === 0) refuse(`'${address}' is no address of this machine`);
  if (protocol !== 'tcp' && protocol !== 'udp') return refuse(`'${protocol}' is none of tcp, udp`);
  const port = (value: string | undefined): number => {
    const number = Number(value);
    return number >= 1 && number <= 0xffff ? number : refuse(`${value ?? ''} is no port; from 1 to 65535`);
  };
  return { address, hostPort: port(hostText), guestPort: port(guestText), protocol };
}

/** All addresses are one where one of the two names none. */
function isSamePort(a: ForwardChoice, b: ForwardChoice): boolean {
  const sameAddress = a.address === undefined || b.address === undefined || a.address === b.address;
  return a.hostPort === b.hostPort && a.protocol === b.protocol && sameAddress;
}

function checkMac(text: string, refuse: (what: string) => never): string {
  const mac = parseMac(text);
  if (mac === undefined || mac === 0) refuse(`'${text}' is no address; one such as 02:00:00:00:00:01 is wanted`);
  if (isGroupMac(mac)) refuse(`${text} is the address of a group: the first byte must be even`);
  return text;
}

function checkMtu(text: string, refuse: (what: string) => never): number {
  const bytes = Number(text);
  if (!/^\d{1,5}$/.test(text) || bytes < 68 || bytes > 65521) refuse(`'${text}' is no MTU; from 68 to 65521 bytes`);
  return bytes;
}

/**
 * What a saved nic stood on, as far as its description is enough: a tap or a switch by its name, a passt without forwards. A
 * description may be anybody's, so it is held to what a user may write.
 *
 * @throws VmmError ERR_SNAPSHOT with the option that says what is missing
 */
export function savedNic(id: string, description: Readonly<Record<string, unknown>>): NicChoice {
  const { kind, name, forwards, hostLoopback, mtuBytes } = description;
  const refuse = (): never => {
    const what = `the nic '${id}' stood on '${String(kind)}', which is not opened again by itself`;
    throw new VmmError('ERR_SNAPSHOT', what, { cure: `--nic BACKEND,id=${id}` });
  };
  if (kind === 'passt' && forwards === '' && hostLoopback === true && typeof mtuBytes === 'number') {
    return { id, network: { kind, forwards: [] }, mac: undefined, mtuBytes: checkMtu(String(mtuBytes), refuse) };
  }
  if ((kind !== 'tap' && kind !== 'switch') || typeof name !== 'string') return refuse();
  // A tap's is the interface's own; older snapshots don't tell a switch's.
  const mtu = kind === 'switch' && typeof mtuBytes === 'number' ? checkMtu(String(mtuBytes), refuse) : undefined;
  return { id, network: parseNetwork(`${kind}:${name}`, '', refuse), mac: undefined, mtuBytes: mtu };
}

/** @throws UsageError for what only a process outside may say to the one inside */
export function refuseCarried(nics: readonly NicChoice[]): void {
  if (nics.some(({ network }) => network.kind === 'carried')) {
    throw new UsageError(`--nic: 'carried' is ${NO_NETWORK}`);
  }
}

/** The text that gives the same choice again. */
export function formatNic({ id, network, mac, mtuBytes, limits }: NicChoice): string {
  const backend =
    network.kind === 'carried'
      ? `carried:${network.channel}`
      : network.kind === 'passt'
        ? ['passt', ...[network.forwards.map(formatForward).join(',')].filter((list) => list !== '')].join(':')
        : `${network.kind}:${network.name}`;
  const more = [`id=${id}`, mac && `mac=${mac}`, mtuBytes && `mtu=${mtuBytes}`, ...formatLimits(limits)].filter(
    Boolean,
  );
  return [backend, ...more].join(',');
}

function formatForward({ address, hostPort, guestPort, protocol }: ForwardChoice): string {
  const host = address === undefined ? '' : isIP(address) === 6 ? `[${address}]:` : `${address}:`;
  return `${host}${hostPort}:${guestPort}${protocol === 'udp' ? '/udp' : ''}`;
}
