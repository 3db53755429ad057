/** What can be watched of a machine: the pages that are written, and the exits of its CPUs by reason. */
import { expect, it } from 'vitest';
import { readU64, startGuest, until } from '../lib/machine.js';

const BASE = 0x20_0000;
const PAGES = 40;
const FIRST_GROUP = BASE / 65_536;

interface Tree {
  readonly cpus: { readonly counters: { readonly exits: string; readonly byReason: Record<string, string> } }[];
}

it('pages that the guest and others write are counted by group, from the beginning of the watch on', async () => {
  const vm = await startGuest('pattern', { mode: 'long64', defines: { BASE, PAGES } });
  await until(() => readU64(vm, BASE) > BigInt(PAGES));
  const [watch, other] = [vm.memory.watchWrites(), vm.memory.watchWrites()];
  const from = readU64(vm, BASE);
  await until(() => readU64(vm, BASE) > from + BigInt(2 * PAGES));
  await vm.pause();
  vm.memory.write(0x90_0000, Buffer.from('by the host'));
  const { pages, byGroup } = watch.take();
  expect(pages).toBe(PAGES + 1);
  expect(byGroup).toHaveLength(256);
  const written = [...byGroup.entries()].filter(([, count]) => count > 0);
  expect(written).toEqual([
    [FIRST_GROUP, 16],
    [FIRST_GROUP + 1, 16],
    [FIRST_GROUP + 2, 8],
    [0x90, 1],
  ]);
  expect(watch.take().pages).toBe(0);
  // Each watch has its own.
  expect(other.take().pages).toBe(PAGES + 1);
  watch.close();
  const stood = readU64(vm, BASE);
  await vm.resume();
  await until(() => readU64(vm, BASE) > stood + BigInt(2 * PAGES));
  expect(watch.take().pages).toBe(0);
  expect(other.take().pages).toBe(PAGES);
  await vm.close();
  expect(() => other.take()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
  other.close();
});

it('goes on over a restart of the guest, whose memory is another', async () => {
  const vm = await startGuest('reset-once', { onReset: 'restart' });
  const watch = vm.memory.watchWrites();
  await vm.wait();
  expect(vm.inspect()).toMatchObject({ resets: 2 });
  watch.take();
  vm.memory.write(0x80_0000, Buffer.from('in the new memory'));
  expect(watch.take().pages).toBe(1);
  watch.close();
});

it('exits are counted by what KVM calls them', async () => {
  const vm = await startGuest('debug-exit', { defines: { CODE: 7 } });
  expect(await vm.wait()).toMatchObject({ reason: 'debug-exit' });
  const { counters } = (vm.inspect() as unknown as Tree).cpus[0]!;
  expect(counters.byReason['io']).toBe('1');
  const sum = Object.values(counters.byReason).reduce((all, count) => all + Number(count), 0);
  expect(sum).toBeLessThanOrEqual(Number(counters.exits));
});
