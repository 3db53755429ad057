/** One network of the host's under several guests: who reaches whom, who gets how much, and the network taken back in the middle of it. */
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import type { NetFrame } from './contract.js';
import { macBytes } from './mac-filter.js';
import { passt } from './passt.js';
import { NetProvider } from './provider.js';
import { recordedNetwork } from './recorder.js';
import { sharedNetwork, type SharedNetworkGuestOptions, type SharedNetworkOptions } from './shared-network.js';
import type { NetSource } from './source.js';
import { segmentTcp } from './segment.js';
import { FakeGuest, FakeNetwork, packet, unfinished } from './testing.js';
import { lendingTo } from './testing-lent.js';

const MS = 1_000_000n;
const FAR = 0x02000000ff;
const ALL = 0xffffffffffff;

function frame(to: number, from: number, lengthBytes = 1000): NetFrame {
  const bytes = new Uint8Array(lengthBytes);
  bytes.set([...macBytes(to), ...macBytes(from), 0x08, 0x00]);
  return { bytes };
}
const times = (count: number, one: NetFrame) => Array.from({ length: count }, () => one);

class FakeSource implements NetSource {
  readonly class = 'network';
  readonly opened: FakeNetwork[] = [];
  readonly #mtuBytes: number | undefined;

  constructor(mtuBytes?: number) {
    this.#mtuBytes = mtuBytes;
  }
  get network(): FakeNetwork {
    return this.opened.at(-1)!;
  }
  describe() {
    return { kind: 'fake' };
  }
  open() {
    this.opened.push(new FakeNetwork(this.#mtuBytes === undefined ? {} : { mtuBytes: this.#mtuBytes }));
    return Promise.resolve(this.network);
  }
}

async function rig(guests: readonly SharedNetworkGuestOptions[], options: SharedNetworkOptions = {}) {
  const clock = new ManualClock();
  const source = new FakeSource();
  const shared = sharedNetwork(source, { clock, ...options });
  const ends = [];
  for (const [index, guest] of guests.entries()) {
    const mac = 0x020000000001 + index;
    const id = `net${index}`;
    const backend = await shared.guest(guest).open({ id, mac, logger: silentLogger, clock });
    const net = lendingTo(new NetProvider({ id, backend, mac, logger: silentLogger, clock }));
    const end = new FakeGuest(true, true);
    net.attach(end);
    // So that the switch knows where it is.
    net.send([frame(ALL, mac)]);
    ends.push({ mac, net, guest: end });
  }
  for (const { guest } of ends) guest.got.length = 0;
  source.network.sent.length = 0;
  return { clock, source, shared, ends };
}

describe('a shared network', () => {
  it('joins guests with each other and with the network', async () => {
    const { source, ends } = await rig([{}, {}, {}]);
    const [one, two, three] = [ends[0]!, ends[1]!, ends[2]!];
    one.net.send([frame(two.mac, one.mac), frame(FAR, one.mac), frame(ALL, one.mac)]);
    expect([two.guest.got.length, three.guest.got.length, source.network.sent.length]).toEqual([2, 1, 2]);
    source.network.host.receive([frame(three.mac, FAR), frame(ALL, FAR)]);
    expect([one, two, three].map(({ guest }) => guest.got.length)).toEqual([1, 3, 3]);
    // It is known to be outside now.
    two.net.send([frame(FAR, two.mac)]);
    expect([one.guest.got.length, three.guest.got.length, source.network.sent.length]).toEqual([1, 3, 3]);
    for (const { net } of ends) await net.close();
    expect(source.opened.map(({ closed }) => closed)).toEqual([true]);
  });

  it('does in software what the network lacks', async () => {
    const { source, ends } = await rig([{}]);
    const { net, guest } = ends[0]!;
    const large = packet({ version: 4, payload: new Uint8Array(3000).fill(7) });
    large.set(macBytes(FAR));
    net.send([unfinished(large, 1000)]);
    const segments = segmentTcp(large, 1000)!;
    expect(source.network.sent.map(({ bytes }) => bytes)).toEqual(segments);
    const incoming = segments.map((bytes) => {
      const copy = bytes.slice();
      copy.set(macBytes(ends[0]!.mac));
      return { bytes: copy };
    });
    source.network.host.receive(incoming);
    expect(guest.got.map(({ segmentBytes }) => segmentBytes)).toEqual([1000]);
  });

  it.each(['send', 'receive'] as const)('gives shares by weight and bytes where it is too slow: %s', async (way) => {
    const weights = [2, 3, 1];
    const limits = { [way]: { bytesPerSecond: 1_000_000, bytesBurst: 1 } };
    const { clock, source, ends } = await rig(
      weights.map((weight) => ({ weight })),
      { limits },
    );
    const lengths = [200, 1400, 600];
    const feed = () => {
      for (const [index, { mac, net }] of ends.entries()) {
        const length = lengths[index]!;
        if (way === 'send') net.send(times(Math.ceil(40_000 / length), frame(FAR, mac, length)));
        else source.network.host.receive(times(Math.ceil(40_000 / length), frame(mac, FAR, length)));
      }
      clock.setTimer(10n * MS, feed);
    };
    feed();
    clock.advance(1000n * MS);
    const count = () =>
      ends.map(({ guest, mac }) => {
        const mine = way === 'send' ? source.network.sent.filter(({ bytes }) => bytes[11] === (mac & 255)) : guest.got;
        return mine.reduce((sum, { bytes }) => sum + bytes.length + 24, 0);
      });
    const before = count();
    clock.advance(4000n * MS);
    const had = count().map((bytes, index) => bytes - before[index]!);
    const sum = had.reduce((all, bytes) => all + bytes, 0);
    weights.forEach((weight, index) => expect(had[index]! / sum / (weight / 6)).toBeCloseTo(1, 1));
    // And not more than there is: the cost of a frame beside its bytes is not the limit's.
    expect(sum).toBeGreaterThan(3_900_000);
    expect(sum).toBeLessThan(4_700_000);
  });

  it('holds a guest while the network takes nothing, and others go on among themselves', async () => {
    const { source, ends } = await rig([{}, {}]);
    const [one, two] = [ends[0]!, ends[1]!];
    source.network.more = false;
    let writable = 0;
    one.net.onWritable = () => writable++;
    expect(one.net.send([frame(FAR, one.mac)])).toBe(true);
    expect(one.net.send([frame(FAR, one.mac)])).toBe(false);
    expect(two.net.send([frame(one.mac, two.mac)])).toBe(true);
    expect([source.network.sent.length, one.guest.got.length, writable]).toEqual([1, 1, 0]);
    source.network.more = true;
    source.network.host.writable();
    expect([source.network.sent.length, writable]).toEqual([2, 1]);
  });

  it.each(['send', 'receive'] as const)(
    'gives what had to wait as it was, whoever has its bytes by then: %s',
    async (way) => {
      const limits = { [way]: { operationsPerSecond: 100, operationsBurst: 1 } };
      const { clock, source, ends } = await rig([{}], { limits });
      const { mac, net, guest } = ends[0]!;
      clock.advance(100n * MS);
      source.network.sent.length = 0;
      const frames = [60, 70, 80, 90].map((lengthBytes) =>
        way === 'send' ? frame(FAR, mac, lengthBytes) : frame(mac, FAR, lengthBytes),
      );
      // One at a time: what goes at once goes in one piece.
      for (const each of frames) {
        if (way === 'send') net.send([each]);
        else source.network.host.receive([each]);
      }
      const came = way === 'send' ? source.network.sent : guest.got;
      expect(came.length).toBeLessThan(frames.length);
      clock.advance(100n * MS);
      expect(came).toEqual(frames);
    },
  );

  it('drops what waits beyond its bound', async () => {
    const { shared, source, ends } = await rig([{}]);
    source.network.more = false;
    for (let round = 0; round < 200; round++) ends[0]!.net.send(times(64, frame(FAR, ends[0]!.mac)));
    const { guests } = shared.inspect() as { guests: { send: { dropped: number; waitingBytes: number } }[] };
    expect(guests[0]!.send.waitingBytes).toBeLessThanOrEqual(5 * 1024 * 1024);
    expect(guests[0]!.send.dropped).toBeGreaterThan(6000);
  });

  it('is taken back and given back, and the guests are told nothing', async () => {
    const { shared, source, ends } = await rig([{}, {}]);
    const [one, two] = [ends[0]!, ends[1]!];
    const links = [...one.guest.links];
    source.network.more = false;
    for (const each of times(2, frame(FAR, one.mac))) one.net.send([each]);
    const first = source.network;
    await shared.takeBack();
    expect(first.closed).toBe(true);
    expect(one.net.contract.backend).toMatchObject({ kind: 'shared', withdrawn: true, network: { kind: 'none' } });
    expect(one.net.send([frame(FAR, one.mac), frame(two.mac, one.mac)])).toBe(true);
    expect(two.guest.got).toHaveLength(1);
    await expect(shared.takeBack()).rejects.toMatchObject({ code: 'ERR_STATE' });
    await shared.giveBack();
    one.net.send([frame(FAR, one.mac)]);
    expect(source.network).not.toBe(first);
    expect(source.network.sent).toHaveLength(1);
    expect(one.guest.links).toEqual(links);
    expect(shared.inspect()).toMatchObject({ isTakenBack: false, takeBacks: 1, uplink: { lost: 2 } });
    await expect(shared.giveBack()).rejects.toMatchObject({ code: 'ERR_STATE' });
    for (const { net } of ends) await net.close();
    expect(source.network.closed).toBe(true);
  });

  it('has a stand-in meanwhile, and links that are down, where they are asked for', async () => {
    const { shared, source, ends } = await rig([{}]);
    const { net, guest, mac } = ends[0]!;
    const standIn = new FakeSource();
    await shared.takeBack({ standIn });
    net.send([frame(FAR, mac)]);
    expect(standIn.network.sent).toHaveLength(1);
    await shared.giveBack();
    expect(standIn.network.closed).toBe(true);
    guest.links.length = 0;
    await shared.takeBack({ linkDown: true });
    expect([net.linkUp, guest.links]).toEqual([false, [false]]);
    await shared.giveBack();
    expect([net.linkUp, guest.links]).toEqual([true, [false, true]]);
    await expect(shared.takeBack({ standIn: new FakeSource(1400) })).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    expect(source.network.closed).toBe(false);
  });

  it('lets nothing of the host be opened for a guest that comes while it is taken back', async () => {
    const { shared, source, ends } = await rig([{}]);
    await ends[0]!.net.close();
    await shared.takeBack();
    const clock = new ManualClock();
    const port = await shared.guest().open({ id: 'net0', mac: 2, logger: silentLogger, clock });
    expect(source.opened).toHaveLength(1);
    await shared.giveBack();
    expect(source.opened).toHaveLength(2);
    await port.close();
    expect(source.network.closed).toBe(true);
  });

  it('limits a port', async () => {
    const { clock, source, ends } = await rig([{ limits: { operationsPerSecond: 10, operationsBurst: 5 } }, {}]);
    for (const { net, mac } of ends) net.send(times(20, frame(FAR, mac)));
    expect(source.network.sent.length).toBeLessThanOrEqual(25);
    clock.advance(3000n * MS);
    expect(source.network.sent).toHaveLength(40);
  });

  it.each([
    ['passt', passt(), /passt gives each of them the same address/],
    ['a record of passt', recordedNetwork(passt(), 'a.pcap'), /passt gives each of them the same address/],
  ])('is not had of %s', (_, network, message) => {
    expect(() => sharedNetwork(network)).toThrow(RangeError);
    expect(() => sharedNetwork(network)).toThrow(message);
  });

  it('checks what it is given', () => {
    const source = new FakeSource();
    expect(() => sharedNetwork({} as NetSource)).toThrow(/sharedNetwork: a network is wanted/);
    expect(() => sharedNetwork(source, { mtuBytes: 10 })).toThrow(RangeError);
    expect(() => sharedNetwork(source).guest({ weight: 0 })).toThrow(RangeError);
    expect(() => sharedNetwork(source).guest({ limits: { bytesPerSecond: -1 } })).toThrow(
      /guest.limits.bytesPerSecond/,
    );
  });
});
