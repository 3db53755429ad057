/**
 * Packets for tests, written plainly from the RFCs and sharing nothing with the code that they test: fields are put down
 * one after the other, checksums are added up byte by byte.
 */

export interface PacketOptions {
  readonly version: 4 | 6;
  readonly protocol?: 'tcp' | 'udp';
  readonly payload: Uint8Array;
  readonly vlanTags?: number;
  readonly sequence?: number;
  readonly id?: number;
  readonly flags?: number;
  /** Whole words of four bytes. */
  readonly tcpOptions?: Uint8Array;
  readonly ports?: readonly [number, number];
}

export const ACK = 0x10;
export const PSH_ACK = 0x18;

/** A frame with right lengths and checksums. */
export function packet(options: PacketOptions): Uint8Array {
  const { version, protocol = 'tcp', payload, vlanTags = 0, sequence = 1, id = 1, flags = ACK } = options;
  const { tcpOptions = new Uint8Array(0), ports = [1000, 80] } = options;
  const transport =
    protocol === 'tcp'
      ? [...be(ports[0], 2), ...be(ports[1], 2), ...be(sequence, 4), ...be(77, 4)].concat(
          [(5 + tcpOptions.length / 4) * 16, flags],
          [...be(500, 2), 0, 0, 0, 0, ...tcpOptions],
        )
      : [...be(ports[0], 2), ...be(ports[1], 2), ...be(8 + payload.length, 2), 0, 0];
  const bytes = transport.length + payload.length;
  const addresses = Array.from({ length: version === 4 ? 8 : 32 }, (_, index) => 10 + index);
  const number = protocol === 'tcp' ? 6 : 17;
  const ip =
    version === 4
      ? [0x45, 0, ...be(20 + bytes, 2), ...be(id, 2), 0x40, 0, 64, number, 0, 0, ...addresses]
      : [0x60, 0, 0, 0, ...be(bytes, 2), number, 64, ...addresses];
  if (version === 4) ip.splice(10, 2, ...be(plainChecksum(ip), 2));
  const checked = [...addresses, ...be(number, 2), ...be(bytes, 2), ...transport, ...payload];
  transport.splice(protocol === 'tcp' ? 16 : 6, 2, ...be(plainChecksum(checked) || 0xffff, 2));
  const tags = Array.from({ length: vlanTags }, () => [0x81, 0, 0, 5]).flat();
  const ether = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, ...tags, ...be(version === 4 ? 0x0800 : 0x86dd, 2)];
  return Uint8Array.from([...ether, ...ip, ...transport, ...payload]);
}

/** RFC 1071, word by word with the carry put back at once. */
export function plainChecksum(bytes: readonly number[]): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) {
    sum += bytes[at]! * 256 + (bytes[at + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return 0xffff - sum;
}

function be(value: number, bytes: number): number[] {
  return Array.from({ length: bytes }, (_, index) => Math.floor(value / 256 ** (bytes - 1 - index)) % 256);
}
