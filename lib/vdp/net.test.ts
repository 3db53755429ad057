import { describe, expect, it } from 'vitest';
import { VirtioNetCtrl as C, VirtioNetFeature as F } from '../abi/virtio.js';
import { silentLogger } from '../base/logger.js';
import { FakeGuestMemory } from '../memory/fake.js';
import type { NetFrame } from '../vsp/net/contract.js';
import { NetProvider } from '../vsp/net/provider.js';
import { segmentTcp } from '../vsp/net/segment.js';
import { NetSwitch } from '../vsp/net/switch.js';
import { FakeNetwork, packet, unfinished } from '../vsp/net/testing.js';
import { FakeActivation } from './fake-activation.js';
import { MockDriver, type Piece } from './mock-driver.js';
import { NetDevice } from './net.js';
import { SplitQueue } from './split-queue.js';

const OWN = 0x020000000001;
const HEADER = 12;
const turn = () => new Promise((resolve) => setImmediate(resolve));
const payload = (length: number) => Uint8Array.from({ length }, (_, index) => index % 251);
const tcp = (length: number) => packet({ version: 4, payload: payload(length) });

/** struct virtio_net_hdr as its fields stand in it. */
function header(fields: { flags?: number; gso?: number; size?: number; start?: number; offset?: number } = {}) {
  const bytes = Buffer.alloc(HEADER);
  bytes[0] = fields.flags ?? 0;
  bytes[1] = fields.gso ?? 0;
  bytes.writeUInt16LE(fields.size ?? 0, 4);
  bytes.writeUInt16LE(fields.start ?? 0, 6);
  bytes.writeUInt16LE(fields.offset ?? 0, 8);
  return bytes;
}

class Rig {
  readonly memory = new FakeGuestMemory(8 << 20);
  readonly network: FakeNetwork;
  readonly provider: NetProvider;
  readonly device: NetDevice;
  readonly activation: FakeActivation;
  readonly receive: MockDriver;
  readonly transmit: MockDriver;
  readonly control: MockDriver;
  #at = 0x100000;
  readonly #pieces = new Map<number, Piece[]>();

  constructor(options: { without?: bigint; network?: FakeNetwork; receiveSize?: number } = {}) {
    this.network = options.network ?? new FakeNetwork();
    this.provider = new NetProvider({ id: 'net0', backend: this.network, logger: silentLogger, mac: OWN });
    this.device = new NetDevice('net0', this.provider);
    const drivers = this.device.queueSizes.map((size, index) => {
      const own = index === 0 ? (options.receiveSize ?? size) : size;
      return new MockDriver(this.memory, { size: own, gpa: 0x10000 + 0x4000 * index, index });
    });
    [this.receive, this.transmit, this.control] = drivers as [MockDriver, MockDriver, MockDriver];
    const queues = drivers.map((driver) => new SplitQueue(driver.queueOptions));
    this.activation = new FakeActivation(this.device.features & ~(options.without ?? 0n), queues);
    this.device.activate(this.activation);
  }

  room(length: number): number {
    const gpa = this.#at;
    this.#at += length;
    return gpa;
  }

  send(...parts: readonly Uint8Array[]): void {
    const pieces = parts.map((part) => {
      const gpa = this.room(part.length);
      this.memory.write(gpa, part);
      return { gpa, length: part.length };
    });
    this.transmit.add(pieces);
    this.transmit.publish();
    this.device.notify(1);
  }

  buffers(...lengths: readonly number[]): void {
    for (const length of lengths) {
      const pieces = [{ gpa: this.room(length), length, writable: true }];
      this.#pieces.set(this.receive.add(pieces)!, pieces);
    }
    this.receive.publish();
    this.device.notify(0);
  }

  /** What the driver finds: for each frame its header and bytes, and how many buffers it is in. */
  got(): { header: Buffer; bytes: Uint8Array; buffers: number }[] {
    const frames: { header: Buffer; bytes: Uint8Array; buffers: number }[] = [];
    const used = this.receive.collect();
    while (used.length > 0) {
      const take = () => {
        const { head, length } = used.shift()!;
        return Buffer.from(this.memory.read(this.#pieces.get(head)![0]!.gpa, length));
      };
      const first = take();
      const buffers = first.readUInt16LE(10);
      const all = Buffer.concat([first, ...Array.from({ length: buffers - 1 }, take)]);
      frames.push({ header: all.subarray(0, HEADER), bytes: new Uint8Array(all.subarray(HEADER)), buffers });
    }
    return frames;
  }

  command(...bytes: readonly number[]): number {
    const answer = this.room(1);
    const gpa = this.room(bytes.length);
    this.memory.write(answer, Uint8Array.of(77));
    this.memory.write(gpa, Uint8Array.from(bytes));
    this.control.add([
      { gpa, length: bytes.length },
      { gpa: answer, length: 1, writable: true },
    ]);
    this.control.publish();
    this.device.notify(2);
    return this.memory.read(answer, 1)[0]!;
  }
}

async function rig(options: ConstructorParameters<typeof Rig>[0] = {}) {
  const made = new Rig(options);
  await turn();
  return made;
}

describe('frames of the guest', () => {
  it('leave as their headers say, in one batch with one interrupt', async () => {
    const { network, device, activation, transmit, memory } = await rig({
      network: new FakeNetwork({ takes: { checksum: true, segments: true } }),
    });
    const large = unfinished(tcp(4000), 1000);
    const wanted: NetFrame[] = [{ bytes: tcp(5) }, unfinished(tcp(6)), large];
    const headers = [
      header(),
      header({ flags: 1, start: 34, offset: 16 }),
      header({ flags: 1, start: 34, offset: 16, gso: 1, size: 1000 }),
    ];
    wanted.forEach(({ bytes }, index) => {
      const gpa = 0x200000 + index * 0x10000;
      memory.write(gpa, headers[index]!);
      memory.write(gpa + HEADER, bytes);
      transmit.add([
        { gpa, length: HEADER + 20 },
        { gpa: gpa + HEADER + 20, length: bytes.length - 20 },
      ]);
    });
    transmit.publish();
    device.notify(1);
    expect(network.sent.map(({ bytes, unfinished: left, segmentBytes }) => [bytes, left, segmentBytes])).toEqual(
      wanted.map(({ bytes, unfinished: left, segmentBytes }) => [bytes, left, segmentBytes]),
    );
    expect(transmit.collect().length).toBe(3);
    await turn();
    expect(activation.interrupts).toEqual([1]);
  });

  it('are dropped when they are not what their headers say, and the device goes on', async () => {
    const made = await rig({ without: F.HOST_TSO6 });
    const { network, activation, device } = made;
    made.send(header({ flags: 1, start: 60000, offset: 16 }), tcp(5));
    made.send(header({ gso: 1, size: 100 }), tcp(5));
    made.send(header({ flags: 1, start: 34, offset: 16, gso: 4, size: 100 }), tcp(5));
    made.send(header({ flags: 1, start: 34, offset: 16, gso: 1, size: 0 }), tcp(5));
    made.send(header({ flags: 1, start: 34, offset: 16, gso: 3, size: 9 }), tcp(5));
    made.send(header(), new Uint8Array(70000));
    made.send(header(), tcp(9));
    expect(network.sent.map(({ bytes }) => bytes)).toEqual([tcp(9)]);
    expect(device.inspect()).toMatchObject({ sent: 1, badHeaders: 6 });
    expect(activation.resetReasons).toEqual([]);
  });

  it('are told of behind what the network answered in the same turn', async () => {
    const made = await rig();
    made.buffers(2000);
    made.send(header(), tcp(1));
    made.network.host.receive([{ bytes: tcp(2) }]);
    expect(made.activation.interrupts).toEqual([0]);
    await turn();
    expect(made.activation.interrupts).toEqual([0, 1]);
  });

  it('are told of within a turn where there are many', async () => {
    const { device, transmit, activation } = await rig();
    for (let index = 0; index < 65; index++) transmit.add([{ gpa: 0x200000, length: HEADER + 60 }]);
    transmit.publish();
    device.notify(1);
    expect(activation.interrupts).toEqual([1]);
    await turn();
    expect(activation.interrupts).toEqual([1, 1]);
  });

  it('wait in their queue while the network takes no more', async () => {
    const made = await rig();
    made.network.more = false;
    made.send(header(), tcp(1));
    made.send(header(), tcp(2));
    expect(made.network.sent.length).toBe(1);
    made.network.more = true;
    made.network.host.writable();
    expect(made.network.sent.map(({ bytes }) => bytes)).toEqual([tcp(1), tcp(2)]);
  });
});

describe('frames for the guest', () => {
  it('fill as many buffers as they need, and say what is left to do', async () => {
    const made = await rig();
    made.buffers(...Array.from({ length: 20 }, () => 300));
    const segments = segmentTcp(tcp(3000), 1000)!;
    made.network.host.receive([{ bytes: tcp(5) }, ...segments.map((bytes) => ({ bytes }))]);
    const [small, large] = made.got();
    expect([small!.bytes, small!.header[0], small!.buffers]).toEqual([tcp(5), 2, 1]);
    expect(large!.header[0]).toBe(1);
    expect(large!.header[1]).toBe(1);
    expect([2, 4, 6, 8].map((at) => large!.header.readUInt16LE(at))).toEqual([54, 1000, 34, 16]);
    expect(large!.buffers).toBe(11);
    expect(segmentTcp(large!.bytes, 1000)).toEqual(segments);
  });

  it('wait for buffers, and are lost where no buffer holds them', async () => {
    const made = await rig({ without: F.MRG_RXBUF | F.GUEST_TSO4 | F.GUEST_CSUM });
    made.network.host.receive([{ bytes: tcp(5) }]);
    made.buffers(100, 600);
    expect(made.got().map(({ bytes, header: head }) => [bytes, head[0]])).toEqual([[tcp(5), 0]]);
    made.buffers(600);
    made.network.host.receive([{ bytes: tcp(900) }, { bytes: tcp(6) }]);
    expect(made.got().map(({ bytes }) => bytes)).toEqual([tcp(6)]);
    expect(made.device.inspect()).toMatchObject({ tooLarge: 1, received: 2 });
  });

  it('are lost when a whole queue is too small for them, and the next goes on', async () => {
    const made = await rig({ receiveSize: 4 });
    made.buffers(64, 64, 64, 64);
    made.network.host.receive([{ bytes: tcp(1000) }, { bytes: tcp(5) }]);
    expect(made.got().map(({ bytes }) => bytes)).toEqual([tcp(5)]);
    expect(made.device.inspect()).toMatchObject({ tooLarge: 1 });
  });

  it('come plain once the driver has turned its offloads off', async () => {
    const made = await rig();
    expect(made.command(C.GUEST_OFFLOADS, 0, 0, 0, 0, 0, 0, 0, 0, 0)).toBe(0);
    made.buffers(...Array.from({ length: 8 }, () => 2000));
    const segments = segmentTcp(tcp(3000), 1000)!;
    made.network.host.receive(segments.map((bytes) => ({ bytes })));
    expect(made.got().map(({ bytes, header: head }) => [bytes, head[0]])).toEqual(segments.map((bytes) => [bytes, 0]));
    made.buffers(2000, 2000);
    // What we finish ourselves is right, which a driver without the feature is not told.
    made.network.host.receive([unfinished(tcp(8))]);
    expect(made.got().map(({ bytes, header: head }) => [bytes, head[0]])).toEqual([[tcp(8), 0]]);
    expect(made.command(C.GUEST_OFFLOADS, 0, 1, 0, 0, 0, 0, 0, 0, 0)).toBe(1);
  });
});

describe('the control queue', () => {
  it('sets modes, tables and the address, and refuses the rest without a change', async () => {
    const made = await rig();
    made.buffers(...Array.from({ length: 8 }, () => 200));
    const foreign = (last: number) => {
      const bytes = tcp(1);
      bytes[5] = last;
      return { bytes };
    };
    const seen = () => {
      made.network.host.receive([foreign(1), foreign(8), foreign(9)]);
      return made.got().map(({ bytes }) => bytes[5]);
    };
    expect(seen()).toEqual([1]);
    const tables = [C.MAC, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 8, 0, 0, 0, 0];
    expect(made.command(...tables)).toBe(0);
    expect(seen()).toEqual([1, 8]);
    expect(made.command(C.MAC, 1, 2, 0, 0, 0, 0, 9)).toBe(0);
    expect(seen()).toEqual([8, 9]);
    const refused = [
      [C.MAC, 1, 3, 0, 0, 0, 0, 9],
      [C.MAC, 0, 255, 255, 255, 255],
      [...tables, 0],
      [C.RX, 9, 1],
      [C.RX, C.RX_PROMISC, 2],
      [9, 9],
      [C.RX],
    ];
    expect(refused.map((bytes) => made.command(...bytes))).toEqual(refused.map(() => 1));
    expect(seen()).toEqual([8, 9]);
    const address = () => [0, 1, 2, 3, 4, 5].map((at) => made.device.config.read(at, 1));
    expect(address()).toEqual([2, 0, 0, 0, 0, 9]);
    expect(made.command(C.RX, C.RX_PROMISC, 1)).toBe(0);
    made.buffers(200, 200, 200);
    expect(seen()).toEqual([1, 8, 9]);
    expect(made.activation.resetReasons).toEqual([]);
  });
});

describe('the device', () => {
  it('has address, MTU and link in its configuration', async () => {
    const { device, provider, activation } = await rig();
    const read = (at: number, size: number) => device.config.read(at, size);
    expect([0, 1, 2, 3, 4, 5].map((at) => read(at, 1))).toEqual([2, 0, 0, 0, 0, 1]);
    expect([read(6, 2), read(8, 2), read(10, 2)]).toEqual([1, 1, 1500]);
    const before = activation.configChanges;
    provider.setLink(false);
    expect([read(6, 2), activation.configChanges]).toEqual([0, before + 1]);
  });

  it.each<[string, (made: Rig) => void]>([
    ['a frame shorter than its header', (made) => made.send(new Uint8Array(11))],
    [
      'a writable piece of a frame',
      (made) => {
        made.transmit.add([{ gpa: 0x300000, length: 100, writable: true }]);
        made.transmit.publish();
        made.device.notify(1);
      },
    ],
    [
      'a receive buffer without room for a header',
      (made) => {
        made.buffers(11);
        made.network.host.receive([{ bytes: tcp(1) }]);
      },
    ],
    [
      'a readable receive buffer',
      (made) => {
        made.receive.add([{ gpa: 0x300000, length: 100 }]);
        made.receive.publish();
        made.network.host.receive([{ bytes: tcp(1) }]);
      },
    ],
    [
      'a command without room for an answer',
      (made) => {
        made.control.add([{ gpa: 0x300000, length: 3 }]);
        made.control.publish();
        made.device.notify(2);
      },
    ],
  ])('asks for a reset after %s, once, and touches nothing more', async (_, wrong) => {
    const made = await rig();
    wrong(made);
    expect(made.activation.resetReasons.length).toBe(1);
    made.send(header(), tcp(1));
    made.network.host.receive([{ bytes: tcp(1) }]);
    expect(made.network.sent).toEqual([]);
    expect(made.activation.resetReasons.length).toBe(1);
  });

  it('asks a driver that can do so to announce itself on another network, until it says that it has', async () => {
    const made = await rig();
    const { provider, activation } = made;
    const status = () => made.device.config.read(6, 2);
    const before = activation.configChanges;
    await provider.rebind(new FakeNetwork());
    expect([status(), activation.configChanges]).toEqual([3, before + 1]);
    provider.setLink(false);
    expect(status()).toBe(2);
    expect([made.command(C.ANNOUNCE, 1), made.command(C.ANNOUNCE, C.ANNOUNCE_ACK, 0), status()]).toEqual([1, 1, 2]);
    expect([made.command(C.ANNOUNCE, C.ANNOUNCE_ACK), status()]).toEqual([0, 0]);
    await provider.rebind(new FakeNetwork());
    expect(status()).toBe(2);
    await made.device.reset();
    expect(status()).toBe(0);
    await provider.rebind(new FakeNetwork());
    expect(status()).toBe(0);
  });

  it('tells a driver nothing of another network that can not announce itself', async () => {
    const made = await rig({ without: F.GUEST_ANNOUNCE });
    const before = made.activation.configChanges;
    await made.provider.rebind(new FakeNetwork());
    expect([made.device.config.read(6, 2), made.activation.configChanges]).toEqual([1, before]);
    expect(made.command(C.ANNOUNCE, C.ANNOUNCE_ACK)).toBe(1);
  });

  it('forgets its driver at a reset, and serves the next', async () => {
    const made = await rig();
    made.command(C.RX, C.RX_PROMISC, 1);
    made.command(C.MAC, 1, 2, 0, 0, 0, 0, 9);
    await made.device.reset();
    expect(made.device.config.read(5, 1)).toBe(1);
    made.network.host.receive([{ bytes: tcp(1) }]);
    expect(made.receive.usedIndex).toBe(0);
    const queues = [made.receive, made.transmit, made.control].map((driver) => new SplitQueue(driver.queueOptions));
    made.device.activate(new FakeActivation(made.device.features, queues));
    await turn();
    made.send(header(), tcp(3));
    expect(made.network.sent.map(({ bytes }) => bytes)).toEqual([tcp(3)]);
  });

  it('touches nothing of a driver that is gone, also with a turn of its own to come', async () => {
    const made = await rig();
    for (let index = 0; index < made.control.size; index++) {
      made.control.add([{ gpa: 0x300010 + index, length: 1, writable: true }]);
    }
    made.control.publish();
    made.device.notify(2);
    await made.device.reset();
    // The driver has other things there now.
    made.memory.fill(0x10000, 0, 0x10000);
    await turn();
    expect(made.memory.read(0x10000, 0x10000)).toEqual(new Uint8Array(0x10000));
  });

  it('brings large packets from guest to guest over a switch without a checksum made', async () => {
    const net = new NetSwitch({ name: 'lan' });
    const sender = new NetProvider({ id: 'a', backend: net.port(), logger: silentLogger, mac: 0x020000000002 });
    const receiver = await rig();
    await receiver.provider.rebind(net.port());
    const large = unfinished(tcp(9000), 1400);
    receiver.buffers(...Array.from({ length: 8 }, () => 2000));
    sender.send([large]);
    const [frame] = receiver.got();
    expect(frame!.bytes).toEqual(large.bytes);
    expect([frame!.header[0], frame!.header[1], frame!.header.readUInt16LE(4)]).toEqual([1, 1, 1400]);
    expect(sender.contract.functions['send-segments']).toMatchObject({ by: 'native', calls: 1 });
  });
});
