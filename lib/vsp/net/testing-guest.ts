/**
 * A guest in miniature for tests of networks: Ethernet, ARP, IPv4, UDP and as much TCP as a transfer takes, at the end of
 * a provider where a proxy would be. Like a guest's kernel it leaves checksums and segments to its device; of what it gets
 * it checks every checksum with the plain reference of testing.ts.
 */
import type { NetFrame, NetGuestEnd, NetService } from './contract.js';
import { keptFrame } from './kept-frame.js';
import { macAt, macBytes } from './mac-filter.js';
import { plainChecksum } from './testing.js';
import { lendingTo } from './testing-lent.js';
import { MSS_BYTES, TinyTcp, type TcpSegment } from './testing-tcp.js';

const UDP = 17;
const TCP = 6;
const RETRY_MS = 200;

export const ipOf = (text: string): readonly number[] => text.split('.').map(Number);
const be16 = (value: number) => [(value >>> 8) & 255, value & 255];
const be32 = (value: number) => [...be16(value >>> 16), ...be16(value & 0xffff)];

export class TinyGuest implements NetGuestEnd {
  readonly checksum = true;
  readonly segments = true;
  readonly mac: number;
  readonly ip: readonly number[];
  /** Frames whose checksums are wrong. */
  wrong = 0;
  got = 0;
  largest = 0;
  /** Datagrams to any port; what it gives goes back. */
  onUdp: ((payload: Uint8Array) => Uint8Array | undefined) | undefined;
  readonly #service: NetService;
  readonly #listeners = new Map<number, (tcp: TinyTcp) => void>();
  readonly #streams = new Map<string, TinyTcp>();
  readonly #macs = new Map<string, number>();
  #changed: (() => void)[] = [];
  /** How often a while has passed: then streams send again what was lost. */
  #rounds = 0;
  readonly #ticker: NodeJS.Timeout;
  #lastPort = 40_000;

  constructor(service: NetService, ip: string) {
    this.#service = lendingTo(service);
    this.mac = service.mac;
    this.ip = ipOf(ip);
    service.attach(this);
    this.#ticker = setInterval(() => {
      this.#rounds++;
      for (const tcp of this.#streams.values()) tcp.retry();
      this.#tell();
    }, RETRY_MS).unref();
  }

  link(): void {}

  receive(frames: readonly NetFrame[]): number {
    this.got += frames.length;
    // Not at once: two guests on one switch would answer each other until the stack is full.
    const kept = frames.map(keptFrame);
    queueMicrotask(() => {
      for (const frame of kept) this.#take(frame);
      this.#tell();
    });
    return frames.length;
  }

  /** The address of `ip`, asked for again and again until somebody answers. */
  async arp(ip: readonly number[]): Promise<number> {
    const question = () => {
      const own = [...macBytes(this.mac)];
      const request = [...be16(1), 8, 0, 6, 4, ...be16(1), ...own, ...this.ip, 0, 0, 0, 0, 0, 0, ...ip];
      this.raw([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ...own, 8, 6, ...request]);
    };
    await this.until(() => this.#macs.has(ip.join('.')), question);
    return this.#macs.get(ip.join('.'))!;
  }

  /** Sends a datagram until `isSo`: networks lose some, the first ones above all. */
  async udp(ip: readonly number[], port: number, payload: Uint8Array, isSo: () => boolean): Promise<void> {
    await this.arp(ip);
    await this.until(isSo, () => this.#sendUdp(ip, 5000, port, payload));
  }

  listen(port: number, onStream: (tcp: TinyTcp) => void): void {
    this.#listeners.set(port, onStream);
  }

  async connect(ip: readonly number[], port: number): Promise<TinyTcp> {
    await this.arp(ip);
    const tcp = this.#stream(ip, ++this.#lastPort, port);
    tcp.open();
    await this.until(() => tcp.isOpen);
    return tcp;
  }

  /** Until it is so; `again` is called now and whenever a while has passed. */
  async until(isSo: () => boolean, again: () => void = () => {}): Promise<void> {
    again();
    let since = this.#rounds;
    while (!isSo()) {
      await new Promise<void>((resolve) => this.#changed.push(resolve));
      if (since === this.#rounds) continue;
      since = this.#rounds;
      again();
    }
  }

  /** Ends its being busy. */
  stop(): void {
    clearInterval(this.#ticker);
  }

  /** A frame of these bytes, whatever they are. */
  raw(bytes: readonly number[]): void {
    this.#service.send([{ bytes: Uint8Array.from(bytes) }]);
  }

  #tell(): void {
    for (const tell of this.#changed.splice(0)) tell();
  }

  #take({ bytes, unfinished }: NetFrame): void {
    this.largest = Math.max(this.largest, bytes.length);
    const type = bytes[12]! * 256 + bytes[13]!;
    if (type === 0x0806) this.#takeArp(bytes);
    if (type !== 0x0800 || !this.ip.every((byte, at) => bytes[30 + at] === byte)) return;
    const from = [...bytes.subarray(26, 30)];
    const endAt = 14 + bytes[16]! * 256 + bytes[17]!;
    const transport = bytes.subarray(34, endAt);
    const protocol = bytes[23]!;
    const hasNone = protocol === UDP && transport[6] === 0 && transport[7] === 0;
    const sum = () => plainChecksum([...from, ...this.ip, 0, protocol, ...be16(transport.length), ...transport]);
    if (plainChecksum([...bytes.subarray(14, 34)]) !== 0) this.wrong++;
    else if (unfinished === undefined && !hasNone && sum() !== 0) this.wrong++;
    else if (protocol === UDP) this.#takeUdp(from, transport);
    else if (protocol === TCP) this.#takeTcp(from, transport);
  }

  #takeArp(bytes: Uint8Array): void {
    const from = [...bytes.subarray(28, 32)];
    this.#macs.set(from.join('.'), macAt(bytes, 22));
    const isForMe = bytes[21] === 1 && this.ip.every((byte, at) => bytes[38 + at] === byte);
    if (!isForMe) return;
    const [own, theirs] = [[...macBytes(this.mac)], [...bytes.subarray(22, 28)]];
    this.raw([...theirs, ...own, 8, 6, ...be16(1), 8, 0, 6, 4, ...be16(2), ...own, ...this.ip, ...theirs, ...from]);
  }

  #takeUdp(from: readonly number[], transport: Uint8Array): void {
    const answer = this.onUdp?.(transport.slice(8));
    const [theirs, mine] = [transport[0]! * 256 + transport[1]!, transport[2]! * 256 + transport[3]!];
    if (answer !== undefined) this.#sendUdp(from, mine, theirs, answer);
  }

  #takeTcp(from: readonly number[], transport: Uint8Array): void {
    const view = new DataView(transport.buffer, transport.byteOffset, transport.length);
    const [theirs, mine] = [view.getUint16(0), view.getUint16(2)];
    let tcp = this.#streams.get(`${from.join('.')} ${mine} ${theirs}`);
    const onStream = this.#listeners.get(mine);
    if (tcp === undefined) {
      if (onStream === undefined) return;
      tcp = this.#stream(from, mine, theirs);
      onStream(tcp);
    }
    tcp.take({
      sequence: view.getUint32(4),
      acknowledged: view.getUint32(8),
      flags: transport[13]!,
      windowBytes: view.getUint16(14),
      payload: transport.slice((transport[12]! >>> 4) * 4),
      windowShift: windowShiftOf(transport.subarray(20, (transport[12]! >>> 4) * 4)),
    });
  }

  #stream(ip: readonly number[], mine: number, theirs: number): TinyTcp {
    const tcp = new TinyTcp((segment) => this.#sendTcp(ip, mine, theirs, segment));
    this.#streams.set(`${ip.join('.')} ${mine} ${theirs}`, tcp);
    return tcp;
  }

  #sendUdp(ip: readonly number[], mine: number, theirs: number, payload: Uint8Array): void {
    const header = [...be16(mine), ...be16(theirs), ...be16(8 + payload.length), 0, 0];
    this.#sendIp(ip, UDP, Uint8Array.from([...header, ...payload]), 6);
  }

  #sendTcp(ip: readonly number[], mine: number, theirs: number, segment: TcpSegment): void {
    const options = segment.isFirst === true ? [2, 4, ...be16(MSS_BYTES), 1, 3, 3, 0] : [];
    const numbers = [...be32(segment.sequence), ...be32(segment.acknowledged)];
    const rest = [(5 + options.length / 4) * 16, segment.flags, ...be16(segment.windowBytes), 0, 0, 0, 0];
    const header = Uint8Array.from([...be16(mine), ...be16(theirs), ...numbers, ...rest, ...options]);
    const all = new Uint8Array(header.length + segment.payload.length);
    all.set(header);
    all.set(segment.payload, header.length);
    this.#sendIp(ip, TCP, all, 16, segment.payload.length > MSS_BYTES ? MSS_BYTES : undefined);
  }

  /** With the checksum at `offset` left to the device: the sum of the pseudo header stands there. */
  #sendIp(ip: readonly number[], protocol: number, transport: Uint8Array, offset: number, segmentBytes?: number): void {
    const to = this.#macs.get(ip.join('.'));
    if (to === undefined) return;
    const pseudo = 0xffff - plainChecksum([...this.ip, ...ip, 0, protocol, ...be16(transport.length)]);
    transport.set(be16(pseudo), offset);
    const header = [0x45, 0, ...be16(20 + transport.length), 0, 1, 0x40, 0, 64, protocol, 0, 0, ...this.ip, ...ip];
    header.splice(10, 2, ...be16(plainChecksum(header)));
    const bytes = new Uint8Array(34 + transport.length);
    bytes.set([...macBytes(to), ...macBytes(this.mac), 8, 0, ...header]);
    bytes.set(transport, 34);
    this.#service.send([{ bytes, unfinished: { startAt: 34, offset }, segmentBytes }]);
  }
}

/** The option of a window's scale (RFC 7323, 2.2), 0 where there is none. */
function windowShiftOf(options: Uint8Array): number {
  for (
    let at = 0;
    at < options.length && options[at] !== 0;
    at += options[at] === 1 ? 1 : Math.max(2, options[at + 1] ?? 2)
  ) {
    if (options[at] === 3) return options[at + 2] ?? 0;
  }
  return 0;
}
