import { describe, expect, it } from 'vitest';
import { isInterfaceName } from './interface-name.js';

describe('isInterfaceName', () => {
  it.each(['tap0', 'a', 'name-of-15-byte', 'br.7', '...', 'ü'.repeat(7), 'a,b'])('takes %j', (name) => {
    expect(isInterfaceName(name)).toBe(true);
  });

  it.each(['', '.', '..', 'name-of-16-bytes', 'ü'.repeat(8), 'tap%d', 'a/b', 'a:b', 'a b', 'a\tb', 'a\0'])(
    'refuses %j',
    (name) => {
      expect(isInterfaceName(name)).toBe(false);
    },
  );
});
