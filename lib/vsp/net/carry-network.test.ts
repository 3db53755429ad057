/** The network at the outer end of a carried one is exchanged while the guest runs, with both ends in this process. */
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { carriedNetwork, type CarriedSuccessor } from './carried.js';
import { encodeFrames, encodeHello } from './carried-frames.js';
import { carryNetwork } from './carry-network.js';
import { NetLimiter } from './limiter.js';
import { NetProvider } from './provider.js';
import { FakeGuest, FakeNetwork, packet, unfinished } from './testing.js';
import { lendingBackend, lendingTo } from './testing-lent.js';

const OWN = 0x020000000001;
const clock = new ManualClock();
const context = { id: 'net0', mac: OWN, logger: silentLogger, clock };
const turns = async () => {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
};
const frame = (byte: number) => ({ bytes: packet({ version: 4, payload: new Uint8Array(100).fill(byte) }) });
/** What a frame of frame() carries. */
const bytesOf = (frames: readonly { readonly bytes: Uint8Array }[]) => frames.map(({ bytes }) => bytes.at(-1));

class NamedNetwork extends FakeNetwork {
  readonly name: string;
  closes = 0;
  /** What it says of its link as it starts. */
  startsUp: boolean | undefined;
  constructor(name: string, options: ConstructorParameters<typeof FakeNetwork>[0] = {}) {
    super(options);
    this.name = name;
  }
  override start(host: Parameters<FakeNetwork['start']>[0]): void {
    super.start(host);
    if (this.startsUp !== undefined) host.link(this.startsUp);
  }
  override describe() {
    return { kind: 'fake', name: this.name };
  }
  override close(): Promise<void> {
    this.closes++;
    return super.close();
  }
}

const three = () => [new NamedNetwork('first'), new NamedNetwork('second'), new NamedNetwork('third')] as const;

/** A device on `first`; `exchange` does what asking the other end does, in one process. */
async function carried(first: NamedNetwork, highWaterMark = 1 << 20, limiter?: NetLimiter) {
  const [toInside, toOutside] = [new PassThrough({ highWaterMark }), new PassThrough({ highWaterMark })];
  const outside = { input: toOutside, output: toInside };
  const inside = { input: toInside, output: toOutside };
  const relay = carryNetwork(first, outside, context);
  const network = carriedNetwork(inside);
  const opened = await network.open(context);
  const provider = new NetProvider({
    ...context,
    mtuBytes: 1500,
    backend: lendingBackend(limiter?.around(opened) ?? opened),
  });
  const guest = new FakeGuest(true, true);
  provider.attach(guest);
  let changes = 0;
  let stood = first;
  const dropped: NamedNetwork[] = [];
  const successor = (next: NamedNetwork, take?: CarriedSuccessor['take']) => {
    const change = ++changes;
    const backend = network.successor({
      change,
      mtuBytes: next.mtuBytes,
      around: next.describe(),
      take:
        take ??
        (async () => {
          const old = stood;
          stood = next;
          await turns();
          relay.exchange(next, change);
          await old.close();
        }),
      drop: () => void dropped.push(next),
    });
    return lendingBackend(limiter?.around(backend) ?? backend);
  };
  return { relay, opened, provider, sender: lendingTo(provider), guest, outside, inside, successor, dropped };
}

describe('the network at the other end', () => {
  it('is exchanged under a guest that notices nothing; the old one is closed once, and what it still gives is lost', async () => {
    const [first, second] = [new NamedNetwork('first'), new NamedNetwork('second', { mtuBytes: 9000 })];
    const { provider, sender, guest, successor, relay } = await carried(first);
    sender.send([frame(1)]);
    first.host.receive([frame(2)]);
    await turns();
    const rebound = provider.rebind(successor(second));
    // Asked for, and not done yet: what the other end still gives is of the network that was left.
    first.host.receive([frame(3)]);
    await rebound;
    first.host.receive([frame(4)]);
    first.host.link(false);
    second.host.receive([frame(5)]);
    sender.send([frame(6)]);
    await turns();
    // And 0: what the device says of where it is. It says that again, for whoever had gone already.
    expect(bytesOf(first.sent)).toEqual([1, 0]);
    clock.advance(200_000_000n);
    await turns();
    expect([second.sent.length > 1, new Set(bytesOf(second.sent))]).toEqual([true, new Set([6, 0])]);
    expect(bytesOf(guest.got)).toEqual([2, 5]);
    expect([first.closes, second.closes]).toEqual([1, 0]);
    expect(guest.links).toEqual([true]);
    const around = { kind: 'fake', name: 'second' };
    expect(provider.contract).toMatchObject({ rebinds: 1, backend: { kind: 'carried', badFrames: 0, around } });
    expect(relay.counts).toEqual({ lost: 0, badFrames: 0 });
    expect(provider.mtuBytes).toBe(1500);
  });

  it('gets what waited in the streams, as it takes it', async () => {
    const [first, second] = [new NamedNetwork('first'), new NamedNetwork('second', { takes: { checksum: true } })];
    const { provider, sender, successor } = await carried(first, 512);
    first.more = false;
    let writable = 0;
    provider.onWritable = () => writable++;
    for (let byte = 0; sender.send([frame(byte)]); byte++) await turns();
    const sent = first.sent.length;
    await provider.rebind(successor(second));
    await turns();
    expect(first.sent.length).toBe(sent);
    expect(second.sent.length).toBeGreaterThan(0);
    expect(writable).toBeGreaterThan(0);
    const open = unfinished(packet({ version: 4, payload: new Uint8Array(50) }));
    expect(sender.send([open])).toBe(true);
    await turns();
    expect(second.sent.at(-1)).toMatchObject({ unfinished: open.unfinished });
  });

  it('is held up while the guest takes nothing, as the one before was', async () => {
    const [first, second] = [new NamedNetwork('first'), new NamedNetwork('second')];
    const { provider, guest, successor } = await carried(first, 512);
    guest.room = 0;
    for (let byte = 0; byte < 40; byte++) {
      first.host.receive([frame(byte)]);
      await turns();
    }
    expect(first.paused).toBe(true);
    await provider.rebind(successor(second));
    expect(second.paused).toBe(true);
    const waiting = guest.got.length;
    guest.room = Number.POSITIVE_INFINITY;
    provider.onGuestReady();
    await turns();
    expect(second.paused).toBe(false);
    second.host.receive([frame(77)]);
    await turns();
    expect(guest.got.length).toBeGreaterThan(waiting);
    expect(bytesOf(guest.got).at(-1)).toBe(77);
  });

  it('stays where the device can not stand on the other one, which is dropped', async () => {
    const [first, small] = [new NamedNetwork('first'), new NamedNetwork('small', { mtuBytes: 1400 })];
    const { provider, sender, successor, dropped } = await carried(first);
    const backend = successor(small);
    await expect(provider.rebind(backend)).rejects.toMatchObject({
      code: 'ERR_DEVICE',
      message: expect.stringMatching(/an MTU of 1400 bytes, the device has 1500/) as string,
    });
    await backend.close();
    await backend.close();
    expect(dropped).toEqual([small]);
    sender.send([frame(1)]);
    await turns();
    expect(bytesOf(first.sent)).toEqual([1]);
    expect([first.closes, provider.contract.rebinds]).toEqual([0, 0]);
  });

  it('follows one another as often as it is asked for, also while a change is under way', async () => {
    const networks = Array.from({ length: 5 }, (_, at) => new NamedNetwork(String(at)));
    const { provider, guest, successor, sender } = await carried(networks[0]!);
    await Promise.all(networks.slice(1).map((network) => provider.rebind(successor(network))));
    for (const network of networks.slice(0, 4)) network.host.receive([frame(1)]);
    networks[4]!.host.receive([frame(9)]);
    sender.send([frame(8)]);
    await turns();
    expect(bytesOf(guest.got)).toEqual([9]);
    expect(bytesOf(networks[4]!.sent).at(-1)).toBe(8);
    expect(networks.map(({ closes }) => closes)).toEqual([1, 1, 1, 1, 0]);
  });

  it.each([
    ['up, and the one before was', undefined, undefined, [true]],
    ['up, and the one before was down', false, undefined, [true, false, true]],
    ['down, and the one before was too', false, false, [true, false]],
    ['down, and the one before was up', undefined, false, [true, false]],
  ] as const)('has a link of its own: %s', async (_what, before, after, links) => {
    const [first, second] = [new NamedNetwork('first'), new NamedNetwork('second')];
    const { provider, guest, successor } = await carried(first);
    if (before !== undefined) first.host.link(before);
    await turns();
    second.startsUp = after;
    await provider.rebind(successor(second));
    await turns();
    expect(guest.links).toEqual(links);
  });

  it('is behind the limits of the device, which go on', async () => {
    const [first, second] = [new NamedNetwork('first'), new NamedNetwork('second')];
    const limiter = new NetLimiter({ send: { operationsPerSecond: 1, operationsBurst: 1 } }, clock);
    const { provider, sender, successor } = await carried(first, 1 << 20, limiter);
    sender.send([frame(1), frame(2)]);
    await turns();
    expect(bytesOf(first.sent)).toEqual([1]);
    await provider.rebind(successor(second));
    sender.send([frame(3)]);
    clock.advance(60_000_000_000n);
    await turns();
    // What waited in front of the old one is lost with it.
    expect(bytesOf(first.sent)).toEqual([1]);
    expect(bytesOf(second.sent)).toContain(3);
    expect(bytesOf(second.sent)).not.toContain(2);
  });

  it('has the streams to itself: the one before neither sends any more nor holds them, as it may have done', async () => {
    const [first, second] = [new NamedNetwork('first'), new NamedNetwork('second')];
    const { opened, successor } = await carried(first);
    opened.setPaused(true);
    const next = successor(second);
    next.send([frame(1)]);
    const got: number[] = [];
    next.start({
      receive: (frames) => void got.push(...frames.map(({ bytes }) => bytes.at(-1)!)),
      writable: () => undefined,
      link: () => undefined,
    });
    opened.setPaused(true);
    opened.send([frame(2)]);
    await opened.close();
    next.send([frame(3)]);
    second.host.receive([frame(4)]);
    await turns();
    expect([first.sent, bytesOf(second.sent), got]).toEqual([[], [3], [4]]);
  });

  it('can not be exchanged once the streams have gone; if they go in between, the link does', async () => {
    const [first, second, third] = three();
    const { provider, guest, successor, outside } = await carried(first);
    const late = successor(second, () => Promise.reject(new Error('nobody is there')));
    outside.output.end();
    await turns();
    expect(() => successor(third)).toThrow(/has gone/);
    await provider.rebind(late);
    expect(guest.links).toEqual([true, false]);
    await provider.close();
  });

  it('that the other end does not change over to is none: nothing goes to the one before, and the link is down', async () => {
    const [first, second, third] = three();
    const { provider, sender, guest, successor } = await carried(first);
    await provider.rebind(successor(second, () => Promise.reject(new Error('nobody is there'))));
    await turns();
    expect(guest.links).toEqual([true, false]);
    const before = first.sent.length;
    sender.send([frame(1)]);
    first.host.receive([frame(2)]);
    await turns();
    expect([first.sent.length, guest.got]).toEqual([before, []]);
    await provider.rebind(successor(third));
    sender.send([frame(3)]);
    third.host.receive([frame(4)]);
    await turns();
    expect([bytesOf(third.sent).includes(3), bytesOf(guest.got), guest.links.at(-1)]).toEqual([true, [4], true]);
    await provider.close();
  });

  it('is none with an MTU that no network has', async () => {
    const { successor } = await carried(new NamedNetwork('first'));
    for (const mtuBytes of [67, 65_522, Number.NaN]) {
      expect(() => successor(new NamedNetwork('odd', { mtuBytes }))).toThrow(/an MTU of/);
    }
  });

  it('is known by the number of its change alone', async () => {
    const [first, second] = [new NamedNetwork('first'), new NamedNetwork('second')];
    const { provider, guest, successor, outside } = await carried(first);
    const hello = (change: number) => encodeHello(first, change);
    const none = { lost: 0, badFrames: 0 };
    // As an end that speaks of changes that nobody has asked for.
    outside.output.write(hello(1));
    outside.output.write(encodeFrames([frame(1)], none));
    await turns();
    await provider.rebind(successor(second, () => Promise.resolve()));
    for (const change of [0, 2, 0xffff]) {
      outside.output.write(hello(change));
      outside.output.write(encodeFrames([frame(2)], none));
    }
    await turns();
    expect(bytesOf(guest.got)).toEqual([1]);
    outside.output.write(Buffer.concat([encodeFrames([frame(3)], none), hello(1), encodeFrames([frame(4)], none)]));
    await turns();
    expect(bytesOf(guest.got)).toEqual([1, 4]);
  });
});
