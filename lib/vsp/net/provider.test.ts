import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { requestChannel } from '../../base/probes.js';
import { probed, toldNobody } from '../../base/testing-probes.js';
import { announcementOf } from './announcement.js';
import type { NetBackend, NetFrame, NetHostEnd } from './contract.js';
import { keptFrame } from './kept-frame.js';
import { NetProvider } from './provider.js';
import { recordedNetwork, recordPackets } from './recorder.js';
import { segmentTcp } from './segment.js';
import type { NetSource } from './source.js';
import { NetSwitch } from './switch.js';
import { FakeGuest, FakeNetwork, packet, unfinished, withoutNative } from './testing.js';
import { lendingBackend, lendingTo } from './testing-lent.js';

const OWN = 0x020000000001;
const logger = silentLogger;
const provider = (backend: NetBackend, options: { mac?: number; mtuBytes?: number; clock?: ManualClock } = {}) =>
  lendingTo(new NetProvider({ id: 'net0', backend, logger, mac: OWN, ...options }));
const payload = (length: number) => Uint8Array.from({ length }, (_, index) => index % 251);
const tcp = (length: number, more: { sequence?: number; id?: number } = {}) =>
  packet({ version: 4, payload: payload(length), ...more });
/** Frames as they would be on a wire. */
const onWire = (frames: readonly NetFrame[]) => {
  const plain = new FakeNetwork();
  provider(plain).send(frames);
  return plain.sent.map(({ bytes }) => bytes);
};

describe('one network under every backend', () => {
  const anyFrame = fc.record({
    version: fc.constantFrom(4 as const, 6 as const),
    length: fc.integer({ min: 0, max: 9000 }),
    segmentBytes: fc.integer({ min: 256, max: 1400 }),
    left: fc.constantFrom('nothing', 'checksum', 'segments'),
  });
  const built = (frames: readonly { version: 4 | 6; length: number; segmentBytes: number; left: string }[]) =>
    frames.map(({ version, length, segmentBytes, left }) => {
      const bytes = packet({ version, payload: payload(left === 'segments' ? length : length % 1400) });
      if (left === 'nothing') return { bytes };
      return unfinished(bytes, left === 'segments' ? segmentBytes : undefined);
    });
  const backends: readonly [string, (backend: NetBackend) => NetBackend][] = [
    ['as it is', (backend) => backend],
    ['with every native function off', withoutNative],
  ];

  describe.each(backends)('a switch %s', (_, wrap) => {
    it.each([
      [false, false],
      [true, false],
      [true, true],
    ])('brings every byte to a guest that takes checksums %s and segments %s', (checksum, segments) => {
      fc.assert(
        fc.property(fc.array(anyFrame, { minLength: 1, maxLength: 6 }), (choices) => {
          const net = new NetSwitch({ name: 'lan' });
          const sender = provider(wrap(net.port()), { mac: 0x020000000002 });
          const receiver = provider(wrap(net.port()));
          const guest = new FakeGuest(checksum, segments);
          sender.attach(new FakeGuest());
          receiver.attach(guest);
          const frames = built(choices);
          const wanted = onWire(frames);
          expect(sender.send(frames)).toBe(true);
          for (const frame of guest.got) {
            if (!checksum) expect(frame.unfinished).toBeUndefined();
            if (!segments) expect(frame.segmentBytes).toBeUndefined();
          }
          expect(onWire(guest.got)).toEqual(wanted);
          expect(Object.keys(receiver.contract.functions)).toEqual(Object.keys(sender.contract.functions));
        }),
        { numRuns: 30 },
      );
    });
  });
});

/** Says at once that its link is down. */
class DownNetwork extends FakeNetwork {
  override start(host: NetHostEnd): void {
    super.start(host);
    host.link(false);
  }
}

describe('NetProvider', () => {
  it('does what the backend lacks, and says who did what', () => {
    const network = new FakeNetwork();
    const net = provider(network);
    net.send([{ bytes: tcp(10) }, unfinished(tcp(20)), unfinished(tcp(3000), 1000)]);
    expect(network.sent.map(({ bytes }) => bytes)).toEqual([tcp(10), tcp(20), ...segmentTcp(tcp(3000), 1000)!]);
    const native = new FakeNetwork({ takes: { checksum: true, segments: true } });
    const other = provider(native);
    const frames = [unfinished(tcp(20)), unfinished(tcp(3000), 1000)];
    other.send(frames);
    expect(native.sent).toEqual(frames);
    expect(net.contract).toMatchObject({
      class: 'network',
      functions: { send: { by: 'native', calls: 3 }, 'send-segments': { by: 'emulated', calls: 1 } },
    });
    expect(other.contract.functions['send-checksum']).toMatchObject({ by: 'native', calls: 1 });
  });

  it('tells a probe of each frame, and makes nothing for nobody', async () => {
    const network = new FakeNetwork();
    const options = { id: 'net0', machine: 'box', backend: network, logger, mac: OWN, clock: new ManualClock() };
    const net = lendingTo(new NetProvider(options));
    net.attach(new FakeGuest(true, true));
    const segments = segmentTcp(tcp(3000), 1000)!.map((bytes) => ({ bytes }));
    const passFrames = (): void => {
      net.send([{ bytes: tcp(10) }, unfinished(tcp(20))]);
      network.host.receive([...segments, { bytes: tcp(5) }]);
    };
    expect(await toldNobody(requestChannel, passFrames)).toBe(0);
    const about = { machine: 'box', device: 'net0', class: 'network', ns: 0, error: undefined };
    expect(await probed(requestChannel, passFrames)).toEqual([
      { ...about, function: 'send', bytes: tcp(10).length, by: 'native' },
      { ...about, function: 'send', bytes: tcp(20).length, by: 'emulated' },
      { ...about, function: 'receive', bytes: tcp(3000).length, by: 'emulated' },
      { ...about, function: 'receive', bytes: tcp(5).length, by: 'emulated' },
    ]);
  });

  it('merges and checks what comes, for a guest that takes it', () => {
    const network = new FakeNetwork();
    const net = provider(network);
    const guest = new FakeGuest(true, true);
    net.attach(guest);
    const wrong = tcp(9);
    wrong[wrong.length - 1] = 1;
    const segments = segmentTcp(tcp(3000), 1000)!;
    network.host.receive([{ bytes: wrong }, ...segments.map((bytes) => ({ bytes })), { bytes: tcp(5) }]);
    expect(guest.got.map(({ segmentBytes, checked }) => [segmentBytes, checked])).toEqual([
      [undefined, undefined],
      [1000, undefined],
      [undefined, true],
    ]);
    expect(onWire(guest.got)).toEqual([wrong, ...segments, tcp(5)]);
  });

  it('drops what is no frame, what is not for the guest, and what nobody takes', () => {
    const network = new FakeNetwork();
    const net = provider(network);
    network.host.receive([{ bytes: tcp(1) }]);
    const guest = new FakeGuest();
    net.attach(guest);
    const foreign = tcp(1);
    foreign[5] = 9;
    network.host.receive([{ bytes: foreign }, { bytes: new Uint8Array(13) }, { bytes: tcp(1600) }, { bytes: tcp(2) }]);
    expect(guest.got.map(({ bytes }) => bytes)).toEqual([tcp(2)]);
    net.send([{ bytes: new Uint8Array(9) }, { bytes: tcp(1600) }, { ...unfinished(tcp(40)), segmentBytes: 0 }]);
    expect(network.sent).toEqual([]);
    expect(net.inspect()).toMatchObject({ dropped: { noFrame: 3, filtered: 3, noGuest: 1 } });
  });

  it('lets frames wait for a slow guest, bounded, with the backend paused', () => {
    const network = new FakeNetwork();
    const net = provider(network);
    const guest = new FakeGuest();
    net.attach(guest);
    guest.room = 1;
    const frames = Array.from({ length: 600 }, (_, id) => ({ bytes: tcp(4, { id }) }));
    network.host.receive(frames);
    expect(network.paused).toBe(true);
    expect(net.inspect()).toMatchObject({ waiting: 512, dropped: { guestSlow: 87 } });
    guest.room = 600;
    net.onGuestReady();
    expect(network.paused).toBe(false);
    expect(guest.got).toEqual(frames.slice(0, 513));
  });

  it('holds the guest while the backend takes no more', () => {
    const network = new FakeNetwork();
    const net = provider(network);
    let told = 0;
    net.onWritable = () => told++;
    network.more = false;
    expect(net.send([{ bytes: tcp(1) }])).toBe(false);
    network.host.writable();
    expect(told).toBe(1);
  });

  it('changes its network without a word to the guest, and never to one that can do less', async () => {
    const network = new FakeNetwork();
    const clock = new ManualClock();
    const net = provider(network, { mtuBytes: 1400, clock });
    const announcement = { bytes: announcementOf(OWN) };
    const guest = new FakeGuest();
    net.attach(guest);
    await expect(net.rebind(new FakeNetwork({ mtuBytes: 1300 }))).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    network.host.receive([{ bytes: tcp(1) }]);
    const next = new FakeNetwork({ takes: { checksum: true } });
    await net.rebind(next);
    network.host.receive([{ bytes: tcp(2) }]);
    next.host.receive([{ bytes: tcp(3) }]);
    net.send([unfinished(tcp(4))]);
    expect(network.closed).toBe(true);
    expect(guest.got.map(({ bytes }) => bytes)).toEqual([tcp(1), tcp(3)]);
    expect(next.sent).toEqual([announcement, unfinished(tcp(4))]);
    clock.advance(2_000_000_000n);
    expect(next.sent.slice(2)).toEqual(Array(4).fill(announcement));
    expect([guest.links, net.contract.rebinds]).toEqual([[true], 1]);
    await net.close();
    await expect(net.rebind(network)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('takes the link down and up, and nothing passes in between', () => {
    const network = new FakeNetwork();
    const net = provider(network);
    const guest = new FakeGuest();
    net.attach(guest);
    net.setLink(false);
    network.host.receive([{ bytes: tcp(1) }]);
    net.send([{ bytes: tcp(1) }]);
    net.setLink(true);
    expect([guest.links, guest.got, network.sent]).toEqual([[true, false, true], [], []]);
  });

  it('keeps a link that its user took down, and forgets what the network before said', async () => {
    const network = new FakeNetwork();
    const net = provider(network);
    network.host.link(false);
    expect(net.linkUp).toBe(false);
    await net.rebind(new FakeNetwork());
    expect(net.linkUp).toBe(true);
    net.setLink(false);
    await net.rebind(new FakeNetwork());
    expect(net.linkUp).toBe(false);
  });

  it('moves the link once at most for another network, also when both are down', async () => {
    const network = new DownNetwork();
    const net = provider(network);
    const guest = new FakeGuest();
    net.attach(guest);
    await net.rebind(new DownNetwork());
    expect([guest.links, net.linkUp]).toEqual([[false], false]);
    await net.rebind(new FakeNetwork());
    await net.rebind(new FakeNetwork());
    await net.rebind(new DownNetwork());
    expect(guest.links).toEqual([false, true, false]);
  });

  it('sends no large packet in pieces that are none, too many, or more than the network carries', () => {
    const network = new FakeNetwork({ takes: { checksum: true, segments: true } });
    const net = provider(network);
    const udp = packet({ version: 4, protocol: 'udp', payload: payload(3000) });
    const options = packet({ version: 6, payload: payload(3000), extensionBytes: 512 });
    net.send([
      unfinished(tcp(3000), 1),
      unfinished(tcp(3000), 255),
      unfinished(tcp(3000), 1461),
      unfinished(udp, 1000),
      unfinished(options, 1000),
      { bytes: new Uint8Array(2000), segmentBytes: 1000 },
    ]);
    expect(network.sent).toEqual([]);
    expect(net.inspect()).toMatchObject({ dropped: { noFrame: 6 } });
    net.send([unfinished(tcp(3000), 256), unfinished(tcp(3000), 1460)]);
    expect(network.sent.length).toBe(2);
  });

  it('refuses an address or an MTU that is none', () => {
    const backend = new FakeNetwork();
    for (const mac of [0, 2 ** 48, 0x010000000000]) expect(() => provider(backend, { mac })).toThrow(RangeError);
    for (const mtuBytes of [67, 1501]) expect(() => provider(backend, { mtuBytes })).toThrow(RangeError);
  });
});

describe('NetSwitch', () => {
  const frame = (to: number, from: number) => {
    const bytes = new Uint8Array(60);
    bytes[5] = to;
    bytes[11] = from;
    if (to === 255) bytes.fill(255, 0, 6);
    return { bytes };
  };
  const joined = (count: number, clock = new ManualClock()) => {
    const net = new NetSwitch({ name: 'lan', clock });
    return Array.from({ length: count }, () => {
      const port = lendingBackend(net.port());
      const got: NetFrame[] = [];
      port.start({
        receive: (frames) => got.push(...frames.map(keptFrame)),
        writable: () => undefined,
        link: () => undefined,
      });
      return { port, got };
    });
  };

  it('floods what it does not know, and learns, and forgets', () => {
    const clock = new ManualClock();
    const [a, b, c] = joined(3, clock);
    a!.port.send([frame(2, 1)]);
    expect([a!.got.length, b!.got.length, c!.got.length]).toEqual([0, 1, 1]);
    b!.port.send([frame(1, 2), frame(255, 2)]);
    expect([a!.got.length, c!.got.length]).toEqual([2, 2]);
    a!.port.send([frame(2, 1), frame(1, 1)]);
    expect([b!.got.length, c!.got.length]).toEqual([2, 2]);
    clock.advance(301_000_000_000n);
    c!.port.send([frame(1, 3)]);
    expect([a!.got.length, b!.got.length]).toEqual([3, 3]);
  });

  it('follows an address that moves, and forgets a port that is closed', async () => {
    const [a, b, c] = joined(3);
    a!.port.send([frame(255, 1)]);
    b!.port.send([frame(255, 1)]);
    c!.port.send([frame(1, 3)]);
    expect([a!.got.length, b!.got.length]).toEqual([1, 2]);
    await b!.port.close();
    c!.port.send([frame(1, 3)]);
    expect([a!.got.length, b!.got.length]).toEqual([2, 2]);
  });

  it('lets a port that makes up addresses forget only its own', () => {
    const net = new NetSwitch({ name: 'lan' });
    const [quiet, loud] = [net.port(), net.port()];
    quiet.send([frame(255, 7)]);
    for (let index = 0; index < 5000; index++) {
      const made = frame(255, index & 255);
      made.bytes[10] = 1 + (index >> 8);
      loud.send([made]);
    }
    expect(net.inspect()).toMatchObject({ addresses: 257 });
  });

  it('gives a port that is paused nothing, and the others theirs', () => {
    const [a, b, c] = joined(3);
    b!.port.setPaused(true);
    a!.port.send([frame(255, 1), frame(255, 1)]);
    expect([b!.got.length, c!.got.length]).toEqual([0, 2]);
    expect(b!.port.describe()).toMatchObject({ kind: 'switch', lost: 2 });
  });
});

describe('recordPackets', () => {
  it('writes what passes, as pcap, into a private file of its own', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'vivarium-net-'));
    const file = path.join(folder, 'net.pcap');
    try {
      const network = new FakeNetwork();
      const net = provider(recordPackets(network, file, { clock: new ManualClock({ wallMs: 1_500 }) }));
      net.attach(new FakeGuest());
      net.send([{ bytes: tcp(7) }]);
      network.host.receive([{ bytes: tcp(8) }]);
      expect(() => recordPackets(network, file)).toThrow(expect.objectContaining({ errno: 'EEXIST' }));
      await net.close();
      const bytes = await readFile(file);
      expect((await stat(file)).mode & 0o777).toBe(0o600);
      expect([bytes.readUInt32LE(0), bytes.readUInt32LE(20)]).toEqual([0xa1b23c4d, 1]);
      expect([bytes.readUInt32LE(24), bytes.readUInt32LE(28)]).toEqual([1, 500_000_000]);
      const first = bytes.subarray(40, 40 + bytes.readUInt32LE(32));
      expect(new Uint8Array(first)).toEqual(tcp(7));
      expect(new Uint8Array(bytes.subarray(40 + first.length + 16))).toEqual(tcp(8));
      expect(network.closed).toBe(true);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('goes on in its file when its network is opened again, for one device at a time', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'vivarium-net-'));
    const file = path.join(folder, 'net.pcap');
    try {
      const networks: FakeNetwork[] = [];
      const around: NetSource = {
        class: 'network',
        describe: () => ({ kind: 'fake' }),
        open: () => Promise.resolve(networks[networks.push(new FakeNetwork()) - 1]!),
      };
      const source = recordedNetwork(around, file);
      expect(source.describe()).toEqual({ kind: 'recorder', path: file, around: { kind: 'fake' } });
      const context = { id: 'net0', mac: OWN, logger, clock: new ManualClock() };
      for (const length of [7, 8]) {
        const net = provider(await source.open(context));
        await expect(source.open(context)).rejects.toMatchObject({ code: 'ERR_STATE' });
        net.send([{ bytes: tcp(length) }]);
        await net.close();
      }
      const records = 2 * 16 + tcp(7).length + tcp(8).length;
      expect((await stat(file)).size).toBe(24 + records);
      await expect(recordedNetwork(around, file).open(context)).rejects.toMatchObject({ errno: 'EEXIST' });
      expect(networks.map(({ closed }) => closed)).toEqual([true, true, true]);
      expect(() => recordedNetwork({} as NetSource, file)).toThrow(TypeError);
      expect(() => recordedNetwork(around, '')).toThrow(TypeError);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
