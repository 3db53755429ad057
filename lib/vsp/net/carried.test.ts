import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { carriedNetwork } from './carried.js';
import { CarriedDecoder, encodeFrames, encodeHello, encodeLink } from './carried-frames.js';
import { carryNetwork } from './carry-network.js';
import type { NetFrame } from './contract.js';
import { NetProvider } from './provider.js';
import { segmentTcp } from './segment.js';
import { FakeGuest, FakeNetwork, packet, unfinished } from './testing.js';
import { lendingBackend, lendingTo } from './testing-lent.js';

const OWN = 0x020000000001;
const context = { id: 'net0', mac: OWN, logger: silentLogger, clock: new ManualClock() };
const none = () => ({ lost: 0, badFrames: 0 });
const turns = async () => {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
};

function streams(highWaterMark = 1 << 20) {
  const [toInside, toOutside] = [new PassThrough({ highWaterMark }), new PassThrough({ highWaterMark })];
  return {
    outside: { input: toOutside, output: toInside },
    inside: { input: toInside, output: toOutside },
  };
}

async function carried(network: FakeNetwork, highWaterMark?: number) {
  const { outside, inside } = streams(highWaterMark);
  const { counts } = carryNetwork(network, outside, context);
  const backend = lendingBackend(await carriedNetwork(inside).open(context));
  const provider = lendingTo(new NetProvider({ id: 'net0', backend, logger: silentLogger, mac: OWN }));
  const guest = new FakeGuest(true, true);
  provider.attach(guest);
  return { provider, backend, guest, outside, inside, counts };
}

const payload = new Uint8Array(3000).fill(7);
const plain = packet({ version: 4, payload: payload.subarray(0, 100) });
const large = unfinished(packet({ version: 4, payload }), 1000);

describe('a carried network', () => {
  it('has every function, and brings frames both ways with what is left to do about them', async () => {
    const network = new FakeNetwork({
      takes: { checksum: true, segments: true },
      gives: { checked: true },
      mtuBytes: 9000,
    });
    const { provider, backend, guest } = await carried(network);
    const every = { takes: { checksum: true, segments: true }, gives: { checked: true, merged: true } };
    expect(backend).toMatchObject({ ...every, mtuBytes: 9000 });
    provider.send([{ bytes: plain }, large]);
    network.host.receive([{ bytes: plain, checked: true }, large]);
    await turns();
    expect(network.sent).toEqual([{ bytes: plain }, large]);
    expect(guest.got).toEqual([{ bytes: plain, checked: true }, large]);
    network.host.link(false);
    await turns();
    expect(guest.links).toEqual([true, false]);
    await provider.close();
    await turns();
    // Whoever carries closes it.
    expect(network.closed).toBe(false);
  });

  it('says what is at the other end, if that says what it is', async () => {
    const network = new FakeNetwork();
    const { backend } = await carried(network);
    expect(backend.describe()).toEqual({ kind: 'carried', ...none(), around: network.describe() });
    const tellings = ['', '{', 'null', '7', '{"kind":7}', `{"kind":"${'x'.repeat(5000)}"}`].map((text) => {
      const hello = Buffer.concat([encodeHello(network), Buffer.from(text)]);
      hello.writeUInt32BE(hello.length - 4, 0);
      return new CarriedDecoder(none()).push(hello);
    });
    for (const told of tellings) expect(told).toMatchObject([{ type: 'hello', backend: undefined }]);
    const silent = encodeHello({
      takes: network.takes,
      gives: network.gives,
      mtuBytes: 1500,
      backend: { kind: 'x'.repeat(5000) },
    });
    expect(new CarriedDecoder(none()).push(silent)).toMatchObject([{ type: 'hello', backend: undefined }]);
  });

  it('does what the backend lacks beside it: few large packets are carried', async () => {
    const network = new FakeNetwork();
    const { provider, guest } = await carried(network);
    provider.send([large]);
    await turns();
    const segments = segmentTcp(large.bytes, 1000)!;
    expect(network.sent.map(({ bytes }) => bytes)).toEqual(segments);
    network.host.receive([...segments.map((bytes) => ({ bytes })), { bytes: plain }]);
    await turns();
    expect(guest.got.map(({ bytes, segmentBytes }) => [bytes.length, segmentBytes])).toEqual([
      [large.bytes.length, 1000],
      [plain.length, undefined],
    ]);
    expect(guest.got[1]!.checked).toBe(true);
  });

  it('holds up a backend whose frames nobody takes, and a guest whose frames nobody takes', async () => {
    const network = new FakeNetwork();
    const { provider, guest, backend } = await carried(network, 1024);
    backend.setPaused(true);
    network.host.receive(Array.from({ length: 40 }, () => ({ bytes: plain })));
    expect(network.paused).toBe(true);
    network.host.receive([{ bytes: plain }]);
    backend.setPaused(false);
    await turns();
    expect(network.paused).toBe(false);
    expect(guest.got.length).toBe(40);

    let writable = 0;
    provider.onWritable = () => writable++;
    network.more = false;
    while (provider.send([{ bytes: plain }]));
    await turns();
    while (provider.send([{ bytes: plain }]));
    await turns();
    const sent = network.sent.length;
    network.more = true;
    network.host.writable();
    await turns();
    expect(network.sent.length).toBeGreaterThan(sent);
    expect(writable).toBeGreaterThan(0);
  });

  it('takes the link down when the other end goes', async () => {
    const { guest, outside } = await carried(new FakeNetwork());
    outside.output.end();
    await turns();
    expect(guest.links).toEqual([true, false]);
  });

  it('is given up for what no other end of ours would send', async () => {
    for (const bytes of [
      Uint8Array.of(0, 0, 0, 0),
      encodeFrames([{ bytes: plain }], none()),
      new Uint8Array(20).fill(255),
    ]) {
      const { inside, outside } = streams();
      const opening = carriedNetwork(inside).open(context);
      outside.output.write(bytes);
      await expect(opening).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    }
    const network = new FakeNetwork();
    const { outside, guest } = await carried(network);
    outside.output.write(new Uint8Array(20).fill(255));
    outside.input.write(new Uint8Array(20).fill(255));
    await turns();
    expect(guest.links).toEqual([true, false]);
    expect(outside.input.destroyed).toBe(true);
    expect(network.sent).toEqual([]);
  });

  it('leaves out frames of which what can not be is said, and counts them on either side', async () => {
    const network = new FakeNetwork({ takes: { checksum: true, segments: true }, gives: { merged: true } });
    const { provider, guest, outside, inside, backend, counts } = await carried(network);
    const wrong: NetFrame[] = [
      { bytes: plain.subarray(0, 13) },
      { bytes: plain, unfinished: { startAt: 34, offset: plain.length - 35 } },
      { bytes: plain, unfinished: { startAt: 0xffff, offset: 0xffff } },
      { ...large, segmentBytes: 255 },
      { ...large, segmentBytes: 0 },
      { ...large, unfinished: undefined },
    ];
    const bytes = encodeFrames([...wrong, { bytes: plain }], none());
    // As the ends of streams that speak for somebody else.
    outside.output.write(bytes);
    inside.output.write(bytes);
    await turns();
    expect(guest.got.map((frame) => frame.bytes.length)).toEqual([plain.length]);
    expect(network.sent.map((frame) => frame.bytes.length)).toEqual([plain.length]);
    expect(backend.describe()).toMatchObject({ kind: 'carried', lost: 0, badFrames: wrong.length });
    expect(counts).toEqual({ lost: 0, badFrames: wrong.length });
    // Too long for any network, in either direction.
    network.host.receive([{ bytes: new Uint8Array(65558) }]);
    backend.send([{ bytes: new Uint8Array(65558) }]);
    expect([counts.lost, backend.describe()['lost']]).toEqual([1, 1]);
    await provider.close();
  });

  it('holds what is carried out against the MTU of the network', async () => {
    const network = new FakeNetwork({ takes: { checksum: true, segments: true } });
    const { inside, provider, counts } = await carried(network);
    const fitting = [{ bytes: packet({ version: 4, payload: new Uint8Array(1460) }) }, large];
    const wrong = [
      { bytes: packet({ version: 4, payload: new Uint8Array(1469) }) },
      unfinished(packet({ version: 4, payload }), 1461),
      unfinished(packet({ version: 4, protocol: 'udp', payload }), 1000),
    ];
    inside.output.write(encodeFrames([...fitting, ...wrong], none()));
    await turns();
    expect(network.sent).toEqual(fitting);
    expect(counts).toEqual({ lost: 0, badFrames: wrong.length });
    await provider.close();
  });

  it('is none with an MTU that no network has', async () => {
    for (const mtuBytes of [0, 67, 65522]) {
      const { outside, inside } = streams();
      carryNetwork(new FakeNetwork({ mtuBytes }), outside, context);
      const opening = carriedNetwork(inside).open(context);
      await expect(opening).rejects.toMatchObject({ code: 'ERR_DEVICE', message: expect.stringMatching(/MTU/) });
      expect(inside.input.destroyed).toBe(true);
    }
  });

  it('says so at a bounded rate', () => {
    const records: unknown[] = [];
    const { outside } = streams();
    const logger = { log: (...record: unknown[]) => void records.push(record) };
    const network = new FakeNetwork();
    carryNetwork(network, outside, { ...context, logger });
    for (let count = 0; count < 100; count++) network.host.receive([{ bytes: new Uint8Array(65558) }]);
    expect(records.length).toBe(5);
    expect(records[4]).toEqual(['warn', expect.stringContaining('net0'), { lost: 5, badFrames: 0 }]);
  });

  it('can be opened once, and its opening be given up', async () => {
    const source = carriedNetwork(streams().inside);
    const given = source.open({ ...context, signal: AbortSignal.abort() });
    await expect(given).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(source.open(context)).rejects.toMatchObject({ code: 'ERR_STATE' });
  });
});

describe('CarriedDecoder', () => {
  const anyFrame: fc.Arbitrary<NetFrame> = fc
    .record({
      bytes: fc.uint8Array({ minLength: 14, maxLength: 200 }),
      checked: fc.constantFrom(true, undefined),
      unfinished: fc.option(fc.record({ startAt: fc.nat(6), offset: fc.nat(6) }), { nil: undefined }),
      segmentBytes: fc.option(fc.integer({ min: 256, max: 0xffff }), { nil: undefined }),
    })
    .map((frame) => (frame.unfinished === undefined ? { ...frame, segmentBytes: undefined } : frame))
    .map((frame) => Object.fromEntries(Object.entries(frame).filter(([, value]) => value !== undefined)) as never);

  it('gives back what was sent, however it is cut', () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { maxLength: 20 }), fc.array(fc.integer({ min: 1, max: 300 })), (frames, cuts) => {
        const hello = encodeHello(new FakeNetwork({ takes: { segments: true }, gives: { merged: true } }), 0xfffe);
        const all = Buffer.concat([hello, encodeFrames(frames, none()), encodeLink(true), encodeLink(false)]);
        const decoder = new CarriedDecoder(none());
        const records = [];
        for (let at = 0, cut = 0; at < all.length; cut++) {
          const length = cuts[cut] ?? all.length;
          records.push(...decoder.push(all.subarray(at, at + length))!);
          at += length;
        }
        expect(records).toEqual([
          {
            type: 'hello',
            takes: { checksum: false, segments: true },
            gives: { checked: false, merged: true },
            mtuBytes: 1500,
            change: 0xfffe,
          },
          ...frames.map((frame) => ({ type: 'frame', frame })),
          { type: 'link', up: true },
          { type: 'link', up: false },
        ]);
      }),
    );
  });

  it('stops at anything else, and holds no more than a record', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 100 })), (chunks) => {
        const decoder = new CarriedDecoder(none());
        let isBroken = false;
        for (const chunk of chunks) {
          const records = decoder.push(chunk);
          if (isBroken) expect(records).toBeUndefined();
          isBroken ||= records === undefined;
        }
        expect(decoder.heldBytes).toBeLessThan(66_000);
      }),
    );
  });
});
