/** The codecs of abi/kvm-structs against the compiler's own sizeof(). */
import { expect, it } from 'vitest';
import { kvmStructs } from '../../lib/abi/kvm-structs.js';
import { loadBinding } from '../../lib/kvm/binding.js';

it.each(kvmStructs.map((struct) => [struct.name, struct.sizeBytes] as const))('%s has %i bytes', (name, sizeBytes) => {
  const { structSizes } = loadBinding().addon;
  expect(structSizes[name]).toBe(sizeBytes);
});
