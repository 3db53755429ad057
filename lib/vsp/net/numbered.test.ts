import { expect, it } from 'vitest';
import { mergeTcp } from './merge.js';
import { PacketNumbers } from './numbered.js';
import { packet, PSH_ACK } from './testing.js';

/** Segment `index` of a stream, as passt sends it. */
const segment = (ports: readonly [number, number], index: number, id = 0) =>
  packet({ version: 4, ports, sequence: 1 + 1000 * index, id, payload: new Uint8Array(1000).fill(index) });

it('numbers packets of 0 one after the other in each stream, so that they can be merged', () => {
  const numbers = new PacketNumbers();
  const streams = [
    [80, 40000],
    [80, 40001],
  ] as const;
  const frames = [0, 1, 2, 3].flatMap((index) => streams.map((ports) => segment(ports, index)));
  expect(mergeTcp(frames).length).toBe(8);
  for (const frame of frames) numbers.number(frame);
  // Whole packets with right checksums, or they would be left alone.
  expect(mergeTcp(frames).map(({ segments }) => segments)).toEqual([4, 4]);
  for (const [stream, ports] of streams.entries()) {
    expect(frames.filter((_, index) => index % 2 === stream)).toEqual([0, 1, 2, 3].map((at) => segment(ports, at, at)));
  }
});

it('goes on at 0 behind the last number, and leaves everything else as it is', () => {
  const numbers = new PacketNumbers();
  const first = segment([1, 2], 0);
  for (let count = 0; count < 0xffff; count++) numbers.number(first.slice());
  for (const id of [0xffff, 0, 1]) {
    const frame = segment([1, 2], 0);
    numbers.number(frame);
    expect(frame).toEqual(segment([1, 2], 0, id));
  }
  const others = [
    segment([1, 2], 0, 7),
    packet({ version: 4, protocol: 'udp', id: 0, payload: new Uint8Array(3) }),
    packet({ version: 6, flags: PSH_ACK, payload: new Uint8Array(3) }),
    new Uint8Array(20),
  ];
  for (const frame of others) {
    const before = frame.slice();
    numbers.number(frame);
    expect(frame).toEqual(before);
  }
});
