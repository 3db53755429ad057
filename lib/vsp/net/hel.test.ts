import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { finishChecksum, hasRightChecksum, hasRightHeaderChecksum, writeChecksum } from './checksum.js';
import { layoutOf, u16 } from './frame-layout.js';
import { MacFilter } from './mac-filter.js';
import { mergeTcp } from './merge.js';
import { MIN_SEGMENT_BYTES, segmentTcp } from './segment.js';
import { ACK, packet, plainChecksum, PSH_ACK, type PacketOptions } from './testing.js';

const bytesOf = (length: number, from = 0) => Uint8Array.from({ length }, (_, index) => from + index * 7);
const tcpOptions = fc.integer({ min: 0, max: 10 }).map((words) => bytesOf(words * 4, 1));
const anyTcp = fc.record({
  version: fc.constantFrom(4 as const, 6 as const),
  payload: fc.uint8Array({ maxLength: 6000 }),
  vlanTags: fc.integer({ min: 0, max: 2 }),
  sequence: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  id: fc.integer({ min: 0, max: 0xffff }),
  flags: fc.constantFrom(ACK, PSH_ACK),
  tcpOptions,
});
const anyPacket = fc.oneof(
  anyTcp as fc.Arbitrary<PacketOptions>,
  fc.record({
    version: fc.constantFrom(4 as const, 6 as const),
    protocol: fc.constant('udp' as const),
    payload: fc.uint8Array({ maxLength: 2000 }),
    vlanTags: fc.integer({ min: 0, max: 2 }),
  }),
);

describe('layoutOf', () => {
  it('finds the headers of whole packets, and the end before padding', () => {
    fc.assert(
      fc.property(anyPacket, fc.nat({ max: 40 }), (options, padding) => {
        const bare = packet(options);
        const frame = new Uint8Array(bare.length + padding);
        frame.set(bare);
        const layout = layoutOf(frame)!;
        expect(layout).toMatchObject({ version: options.version, protocol: options.protocol ?? 'tcp' });
        expect(layout.endAt).toBe(bare.length);
        expect(frame.subarray(layout.payloadAt, layout.endAt)).toEqual(options.payload);
      }),
    );
  });

  it('never leads outside a frame, whatever its bytes say', () => {
    const damage = fc.array(fc.tuple(fc.nat({ max: 120 }), fc.nat({ max: 255 })), { maxLength: 6 });
    fc.assert(
      fc.property(anyPacket, damage, fc.nat({ max: 200 }), (options, changes, cut) => {
        const frame = packet(options).slice(0, 200 - cut);
        for (const [at, value] of changes) if (at < frame.length) frame[at] = value;
        const layout = layoutOf(frame);
        if (layout === undefined) return;
        const { ipAt, transportAt, payloadAt, endAt } = layout;
        expect(ipAt < transportAt && transportAt < payloadAt && payloadAt <= endAt && endAt <= frame.length).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  it('passes over fragments, tunnels and what is cut', () => {
    const fragment = packet({ version: 4, payload: bytesOf(30) });
    fragment[14 + 6] = 0x20;
    const other = packet({ version: 6, payload: bytesOf(30) });
    other[14 + 6] = 44;
    const whole = packet({ version: 4, payload: bytesOf(30) });
    for (const frame of [fragment, other, whole.subarray(0, whole.length - 1), new Uint8Array(0)]) {
      expect(layoutOf(frame)).toBeUndefined();
    }
  });

  it('goes through extension headers that change nothing', () => {
    const plain = packet({ version: 6, payload: bytesOf(9) });
    const at = 14 + 40;
    const frame = Uint8Array.from([...plain.subarray(0, at), 6, 0, 1, 4, 0, 0, 0, 0, ...plain.subarray(at)]);
    frame[14 + 6] = 0;
    frame[14 + 5] = frame[14 + 5]! + 8;
    expect(layoutOf(frame)).toMatchObject({ protocol: 'tcp', transportAt: at + 8 });
  });
});

describe('checksums', () => {
  it('agree with a plain reference, and notice a changed byte', () => {
    fc.assert(
      fc.property(anyPacket, fc.nat(), (options, where) => {
        const frame = packet(options);
        const layout = layoutOf(frame)!;
        expect([hasRightHeaderChecksum(frame, layout), hasRightChecksum(frame, layout)]).toEqual([true, true]);
        const again = frame.slice();
        writeChecksum(again, layout);
        expect(again).toEqual(frame);
        const at = layout.transportAt + (where % (layout.endAt - layout.transportAt));
        frame[at] = frame[at]! ^ 0x10;
        // Lengths may have changed with it, and then there is no such packet any more; a UDP checksum of zero is none.
        const changed = layoutOf(frame);
        if (changed === undefined || (changed.protocol === 'udp' && u16(frame, changed.transportAt + 6) === 0)) return;
        expect(hasRightChecksum(frame, changed)).toBe(false);
      }),
    );
  });

  it('are finished for a guest that left them to its device', () => {
    fc.assert(
      fc.property(anyPacket, (options) => {
        const whole = packet(options);
        const { transportAt, protocol, ipAt, version } = layoutOf(whole)!;
        const left = whole.slice();
        const offset = protocol === 'tcp' ? 16 : 6;
        const addresses = whole.subarray(ipAt + (version === 4 ? 12 : 8), ipAt + (version === 4 ? 20 : 40));
        const bytes = whole.length - transportAt;
        const pseudo = 0xffff - plainChecksum([...addresses, 0, protocol === 'tcp' ? 6 : 17, bytes >> 8, bytes & 255]);
        left[transportAt + offset] = pseudo >> 8;
        left[transportAt + offset + 1] = pseudo;
        expect(finishChecksum(left, transportAt, offset)).toBe(true);
        expect(left).toEqual(whole);
      }),
    );
    expect(finishChecksum(new Uint8Array(20), 10, 9)).toBe(false);
  });
});

describe('segmentTcp', () => {
  it('makes whole packets that say the same', () => {
    fc.assert(
      fc.property(anyTcp, fc.integer({ min: 1, max: 2000 }), (options, segmentBytes) => {
        const flags = options.flags | 0x81; // FIN and CWR
        const segments = segmentTcp(packet({ ...options, flags }), segmentBytes)!;
        const count = Math.max(1, Math.ceil(options.payload.length / segmentBytes));
        expect(segments.length).toBe(count);
        segments.forEach((segment, index) => {
          const last = index === count - 1;
          expect(segment).toEqual(
            packet({
              ...options,
              payload: options.payload.subarray(index * segmentBytes, (index + 1) * segmentBytes),
              sequence: (options.sequence + index * segmentBytes) % 2 ** 32,
              id: (options.id + index) % 0x10000,
              flags: ACK | (last ? options.flags | 0x01 : 0) | (index === 0 ? 0x80 : 0),
            }),
          );
        });
      }),
      { numRuns: 50 },
    );
  });

  it('refuses what it is not for', () => {
    expect(segmentTcp(packet({ version: 4, protocol: 'udp', payload: bytesOf(9) }), 4)).toBeUndefined();
    expect(segmentTcp(packet({ version: 4, payload: bytesOf(9), flags: 0x02 }), 4)).toBeUndefined();
    expect(segmentTcp(packet({ version: 4, payload: bytesOf(9) }), 0)).toBeUndefined();
    expect(segmentTcp(new Uint8Array(60), 4)).toBeUndefined();
  });
});

describe('mergeTcp', () => {
  it('makes one packet of the segments of another, and nothing else of it', () => {
    fc.assert(
      fc.property(anyTcp, fc.integer({ min: MIN_SEGMENT_BYTES, max: 1460 }), (options, segmentBytes) => {
        const segments = segmentTcp(packet(options), segmentBytes)!;
        const [merged, ...others] = mergeTcp(segments);
        expect(others).toEqual([]);
        expect(merged!.segments).toBe(segments.length);
        const again = merged!.segmentBytes === undefined ? [merged!.bytes] : segmentTcp(merged!.bytes, segmentBytes);
        expect(again).toEqual(segments);
      }),
      { numRuns: 50 },
    );
  });

  it('keeps every byte of every stream in order, whatever is lost, damaged or mixed', () => {
    const streams = fc.tuple(anyTcp, anyTcp).map(([a, b]) => [a, { ...b, ports: [1001, 81] as const }]);
    fc.assert(
      fc.property(streams, fc.infiniteStream(fc.nat({ max: 9 })), (pair, choices) => {
        const queues = pair.map((options) => segmentTcp(packet(options), 500)!);
        const frames: Uint8Array[] = [];
        while (queues.some((queue) => queue.length > 0)) {
          const choice = choices.next().value!;
          const frame = queues[choice % 2]!.shift();
          if (frame === undefined || choice === 9) continue;
          if (choice === 8) frame[frame.length - 1] = frame[frame.length - 1]! ^ 1;
          frames.push(frame);
        }
        const back = mergeTcp(frames).flatMap(({ bytes, segmentBytes }) =>
          segmentBytes === undefined ? [bytes] : segmentTcp(bytes, segmentBytes)!,
        );
        const ofStream = (all: Uint8Array[], port: number) =>
          all.filter((frame) => {
            const { transportAt } = layoutOf(frame)!;
            return frame[transportAt + 1] === (port & 255);
          });
        for (const port of [1000, 1001]) expect(ofStream(back, port)).toEqual(ofStream(frames, port));
      }),
      { numRuns: 100 },
    );
  });

  it('leaves segments alone that are too short for a large packet', () => {
    const segments = segmentTcp(packet({ version: 4, payload: bytesOf(1000) }), MIN_SEGMENT_BYTES - 1)!;
    expect(mergeTcp(segments).map(({ bytes }) => bytes)).toEqual(segments);
  });

  it('never makes a packet longer than a length can say', () => {
    const frames = Array.from({ length: 60 }, (_, index) =>
      packet({ version: 4, payload: bytesOf(1460), sequence: 1 + index * 1460, id: index }),
    );
    const merged = mergeTcp(frames);
    expect(merged.map(({ segments }) => segments)).toEqual([44, 16]);
    for (const { bytes } of merged) expect(layoutOf(bytes)?.endAt).toBe(bytes.length);
  });
});

describe('MacFilter', () => {
  const OWN = 0x020000000001;
  const frameTo = (mac: number) => {
    const frame = new Uint8Array(60);
    for (let i = 5, left = mac; i >= 0; i--, left = Math.floor(left / 256)) frame[i] = left % 256;
    return frame;
  };
  const seen = (filter: MacFilter) =>
    [OWN, 0x020000000009, 0x01005e000001, 0xffffffffffff].map((mac) => filter.accepts(frameTo(mac)));

  it('lets through what is for the guest, as its driver says', () => {
    const filter = new MacFilter(OWN);
    expect(seen(filter)).toEqual([true, false, false, true]);
    filter.setTables([0x020000000009], [0x01005e000001]);
    expect(seen(filter)).toEqual([true, true, true, true]);
    filter.setModes({ noUnicast: true, noMulticast: true, noBroadcast: true });
    expect(seen(filter)).toEqual([false, false, false, false]);
    filter.setModes({ promiscuous: true });
    expect(seen(filter)).toEqual([true, true, true, true]);
    filter.clear();
    filter.setModes({ allMulticast: true, allUnicast: true });
    expect(seen(filter)).toEqual([true, true, true, true]);
    filter.clear();
    filter.setAddress(0x020000000009);
    expect(seen(filter)).toEqual([false, true, false, true]);
    filter.clear();
    expect(seen(filter)).toEqual([true, false, false, true]);
    expect(filter.accepts(new Uint8Array(13))).toBe(false);
  });

  it('takes all of a kind when its table is too long', () => {
    const filter = new MacFilter(OWN);
    filter.setTables(
      [],
      Array.from({ length: 257 }, (_, index) => 0x01005e100000 + index),
    );
    expect(seen(filter)).toEqual([true, false, true, true]);
  });
});
