import { expect, it } from 'vitest';
import { Gpe } from '../abi/ports.js';
import { LowMemory } from '../boot/layout.js';
import { FakeGuestMemory } from '../memory/fake.js';
import { GenerationId, generationIdAcpi } from './generation-id.js';

function rig() {
  const memory = new FakeGuestMemory(2 ** 20);
  const events: number[] = [];
  const generation = new GenerationId(memory, (event) => events.push(event));
  return { generation, events, id: () => Buffer.from(memory.read(LowMemory.GENERATION_ID, 16)).toString('hex') };
}

it('is another one each time, and tells only of a change', () => {
  const { generation, events, id } = rig();
  generation.begin();
  const first = id();
  expect(events).toEqual([]);
  generation.renew();
  const second = id();
  expect(events).toEqual([Gpe.GENERATION_ID]);
  const other = rig();
  other.generation.begin();
  expect(new Set(['0'.repeat(32), first, second, other.id()]).size).toBe(4);
});

it('stands in the DSDT with its address, and the method of its event', () => {
  const aml = Buffer.from(generationIdAcpi.dsdt().reduce((all, each) => Buffer.concat([all, each]), Buffer.alloc(0)));
  expect(aml.includes('VM_Gen_Counter')).toBe(true);
  // Name (ADDR, Package () { 0x000ff000, 0 })
  expect(aml.toString('hex')).toContain(Buffer.from('ADDR').toString('hex') + '120802' + '0c00f00f00' + '00');
  expect(aml.includes('_E05')).toBe(true);
});
