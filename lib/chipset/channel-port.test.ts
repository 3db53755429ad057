import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { RateLimit } from '../base/logger.js';
import { AddressBus } from '../bus/address-bus.js';
import { FakeVcpu } from '../bus/fake-vcpu.js';
import { FakeGuestMemory } from '../memory/fake.js';
import { ChannelPort } from './channel-port.js';

const BASE = 0x5a0;
const [ID, VERSION, READABLE, WRITABLE, DATA, PAGE, COMMAND] = [0, 4, 8, 12, 16, 20, 24].map((at) => BASE + at) as [
  number,
  number,
  number,
  number,
  number,
  number,
  number,
];
const [OPEN, RECEIVE, SEND] = [1, 2, 3];
const REFUSED = 0xffffffff;
const MEMORY_BYTES = 1 << 20;

class Rig {
  readonly cpu = new FakeVcpu();
  readonly memory = new FakeGuestMemory(MEMORY_BYTES);
  readonly received: Uint8Array[] = [];
  rings = 0;
  drains = 0;
  opens = 0;
  logged = 0;
  readonly channel: ChannelPort;

  constructor(options: { memory?: boolean; highWaterBytes?: number } = {}) {
    const clock = new ManualClock();
    this.channel = new ChannelPort({
      ring: () => this.rings++,
      logger: { log: () => this.logged++ },
      rateLimit: new RateLimit(clock, { burst: 4, refillNs: 1_000_000_000n }),
      ...(options.memory === false ? {} : { memory: this.memory }),
      ...(options.highWaterBytes === undefined ? {} : { highWaterBytes: options.highWaterBytes }),
    });
    this.channel.onReceive = (bytes) => this.received.push(bytes);
    this.channel.onDrain = () => this.drains++;
    this.channel.onOpen = () => this.opens++;
    const bus = new AddressBus({ space: 'port', clock, logger: { log: () => undefined } });
    bus.add({ first: BASE, length: 0x20 }, this.channel);
    this.cpu.attach(bus);
  }

  get receivedBytes(): Buffer {
    return Buffer.concat(this.received);
  }

  /** A transfer through the page at 0x1000: what the device wrote there. */
  transfer(command: number, segments: readonly [at: number | bigint, length: number][], count = segments.length) {
    const page = new DataView(new ArrayBuffer(4096));
    page.setUint32(0, count, true);
    page.setUint32(4, REFUSED, true);
    segments.forEach(([at, length], index) => {
      page.setBigUint64(16 + 16 * index, BigInt(at), true);
      page.setUint32(24 + 16 * index, length, true);
    });
    this.memory.write(0x1000, new Uint8Array(page.buffer));
    this.cpu.outl(PAGE, 1);
    this.cpu.outl(COMMAND, command);
    const answer = new DataView(this.memory.read(0x1000, 16).buffer);
    return [4, 8, 12].map((at) => answer.getUint32(at, true));
  }

  text(at: number, length: number): string {
    return Buffer.from(this.memory.read(at, length)).toString();
  }
}

describe('ChannelPort: registers', () => {
  it('names itself and its version', () => {
    const rig = new Rig();
    expect(rig.cpu.inl(ID)).toBe(0x56495643);
    expect(rig.cpu.inl(VERSION)).toBe(0x1_0001);
    expect(new Rig({ memory: false }).cpu.inl(VERSION)).toBe(1);
    expect(rig.cpu.inb(ID)).toBe(0xff);
    expect(rig.cpu.inl(COMMAND)).toBe(REFUSED);
  });

  it('moves bytes through DATA in every width and by string instructions', () => {
    const rig = new Rig();
    rig.channel.send(Buffer.from('abcdefghij'));
    expect(rig.cpu.inl(READABLE)).toBe(10);
    expect(rig.cpu.inb(DATA)).toBe(0x61);
    expect(rig.cpu.inw(DATA)).toBe(0x6362);
    expect(rig.cpu.inl(DATA)).toBe(0x67666564);
    expect(Buffer.from(rig.cpu.ins(DATA, 1, 3)).toString()).toBe('hij');
    expect(rig.cpu.inl(READABLE)).toBe(0);

    rig.channel.credit(100);
    expect(rig.cpu.inl(WRITABLE)).toBe(100);
    rig.cpu.outb(DATA, 0x41);
    rig.cpu.outl(DATA, 0x45444342);
    rig.cpu.outs(DATA, 1, Buffer.from('FGH'));
    expect(rig.receivedBytes.toString()).toBe('ABCDEFGH');
    expect(rig.cpu.inl(WRITABLE)).toBe(92);
  });

  it('gives zeros past the end and drops what there is no room for, as counted mistakes', () => {
    const rig = new Rig();
    rig.channel.send(Uint8Array.of(1));
    expect([...rig.cpu.ins(DATA, 1, 4)]).toEqual([1, 0, 0, 0]);
    rig.cpu.outb(DATA, 7);
    rig.channel.credit(2);
    rig.cpu.outs(DATA, 1, Uint8Array.of(1, 2, 3));
    expect([...rig.receivedBytes]).toEqual([1, 2]);
    for (let count = 0; count < 100; count++) rig.cpu.outl(COMMAND, 99);
    rig.cpu.outb(COMMAND, 1);
    rig.cpu.outl(ID, 0);
    rig.cpu.outs(ID, 1, Uint8Array.of(1));
    expect(rig.channel.inspect()).toMatchObject({ guestMistakes: 106 });
    expect(rig.logged).toBe(4);
    expect([...rig.cpu.ins(ID, 4, 2)]).toEqual([0x43, 0x56, 0x49, 0x56, 0x43, 0x56, 0x49, 0x56]);
  });
});

describe('ChannelPort: the ring', () => {
  it('rings once for each direction that the guest was told 0 for', () => {
    const rig = new Rig();
    rig.channel.send(Uint8Array.of(1));
    rig.channel.credit(5);
    expect(rig.rings).toBe(0);
    rig.cpu.inb(DATA);
    expect(rig.cpu.inl(READABLE)).toBe(0);
    rig.channel.send(new Uint8Array(0));
    expect(rig.rings).toBe(0);
    rig.channel.send(Uint8Array.of(1));
    rig.channel.send(Uint8Array.of(2));
    expect(rig.rings).toBe(1);
    rig.cpu.outs(DATA, 1, new Uint8Array(5));
    expect(rig.cpu.inl(WRITABLE)).toBe(0);
    rig.channel.credit(0);
    expect(rig.rings).toBe(1);
    rig.channel.credit(1);
    rig.channel.credit(1);
    expect(rig.rings).toBe(2);
  });

  it('owes a ring after a transfer that told 0, too', () => {
    const rig = new Rig();
    expect(rig.transfer(RECEIVE, [[0x2000, 64]])).toEqual([0, 0, 0]);
    rig.channel.send(Uint8Array.of(1));
    rig.channel.credit(1);
    expect(rig.rings).toBe(2);
  });
});

describe('ChannelPort: transfers through memory', () => {
  it('scatters to and gathers from segments, as much as there is', () => {
    const rig = new Rig();
    rig.channel.send(Buffer.from('hello world'));
    expect(
      rig.transfer(RECEIVE, [
        [0x2000, 5],
        [0x3000, 0],
        [0x4000, 4],
      ]),
    ).toEqual([9, 2, 0]);
    expect(rig.text(0x2000, 5)).toBe('hello');
    expect(rig.text(0x4000, 4)).toBe(' wor');

    rig.channel.credit(7);
    expect(
      rig.transfer(SEND, [
        [0x2000, 5],
        [0x4000, 4],
      ]),
    ).toEqual([7, 2, 0]);
    expect(rig.receivedBytes.toString()).toBe('hello w');
  });

  it.each<[string, [number | bigint, number][], number?]>([
    ['no segments', []],
    ['too many segments', [[0x2000, 1]], 256],
    ['a huge count', [[0x2000, 1]], 0xffffffff],
    ['a segment over the end of memory', [[MEMORY_BYTES - 1, 2]]],
    ['a segment beyond memory', [[0x1_0000_0000, 1]]],
    ['an address that wraps', [[0xffff_ffff_ffff_fff0n, 0x20]]],
    ['too many bytes', Array.from({ length: 255 }, () => [0, 1 << 20] as [number, number])],
    [
      'a bad one after a good one',
      [
        [0x2000, 4],
        [MEMORY_BYTES, 4],
      ],
    ],
  ])('refuses %s, and moves nothing', (_name, segments, count) => {
    const rig = new Rig();
    rig.channel.send(Uint8Array.of(1, 2, 3));
    rig.channel.credit(3);
    expect(rig.transfer(RECEIVE, segments, count)).toEqual([REFUSED, 3, 3]);
    expect(rig.transfer(SEND, segments, count)).toEqual([REFUSED, 3, 3]);
    expect(rig.received).toEqual([]);
    expect(rig.channel.inspect()).toMatchObject({ guestMistakes: 2 });
  });

  it('leaves memory alone when the page itself is none, or memory is not offered', () => {
    const rig = new Rig();
    rig.cpu.outl(PAGE, 0xffffffff);
    rig.cpu.outl(COMMAND, RECEIVE);
    expect(rig.memory.dirtyPages.size).toBe(0);
    const without = new Rig({ memory: false });
    expect(without.transfer(RECEIVE, [[0x2000, 1]])[0]).toBe(REFUSED);
    expect(without.channel.inspect()).toMatchObject({ guestMistakes: 1 });
  });

  it('carries 10 MB each way with bounded memory and one exit for 128 KiB', () => {
    const rig = new Rig();
    const size = 10 << 20;
    const data = Buffer.alloc(size);
    for (let at = 0; at < size; at += 4) data.writeUInt32LE(Math.imul(at, 0x9e3779b1) >>> 0, at);
    const segments = Array.from({ length: 32 }, (_, index): [number, number] => [0x10000 + 4096 * index, 4096]);
    let sent = 0;
    let exits = 0;
    const back: Uint8Array[] = [];
    let backBytes = 0;
    let most = 0;
    rig.channel.credit(256 * 1024);
    rig.channel.onReceive = (bytes) => {
      back.push(bytes);
      backBytes += bytes.length;
      rig.channel.credit(bytes.length);
    };
    while (backBytes < size) {
      let goOn = sent < size;
      while (goOn) {
        goOn = rig.channel.send(data.subarray(sent, (sent += 64 * 1024)));
        if (sent >= size) goOn = false;
      }
      most = Math.max(most, rig.channel.pendingBytes);
      const [moved = 0] = rig.transfer(RECEIVE, segments);
      rig.transfer(
        SEND,
        segments.map(([at, length], index) => [at, Math.max(0, Math.min(length, moved - 4096 * index))]),
      );
      exits += 2;
    }
    expect(most).toBeLessThanOrEqual(256 * 1024);
    expect(exits).toBe(2 * (size / (128 * 1024)));
    expect(Buffer.compare(Buffer.concat(back), data)).toBe(0);
  });
});

describe("ChannelPort: the host's side", () => {
  it('asks the sender to stop at the high-water mark, and once to go on', () => {
    const rig = new Rig({ highWaterBytes: 8 });
    expect(rig.channel.send(new Uint8Array(7))).toBe(true);
    expect(rig.channel.send(new Uint8Array(1))).toBe(false);
    rig.cpu.ins(DATA, 1, 3);
    expect(rig.drains).toBe(0);
    rig.cpu.ins(DATA, 1, 5);
    expect(rig.drains).toBe(1);
    expect(rig.channel.pendingBytes).toBe(0);
  });

  it('starts anew when an agent opens a session', () => {
    const rig = new Rig({ highWaterBytes: 1 });
    rig.channel.send(Uint8Array.of(1, 2));
    rig.channel.credit(10);
    rig.channel.onOpen = () => {
      rig.opens++;
      rig.channel.credit(5);
    };
    rig.cpu.outl(COMMAND, OPEN);
    expect(rig.opens).toBe(1);
    expect(rig.drains).toBe(1);
    expect(rig.cpu.inl(READABLE)).toBe(0);
    expect(rig.cpu.inl(WRITABLE)).toBe(5);
    expect(rig.channel.creditBytes).toBe(5);
    expect(() => rig.channel.credit(-1)).toThrow(RangeError);
    expect(() => rig.channel.credit(0.5)).toThrow(RangeError);
  });

  it('takes any sequence of accesses without throwing, and never more than its credit', () => {
    const access = fc.tuple(fc.boolean(), fc.integer({ min: BASE, max: BASE + 0x1f }), fc.nat(3), fc.nat(0x1ff));
    fc.assert(
      fc.property(fc.array(access), fc.nat(64), fc.uint8Array(), (accesses, credit, page) => {
        const rig = new Rig();
        rig.memory.write(0, page);
        rig.channel.send(page);
        rig.channel.credit(credit);
        for (const [isWrite, port, kind, value] of accesses) {
          if (kind === 3 && isWrite) rig.cpu.outs(port, 1, new Uint8Array(value & 0x0f));
          else if (kind === 3) rig.cpu.ins(port, 2, 1 + (value & 0x0f));
          else if (isWrite) rig.cpu[kind === 0 ? 'outb' : kind === 1 ? 'outw' : 'outl'](port, value);
          else rig.cpu[kind === 0 ? 'inb' : kind === 1 ? 'inw' : 'inl'](port);
        }
        expect(rig.receivedBytes.length).toBeLessThanOrEqual(credit);
      }),
    );
  });
});

describe('ChannelPort: saved state', () => {
  it('goes on in the middle of a transfer, with the credit and the sleep that the guest knows of', () => {
    const from = new Rig({ highWaterBytes: 8 });
    from.cpu.outl(COMMAND, OPEN);
    from.channel.credit(10);
    from.channel.send(Buffer.from('twelve bytes'));
    from.cpu.inl(DATA);
    from.cpu.outb(DATA, 0x31);
    const to = new Rig({ highWaterBytes: 8 });
    to.channel.restoreState(structuredClone(from.channel.saveState()));
    expect(to.channel.inspect()).toEqual(from.channel.inspect());
    expect(to.opens).toBe(0);
    expect(to.cpu.inl(WRITABLE)).toBe(9);
    expect(to.transfer(RECEIVE, [[0x4000, 32]])).toEqual([8, 0, 9]);
    expect(to.text(0x4000, 8)).toBe('ve bytes');
    expect(to.drains).toBe(1);
    // It was told that nothing waits: so it is rung for.
    const asleep = new Rig();
    asleep.channel.restoreState(to.channel.saveState());
    asleep.channel.send(Uint8Array.of(1));
    expect(asleep.rings).toBe(1);
  });

  it('is cut for a new host end: the guest is rung, nothing moves and nothing is written until it opens again', () => {
    const from = new Rig();
    from.cpu.outl(COMMAND, OPEN);
    from.channel.credit(10);
    from.channel.send(Buffer.from('the rest of a frame'));
    // Its transfer page is at 0x1000.
    expect(from.transfer(RECEIVE, [[0x4000, 4]])).toEqual([4, 15, 10]);
    const to = new Rig();
    to.channel.restoreState(from.channel.saveState());
    to.channel.cut();
    expect(to.rings).toBe(1);
    to.channel.send(Buffer.from('nobody takes it'));
    to.channel.credit(5);
    expect([to.cpu.inl(READABLE), to.cpu.inl(WRITABLE)]).toEqual([REFUSED, REFUSED]);
    const before = to.memory.read(0, 0x1000);
    expect(to.transfer(SEND, [[0x4000, 4]])).toEqual([0, REFUSED, REFUSED]);
    expect(to.transfer(RECEIVE, [[0x4000, 4]])).toEqual([0, REFUSED, REFUSED]);
    expect(to.memory.read(0, 0x1000)).toEqual(before);
    expect([to.opens, to.receivedBytes.length]).toEqual([0, 0]);
    to.cpu.outl(COMMAND, OPEN);
    expect(to.opens).toBe(1);
    to.channel.credit(7);
    to.channel.send(Buffer.from('new'));
    expect([to.cpu.inl(READABLE), to.cpu.inl(WRITABLE)]).toEqual([3, 7]);
  });

  it('is not cut where no session was open', () => {
    const rig = new Rig();
    rig.channel.cut();
    expect(rig.rings).toBe(0);
    expect([rig.cpu.inl(READABLE), rig.cpu.inl(WRITABLE)]).toEqual([0, 0]);
  });

  it('of a session that was opened while nobody listened is told once, to the first who does', () => {
    const rig = new Rig();
    rig.channel.onOpen = undefined;
    rig.cpu.outl(COMMAND, OPEN);
    expect(rig.opens).toBe(0);
    for (let time = 0; time < 2; time++) {
      rig.channel.onOpen = () => rig.opens++;
      expect(rig.opens).toBe(1);
    }
  });
});
