import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { checkDirectionLimits } from '../sharing/budget.js';
import type { NetFrame } from './contract.js';
import { NetLimiter } from './limiter.js';
import { NetProvider } from './provider.js';
import { FakeGuest, FakeNetwork } from './testing.js';
import { lendingTo } from './testing-lent.js';

const MS = 1_000_000n;
const MAC = 0x020000000001;
const FRAME_BYTES = 1000;

/** For the guest, numbered. */
function frame(number: number): NetFrame {
  const bytes = new Uint8Array(FRAME_BYTES);
  bytes.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, number >> 8, number & 255]);
  return { bytes };
}
const frames = (count: number, from = 0) => Array.from({ length: count }, (_, index) => frame(from + index));
const numbers = (list: readonly NetFrame[]) => list.map(({ bytes }) => bytes[14]! * 256 + bytes[15]!);
const upTo = (count: number) => Array.from({ length: count }, (_, index) => index);

function rig(limits: object) {
  const clock = new ManualClock();
  const limiter = new NetLimiter(checkDirectionLimits('limits', limits), clock);
  const network = new FakeNetwork();
  const backend = limiter.around(network);
  const net = lendingTo(new NetProvider({ id: 'net0', backend, logger: silentLogger, mac: MAC, clock }));
  const guest = new FakeGuest();
  net.attach(guest);
  return { clock, limiter, network, net, guest };
}

describe('the limits of a network device', () => {
  it('hold what a guest sends, and the guest', () => {
    const { clock, net, network, limiter, guest } = rig({ send: { bytesPerSecond: 100_000, bytesBurst: 3000 } });
    let writable = 0;
    net.onWritable = () => writable++;
    expect(net.send(frames(8))).toBe(false);
    expect(network.sent).toHaveLength(3);
    expect(limiter.inspect()).toEqual({ send: { waiting: 5, dropped: 0 }, receive: undefined });
    clock.advance(49n * MS);
    expect([network.sent.length, writable]).toEqual([8, 1]);
    expect(numbers(network.sent.slice(3))).toEqual([3, 4, 5, 6, 7]);
    network.host.receive(frames(100));
    expect(guest.got).toHaveLength(100);
  });

  it('hold what comes for a guest, then its network, and drop beyond that', () => {
    const { clock, network, limiter, guest } = rig({ receive: { operationsPerSecond: 1000, operationsBurst: 10 } });
    network.host.receive(frames(200));
    expect([guest.got.length, network.paused]).toEqual([10, false]);
    network.host.receive(frames(1100, 200));
    expect(network.paused).toBe(true);
    const { waiting, dropped } = limiter.inspect().receive!;
    expect(waiting * FRAME_BYTES).toBeGreaterThanOrEqual(1024 * 1024);
    expect(waiting + dropped).toBe(1290);
    clock.advance(2000n * MS);
    expect(network.paused).toBe(false);
    expect(numbers(guest.got)).toEqual(upTo(10 + waiting));
  });

  it('are kept over time, each way, and by packets too', () => {
    const { clock, net, network, guest } = rig({ operationsPerSecond: 100, operationsBurst: 1 });
    net.onWritable = () => void net.send(frames(4));
    net.onWritable();
    clock.setTimer(0n, function more() {
      network.host.receive(frames(1));
      clock.setTimer(5n * MS, more);
    });
    clock.advance(10_000n * MS);
    expect(network.sent.length).toBeGreaterThanOrEqual(990);
    expect(network.sent.length).toBeLessThanOrEqual(1010);
    expect(guest.got.length).toBeGreaterThanOrEqual(990);
    expect(guest.got.length).toBeLessThanOrEqual(1010);
  });

  it('outlive a rebind, with what is owed; what waited for the old network is lost with it', async () => {
    const { clock, net, network, limiter } = rig({ send: { operationsPerSecond: 10, operationsBurst: 5 } });
    net.send(frames(25));
    expect(network.sent).toHaveLength(5);
    const next = new FakeNetwork();
    await net.rebind(limiter.around(next));
    expect(limiter.inspect().send).toMatchObject({ dropped: 20 });
    // Its own announcement owes too.
    expect(next.sent).toHaveLength(0);
    clock.advance(100n * MS);
    expect(next.sent).toHaveLength(1);
    expect(network.sent).toHaveLength(5);
  });

  it('wait while the guest or the network takes nothing', () => {
    const { clock, net, network, guest } = rig({ operationsPerSecond: 1000, operationsBurst: 2 });
    network.more = false;
    let writable = 0;
    net.onWritable = () => writable++;
    expect(net.send(frames(4))).toBe(false);
    clock.advance(1000n * MS);
    expect([network.sent.length, writable]).toEqual([2, 0]);
    network.more = true;
    network.host.writable();
    clock.advance(10n * MS);
    expect([network.sent.length, writable]).toEqual([4, 1]);
    guest.room = 1;
    network.host.receive(frames(6));
    clock.advance(1000n * MS);
    expect([guest.got.length, network.paused]).toEqual([1, true]);
    guest.room = 100;
    net.onGuestReady();
    clock.advance(1000n * MS);
    expect(numbers(guest.got)).toEqual(upTo(6));
    expect(network.paused).toBe(false);
  });

  it.each([
    [{ send: { bytesPerSecond: 1 }, operationsPerSecond: 1 }, TypeError, /limits: with send or receive/],
    [{ sent: {} }, TypeError, /did you mean 'send'/],
    [{ receive: { bytesPerSecond: 0 } }, RangeError, /limits.receive.bytesPerSecond/],
    [7, TypeError, /limits: an object/],
  ])('are refused as %j', (limits, kind, message) => {
    expect(() => checkDirectionLimits('limits', limits as object)).toThrow(kind);
    expect(() => checkDirectionLimits('limits', limits as object)).toThrow(message);
  });
});
