import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type Clock, hostClock, ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import type { NetBackend, NetFrame } from './contract.js';
import { keptFrame } from './kept-frame.js';
import { networkSwitch } from './network-switch.js';
import { SwitchHub } from './switch-link-hub.js';
import { SwitchPlace } from './switch-link-place.js';
import { unfinished, packet } from './testing.js';
import { lendingBackend } from './testing-lent.js';

const context = { id: 'net0', mac: 0x020000000001, logger: silentLogger, clock: hostClock };

async function folder(): Promise<string> {
  const made = await mkdtemp(path.join(tmpdir(), 'vivarium-switch-'));
  onTestFinished(() => rm(made, { recursive: true }));
  return made;
}

/** Lets the event loop turn until it is so. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setImmediate(resolve));
}

/** What one process has of a switch: to locks and sockets two hubs are as two processes. */
function hubIn(where: string, mtuBytes?: number, clock: Clock = hostClock): SwitchHub {
  const place = new SwitchPlace(where, 'lan');
  const hub = new SwitchHub({ name: 'lan', place, mtuBytes, clock, logger: silentLogger });
  onTestFinished(() => hub.close());
  return hub;
}

/** A guest at a port, whose address ends with `own`. */
class Guest {
  readonly got: NetFrame[] = [];
  readonly links: boolean[] = [];
  #heard: (() => void) | undefined;
  readonly port: NetBackend;
  readonly own: number;

  constructor(port: NetBackend, own: number) {
    this.port = lendingBackend(port);
    this.own = own;
    this.port.start({
      receive: (frames) => {
        this.got.push(...frames.map(keptFrame));
        this.#heard?.();
      },
      writable: () => {},
      link: (up) => this.links.push(up),
    });
  }
  frame(to: number, value = 0): NetFrame {
    const bytes = new Uint8Array(60);
    if (to === 255) bytes.fill(255, 0, 6);
    else bytes.set([2, 0, 0, 0, 0, to]);
    bytes.set([2, 0, 0, 0, 0, this.own, 8, 0, value], 6);
    return { bytes };
  }
  async heard(count: number): Promise<void> {
    while (this.got.length < count) await new Promise<void>((resolve) => (this.#heard = resolve));
  }
  /** Sends until the other one has heard something new: who listens may just be changing. */
  async reaches(other: Guest): Promise<void> {
    const before = other.got.length;
    while (other.got.length === before) {
      this.port.send([this.frame(other.own)]);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

describe('a switch of several processes', () => {
  it('joins their guests, and hands on what is unfinished', async () => {
    const where = await folder();
    const [first, second, third] = [hubIn(where), hubIn(where), hubIn(where)];
    const guests: Guest[] = [];
    for (const [index, hub] of [first, second, second, third].entries()) {
      guests.push(new Guest(await hub.port(undefined), index + 1));
    }
    const [a, b, c, d] = guests as [Guest, Guest, Guest, Guest];
    expect([first, second, third].map((hub) => hub.describe().role)).toEqual(['listening', 'joined', 'joined']);
    b.port.send([b.frame(255, 7)]);
    await Promise.all([a, c, d].map((guest) => guest.heard(1)));
    d.port.send([d.frame(2, 8)]);
    await b.heard(1);
    // To one whose port is known, in the same process or behind two links, nobody else hears.
    const large = unfinished(packet({ version: 4, payload: new Uint8Array(60_000) }), 1460);
    large.bytes.set(d.frame(2).bytes.subarray(0, 12));
    d.port.send([large]);
    c.port.send([c.frame(2, 9)]);
    await b.heard(3);
    expect(b.got).toContainEqual(large);
    expect([a, c, d].map(({ got }) => got.length)).toEqual([1, 1, 1]);
  });

  it('goes on when the process that listens goes, and the guests see no link change', async () => {
    const where = await folder();
    const hubs = [hubIn(where), hubIn(where), hubIn(where), hubIn(where)];
    const guests = [];
    for (const [index, hub] of hubs.entries()) guests.push(new Guest(await hub.port(undefined), index + 1));
    for (let gone = 0; gone < 3; gone++) {
      const at = hubs.findIndex((hub) => hub.describe().role === 'listening');
      hubs[at]!.close();
      hubs.splice(at, 1);
      guests.splice(at, 1);
      for (const guest of guests) {
        for (const other of guests) if (guest !== other) await guest.reaches(other);
      }
    }
    expect(guests[0]!.links).toEqual([]);
    await until(() => hubs[0]!.describe().role === 'listening');
    expect(hubs[0]!.describe()).toMatchObject({ links: 0, badFrames: 0 });
    hubs[0]!.close();
    expect(await readdir(where)).toEqual(['lan.lock']);
  });

  it('has one MTU, that of the first who asks', async () => {
    const where = await folder();
    const first = hubIn(where, 9000);
    await first.port(9000);
    const port = await hubIn(where).port(undefined);
    expect(port.mtuBytes).toBe(9000);
    await expect(hubIn(where, 1500).port(1500)).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    await expect(first.port(1500)).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    await until(() => first.describe().links === 1);
  });

  it('takes garbage from whoever connects, and others do not notice', async () => {
    const where = await folder();
    const hub = hubIn(where);
    const [a, b] = [new Guest(await hub.port(undefined), 1), new Guest(await hubIn(where).port(undefined), 2)];
    const peer = connect(path.join(where, 'lan.sock'));
    const closed = new Promise((resolve) => peer.on('error', () => {}).once('close', resolve));
    peer.write(Buffer.from('vvsw\x01\x00\x05\xdc', 'latin1'));
    peer.write(Buffer.alloc(100_000, 0xff));
    peer.resume();
    await closed;
    await a.reaches(b);
    await b.reaches(a);
    expect(hub.describe()).toMatchObject({ badFrames: 1, links: 1 });
  });

  it('does not wait for ever for a greeting, and sends no frame before', async () => {
    const where = await folder();
    const clock = new ManualClock();
    const hub = hubIn(where, undefined, clock);
    const guest = new Guest(await hub.port(undefined), 1);
    const [silent, greeting] = [connect(path.join(where, 'lan.sock')), connect(path.join(where, 'lan.sock'))];
    const got: Buffer[] = [];
    silent.on('data', (bytes: Buffer) => got.push(bytes));
    const closed = new Promise((resolve) => silent.on('error', () => {}).once('close', resolve));
    let greeted = 0;
    greeting.on('error', () => {}).on('data', (bytes: Buffer) => (greeted += bytes.length));
    greeting.write(Buffer.from('vvsw\x01\x00\x05\xdc', 'latin1'));
    await until(() => hub.describe().links === 2);
    while (greeted < 8 + 4 + 12 + 60) {
      guest.port.send([guest.frame(255)]);
      await new Promise((resolve) => setImmediate(resolve));
    }
    clock.advance(1_999_999_999n);
    expect(hub.describe().links).toBe(2);
    clock.advance(1n);
    expect(hub.describe().links).toBe(1);
    await closed;
    expect(Buffer.concat(got).length).toBe(8);
    greeting.destroy();
  });
});

describe('networkSwitch', () => {
  it('is one for all ports of a name, and goes with the last', async () => {
    const where = await folder();
    const open = (name: string) => networkSwitch(name, { folder: where }).open(context);
    const [a, b, other] = [await open('lan'), await open('lan'), await open('other')];
    const [one, two, three] = [new Guest(a, 1), new Guest(b, 2), new Guest(other, 3)];
    a.send([one.frame(255)]);
    expect([two.got.length, three.got.length]).toEqual([1, 0]);
    expect(a.describe()).toMatchObject({ kind: 'switch', name: 'lan', role: 'listening', links: 0 });
    await a.close();
    await a.close();
    expect(b.describe()).toMatchObject({ role: 'listening' });
    await b.close();
    await other.close();
    expect((await readdir(where)).sort()).toEqual(['lan.lock', 'other.lock']);
    const again = await open('lan');
    await again.close();
  });

  it('refuses names that are none, and ends an opening that is given up', async () => {
    for (const name of ['', '../x', '.lan', 'a b', 'x'.repeat(64)])
      expect(() => networkSwitch(name)).toThrow(TypeError);
    expect(() => networkSwitch('lan', { mtuBytes: 67 })).toThrow(RangeError);
    expect(() => networkSwitch('lan', { mtu: 1500 } as object)).toThrow(TypeError);
    const where = await folder();
    const place = new SwitchPlace(where, 'lan');
    expect(place.tryTake()).toBe(true); // somebody has it who does not listen
    const abort = new AbortController();
    const opening = networkSwitch('lan', { folder: where }).open({ ...context, signal: abort.signal });
    abort.abort();
    await expect(opening).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    place.release();
    await expect(
      networkSwitch('x'.repeat(60), { folder: `${where}/${'y'.repeat(60)}` }).open(context),
    ).rejects.toMatchObject({ code: 'ERR_SETUP' });
  });
});
