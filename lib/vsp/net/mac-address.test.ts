import { describe, expect, it } from 'vitest';
import { derivedMac, formatMac, isGroupMac, parseMac } from './mac-address.js';

describe('addresses', () => {
  it('are read and written as six bytes', () => {
    expect(parseMac('02:00:00:aB:cd:0f')).toBe(0x020000abcd0f);
    expect(formatMac(0x020000abcd0f)).toBe('02:00:00:ab:cd:0f');
  });

  it.each([
    '',
    '02:00:00:ab:cd',
    '02:00:00:ab:cd:0f:00',
    '02-00-00-ab-cd-0f',
    '0x:00:00:ab:cd:0f',
    ' 02:00:00:ab:cd:0f',
  ])('%j is none', (text) => expect(parseMac(text)).toBeUndefined());

  it('are the same for the same texts, and never of a group or of a vendor', () => {
    expect(derivedMac('vm', 'net0')).toBe(derivedMac('vm', 'net0'));
    const all = Array.from({ length: 100 }, (_, index) => derivedMac('vm', `net${index}`));
    expect(new Set(all).size).toBe(100);
    expect(derivedMac('a', 'bc')).not.toBe(derivedMac('ab', 'c'));
    for (const mac of all) expect([isGroupMac(mac), Math.floor(mac / 2 ** 41) % 2]).toEqual([false, 1]);
  });
});
