/**
 * Ethernet addresses as numbers of 48 bits: the text that users write, and those that devices get by default. An
 * address of ours is locally administered and no group (IEEE 802, 8.2).
 */
import { createHash } from 'node:crypto';
import { Ether } from '../../abi/inet.js';
import { macAt, macBytes } from './mac-filter.js';

/** 'aa:bb:cc:dd:ee:ff', letters of either case. Undefined for any other text. */
export function parseMac(text: string): number | undefined {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return undefined;
  return Number.parseInt(text.replaceAll(':', ''), 16);
}

export function formatMac(mac: number): string {
  return Array.from(macBytes(mac), (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** Whether it is an address of several, which no device can have. */
export function isGroupMac(mac: number): boolean {
  return Math.floor(mac / 2 ** 40) % 2 === 1;
}

/** The same for the same texts: 46 bits of their hash. */
export function derivedMac(...parts: readonly string[]): number {
  const bytes = createHash('sha256').update(JSON.stringify(parts)).digest().subarray(0, Ether.ADDRESS_BYTES);
  bytes[0] = (bytes[0]! & 0xfc) | 0x02;
  return macAt(bytes, 0);
}
