import { expect, it } from 'vitest';
import type { KvmSegment } from '../abi/kvm-structs.js';
import { taskRegisterFor } from './task-register.js';

const busy = { type: 11, limit: 0x206f } as KvmSegment;

it('a busy task register is made an available one on a software processor alone', () => {
  expect(taskRegisterFor(busy, true)).toEqual({ type: 9, limit: 0x206f });
  expect(taskRegisterFor(busy, false)).toBe(busy);
  const other = { ...busy, type: 3 };
  expect(taskRegisterFor(other, true)).toBe(other);
});
