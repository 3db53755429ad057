import { describe, expect, it } from 'vitest';
import type { NetFrame } from './contract.js';
import { keptFrame } from './kept-frame.js';
import { SwitchLink } from './switch-link.js';
import { packet, unfinished } from './testing.js';
import { lendingHost, lendingTo } from './testing-lent.js';
import { Wire } from './testing-wire.js';

const GREETING = Uint8Array.from([0x76, 0x76, 0x73, 0x77, 1, 0, 1500 >> 8, 1500 & 255]);
const tcp = (bytes: number) => packet({ version: 4, payload: Uint8Array.from({ length: bytes }, (_, i) => i * 7) });
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** One side of a link, and the stream's other end. */
function side(stream: Wire, mtuBytes = 1500, refuses?: string) {
  const got: NetFrame[] = [];
  const greeted: number[] = [];
  const ended: string[] = [];
  const counts = { lost: 0, badFrames: 0 };
  const user = {
    greeted: (theirs: number) => {
      greeted.push(theirs);
      return refuses;
    },
    receive: (frames: readonly NetFrame[]) => void got.push(...frames.map(keptFrame)),
    ended: (reason: string) => void ended.push(reason),
  };
  return { link: lendingTo(new SwitchLink(stream, mtuBytes, lendingHost(user), counts)), got, greeted, ended, counts };
}

describe('a link between switches', () => {
  it('carries frames as they are, with what is unfinished about them', async () => {
    const [here, there] = Wire.pair();
    const [a, b] = [side(here), side(there, 9000)];
    const frames = [
      { bytes: tcp(1) },
      { bytes: tcp(2), checked: true },
      unfinished(tcp(3)),
      unfinished(tcp(60_000), 1400),
    ];
    a.link.send(frames);
    b.link.send(frames.slice(0, 1));
    await turn();
    expect([a.greeted, b.greeted]).toEqual([[9000], [1500]]);
    expect([b.got, a.got]).toEqual([frames, frames.slice(0, 1)]);
    a.link.end('enough');
    a.link.end('again');
    await turn();
    expect([a.ended, b.ended]).toEqual([['enough'], ['the other side is gone']]);
    a.link.send(frames);
    expect(a.counts.lost).toBe(4);
  });

  it('is for those who greet, and are not refused', async () => {
    for (const [greeting, refuses, reason] of [
      [GREETING.map((byte, at) => (at === 1 ? 0 : byte)), undefined, /no switch/],
      [GREETING.map((byte, at) => (at === 4 ? 2 : byte)), undefined, /no switch/],
      [GREETING, 'an MTU of 1500 bytes', /an MTU of 1500/],
    ] as const) {
      const [here, there] = Wire.pair();
      const { ended, got, link } = side(here, 1500, refuses);
      link.send([{ bytes: tcp(1) }]);
      for (const byte of greeting) there.write(Uint8Array.of(byte));
      await turn();
      await turn();
      expect([ended, got]).toEqual([[expect.stringMatching(reason)], []]);
    }
  });

  it('counts what can be no frame and goes on, but not without knowing where', async () => {
    const [here, there] = Wire.pair();
    const { ended, got, counts } = side(here);
    there.write(GREETING);
    const wrong = new Uint8Array(4 + 12 + 14);
    wrong.set([0, 0, 0, 26, 0, 1]); // large, and its checksum finished
    const right = wrong.slice();
    right[5] = 0;
    there.write(Uint8Array.from([...wrong, ...right]));
    await turn();
    expect([got.length, counts.badFrames, ended]).toEqual([1, 1, []]);
    there.write(Uint8Array.from([0, 0, 0, 25, ...right]));
    await turn();
    expect([got.length, counts.badFrames, ended]).toEqual([1, 2, ['a frame of 25 bytes']]);
  });

  it('keeps no more than so much for one who does not read', async () => {
    const [here] = Wire.pair();
    const { link, counts } = side(here);
    here.isStuck = true;
    for (let index = 0; index < 4000; index++) link.send([{ bytes: tcp(1400) }]);
    expect(here.writableLength).toBeLessThan(2.2 * 2 ** 20);
    expect(counts.lost).toBeGreaterThan(2000);
    link.send([{ bytes: new Uint8Array(70_000) }]);
    await turn();
  });

  it('lets others of the event loop have their turn while it is flooded', async () => {
    const [here, there] = Wire.pair();
    const { got } = side(here);
    there.write(GREETING);
    await turn();
    const one = Uint8Array.from([0, 0, 0, 26, ...new Uint8Array(26)]);
    const chunk = Uint8Array.from({ length: 2000 * one.length }, (_, at) => one[at % one.length]!);
    for (let index = 0; index < 40; index++) there.write(chunk);
    const turns: number[] = [];
    while (got.length < 80_000) {
      const before = got.length;
      await turn();
      turns.push(got.length - before);
    }
    expect(Math.max(...turns)).toBeLessThan(15_000);
  });
});
