/** States of the providers whose devices hold no requests: what a guest knows of each is the same over another backend. */
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { silentLogger } from '../base/logger.js';
import type { ConsoleBackend, ConsoleHostEnd } from './console/contract.js';
import { ConsoleProvider } from './console/provider.js';
import { EntropyProvider } from './entropy/provider.js';
import type { NetBackend, NetFrame } from './net/contract.js';
import { NetProvider } from './net/provider.js';
import { FakeGuest, FakeNetwork } from './net/testing.js';

const MAC = 0x02_00_00_00_00_01;

const nic = (backend: NetBackend, mac = MAC): NetProvider =>
  new NetProvider({ id: 'net0', backend, mac, clock: new ManualClock(), logger: silentLogger });

/** A frame to `MAC`. */
const frame = (): NetFrame => {
  const bytes = new Uint8Array(60);
  bytes.set([2, 0, 0, 0, 0, 1]);
  return { bytes };
};

describe('a nic', () => {
  it('at rest gives its guest nothing, and loses nothing', async () => {
    const network = new FakeNetwork();
    const provider = nic(network);
    const end = new FakeGuest();
    provider.attach(end);
    await provider.prepare();
    network.host.receive([frame(), frame()]);
    provider.onGuestReady();
    expect([end.got, network.paused]).toEqual([[], true]);
    provider.resume();
    expect([end.got, network.paused]).toEqual([[frame(), frame()], false]);
    await provider.close();
    await expect(provider.prepare()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('keeps address, MTU, link and filter over a network with no function of its own', async () => {
    const old = nic(new FakeNetwork({ takes: { checksum: true, segments: true } }));
    old.setLink(false);
    old.filter.setModes({ allMulticast: true });
    old.filter.setTables([0x02_00_00_00_00_09], []);
    const part = structuredClone(old.saveState());
    const network = new FakeNetwork({ mtuBytes: 9000 });
    const next = nic(network, MAC + 1);
    next.restoreState(part);
    expect(next.saveState()).toEqual(part);
    expect(Object.keys(next.contract.functions)).toEqual(Object.keys(old.contract.functions));
    expect([next.mac, next.mtuBytes, next.linkUp]).toEqual([MAC, 1500, false]);
    const end = new FakeGuest();
    next.attach(end);
    next.setLink(true);
    network.host.receive([frame()]);
    expect(end.got).toEqual([]);
    next.resume();
    expect(end.got).toEqual([frame()]);
    // The network hears where the guest is now.
    expect(network.sent).toHaveLength(1);
    expect(() => nic(new FakeNetwork({ mtuBytes: 1400 })).restoreState(part)).toThrow(
      /network net0: an MTU of 1400.* 1500/,
    );
    await Promise.all([old.close(), next.close()]);
  });
});

describe('console ports', () => {
  it('keep what waits for the guest, and their size', () => {
    let host!: ConsoleHostEnd;
    const backend = (): ConsoleBackend => ({
      write: () => undefined,
      start: (end) => (host = end),
      setPaused: () => undefined,
      describe: () => ({ kind: 'fake' }),
      close: () => Promise.resolve(),
    });
    const make = (name: string) =>
      new ConsoleProvider({ id: 'console', ports: [{ name, backend: backend() }], logger: silentLogger });
    const old = make('agent');
    host.input(Uint8Array.of(1, 2, 3));
    old.ports[0]!.resize({ columns: 100, rows: 30 });
    const part = structuredClone(old.saveState());
    const next = make('agent');
    next.restoreState(part);
    host.input(Uint8Array.of(4));
    const got: number[] = [];
    const sizes: unknown[] = [];
    next.ports[0]!.attach({
      offer: (bytes) => (got.push(...bytes), bytes.length),
      hostOpen: () => undefined,
      resize: (size) => void sizes.push(size),
    });
    next.ports[0]!.guestOpen(true);
    expect([got, sizes]).toEqual([[1, 2, 3, 4], [{ columns: 100, rows: 30 }]]);
    expect(() => make('other').restoreState(part)).toThrow(/'other'; in the snapshot 'agent'/);
  });
});

describe('a generator', () => {
  it('keeps its rate limit', async () => {
    const make = () =>
      new EntropyProvider({ id: 'rng', clock: new ManualClock(), rate: { bytesPerSecond: 10, burstBytes: 20 } });
    const old = make();
    expect(await old.bytes(15)).toHaveLength(15);
    const next = make();
    next.restoreState(structuredClone(old.saveState()));
    expect(await next.bytes(20)).toHaveLength(5);
    await Promise.all([old.close(), next.close()]);
  });
});
