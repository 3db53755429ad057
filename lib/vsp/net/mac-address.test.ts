import { describe, expect, it } from 'vitest';
import { formatMac, isGroupMac, parseMac } from './mac-address.js';

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

  it('of groups are told by their first bit', () => {
    expect([0x010000000000, 0xffffffffffff, 0x020000000001].map(isGroupMac)).toEqual([true, true, false]);
  });
});
