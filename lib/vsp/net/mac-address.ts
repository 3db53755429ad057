/** Ethernet addresses as numbers of 48 bits, and as the text that users write. What a device's address is, is not said here. */
import { macBytes } from './mac-filter.js';

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
