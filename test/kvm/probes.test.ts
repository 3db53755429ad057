/** Probes of a machine on KVM, watched as a program of the same process does. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { expect, it, onTestFinished } from 'vitest';
import type { ExitProbe, TickProbe } from '../../lib/base/probes.js';
import { Machine } from '../../lib/machine/index.js';

/** mov al, 5; out 0xf4, al */
const EXITS = Uint8Array.of(0xb0, 0x05, 0xe6, 0xf4);

function watch<T>(name: string): T[] {
  const seen: T[] = [];
  const take = (message: unknown): void => {
    seen.push(message as T);
  };
  subscribe(name, take);
  onTestFinished(() => void unsubscribe(name, take));
  return seen;
}

it('tells exits that JavaScript serves, and decisions about time, with the name of the machine', async () => {
  const exits = watch<ExitProbe>('vivarium:exit');
  const ticks = watch<TickProbe>('vivarium:tick');
  const vm = await Machine.create({
    name: 'probed',
    memory: '1MiB',
    debugExit: true,
    boot: { flat: EXITS, address: 0x1000, mode: 'real16' },
  });
  onTestFinished(() => vm.close());
  await vm.start();
  expect(await vm.wait()).toMatchObject({ reason: 'debug-exit', code: 5 });
  expect(exits).toEqual([{ machine: 'probed', cpu: 0, kind: 'port', address: 0xf4, isWrite: true }]);
  // The guest has programmed nothing that fires periodically.
  expect(ticks[0]).toMatchObject({ machine: 'probed', phase: 'stand-down', owed: 0, firingHz: 0 });
});
