/** Other networks for nics that are lent into the embedded host: both ends in this process, over a channel of the test's. */
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { VmmError } from '../base/errors.js';
import { silentLogger } from '../base/logger.js';
import type { CarriedNetwork, CarriedSuccessor, NetBackend } from '../vsp/index.js';
import { FakeNetwork } from '../vsp/net/testing.js';
import { NetworkBorrower } from './network-borrower.js';
import { type LentNetworks, NetworkLender } from './network-lender.js';
import type { NetworkBackend } from './schemas.js';

const LAN: NetworkBackend = { kind: 'switch', name: 'lan' };
const turns = async () => {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
};

class CountedNetwork extends FakeNetwork {
  closes = 0;
  override close(): Promise<void> {
    this.closes++;
    return super.close();
  }
}

/** The nics outside, which open what the test says. */
class FakeNics implements LentNetworks {
  readonly asked: { device: string; backend: NetworkBackend; signal: AbortSignal }[] = [];
  readonly exchanged: { device: string; backend: NetBackend; change: number }[] = [];
  onOpen: (signal: AbortSignal) => Promise<NetBackend> = () => Promise.resolve(new CountedNetwork());
  onExchange: () => Promise<void> = () => Promise.resolve();

  open(device: string, backend: NetworkBackend, signal: AbortSignal): Promise<NetBackend> {
    this.asked.push({ device, backend, signal });
    return this.onOpen(signal);
  }

  exchange(device: string, backend: NetBackend, change: number): Promise<void> {
    this.exchanged.push({ device, backend, change });
    return this.onExchange();
  }
}

function ends() {
  const [there, back] = [new PassThrough(), new PassThrough()];
  const nics = new FakeNics();
  const lender = new NetworkLender({ input: there, output: back }, nics, silentLogger);
  const borrower = new NetworkBorrower({ input: back, output: there });
  const made: CarriedSuccessor[] = [];
  let isOpen = true;
  const carried = {
    successor: (next: CarriedSuccessor) => {
      if (!isOpen) throw new VmmError('ERR_DEVICE', 'has gone');
      made.push(next);
      return new FakeNetwork();
    },
  } as Partial<CarriedNetwork> as CarriedNetwork;
  const open = (device = 'net0', backend = LAN, signal?: AbortSignal) =>
    borrower.open(device, backend, carried, signal);
  return { nics, lender, open, made, there, back, loseCarried: () => void (isOpen = false) };
}

describe('another network for a lent nic', () => {
  it('is opened outside, described inside, and taken when the device stands on it', async () => {
    const { nics, open, made } = ends();
    const network = new CountedNetwork({ mtuBytes: 9000 });
    nics.onOpen = () => Promise.resolve(network);
    const passt: NetworkBackend = { kind: 'passt', forwards: [{ host: 8080, guest: 80, protocol: 'udp' }] };
    await open('net1', passt);
    expect(nics.asked).toMatchObject([{ device: 'net1', backend: passt }]);
    expect(made).toMatchObject([{ change: 1, mtuBytes: 9000, around: { kind: 'fake' } }]);
    expect(nics.exchanged).toEqual([]);
    await made[0]!.take();
    expect(nics.exchanged).toEqual([{ device: 'net1', backend: network, change: 1 }]);
    await open('net1');
    expect(made[1]!.change).toBe(2);
    expect(network.closes).toBe(0);
  });

  it('is not there: the code, the words and the cure are those from outside, and the next one may be', async () => {
    const { nics, open, made } = ends();
    const failures = [
      new VmmError('ERR_DEVICE', 'tap tap7: there is no such interface', { cure: 'ip tuntap add tap7 mode tap' }),
      new RangeError('passt: the port 0 is none'),
      new Error(`nobody foresaw it ${'x'.repeat(100_000)}`),
    ];
    nics.onOpen = () => Promise.reject(failures[0]!);
    await expect(open()).rejects.toMatchObject({
      code: 'ERR_DEVICE',
      message: 'tap tap7: there is no such interface',
      cure: 'ip tuntap add tap7 mode tap',
    });
    nics.onOpen = () => Promise.reject(failures[1]!);
    await expect(open()).rejects.toThrow(RangeError);
    nics.onOpen = () => Promise.reject(failures[2]!);
    await expect(open()).rejects.toMatchObject({ code: 'ERR_CONTROL', message: expect.stringMatching(/^nobody/) });
    nics.onOpen = () => Promise.resolve(new CountedNetwork());
    await open();
    expect([made.length, nics.exchanged.length]).toEqual([1, 0]);
  });

  it('is closed once when it is dropped, and its device can be asked for another', async () => {
    const { nics, open, made } = ends();
    const network = new CountedNetwork();
    nics.onOpen = () => Promise.resolve(network);
    await open();
    made[0]!.drop();
    made[0]!.drop();
    await turns();
    expect(network.closes).toBe(1);
    await open();
    await made[1]!.take();
    expect(nics.exchanged.length).toBe(1);
  });

  it('is given up while it is opened: at once inside, outside as soon as it can be', async () => {
    const { nics, open, made } = ends();
    const abort = new AbortController();
    const network = new CountedNetwork();
    let finish = (): void => undefined;
    nics.onOpen = () => new Promise((resolve) => (finish = () => resolve(network)));
    const opening = open('net0', LAN, abort.signal);
    await turns();
    abort.abort();
    await expect(opening).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await turns();
    expect(nics.asked[0]!.signal.aborted).toBe(true);
    // Not in the way of the next one, though it is still on its way.
    nics.onOpen = () => Promise.resolve(new CountedNetwork());
    await open();
    finish();
    await turns();
    expect([network.closes, made.length]).toEqual([1, 1]);
    await expect(open('net0', LAN, AbortSignal.abort())).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(nics.asked.length).toBe(2);
  });

  it('can be several at a time, of one nic too, up to a bound', async () => {
    const { nics, open, made } = ends();
    for (let count = 0; count < 32; count++) await open(`net${count % 2}`);
    await expect(open('net2')).rejects.toMatchObject({
      code: 'ERR_STATE',
      message: 'network net2: 32 rebinds are under way already',
    });
    await Promise.all(made.slice(0, 31).map((next) => next.take()));
    made[31]!.drop();
    await open('net2');
    expect(nics.exchanged.map(({ change }) => change)).toEqual(Array.from({ length: 31 }, (_, at) => at + 1));
  });

  it('is opened for a nic again when the one that was not taken has gone', async () => {
    const { nics, open, made } = ends();
    let gone = (): void => undefined;
    const slow = new CountedNetwork();
    slow.close = () => new Promise((resolve) => (gone = resolve));
    nics.onOpen = () => Promise.resolve(slow);
    await open('net0');
    made[0]!.drop();
    nics.onOpen = () => Promise.resolve(new CountedNetwork());
    let isOpen = false;
    const opening = open('net0').then(() => (isOpen = true));
    // Another nic's is not in its way.
    await open('net1');
    expect([isOpen, nics.asked.map(({ device }) => device)]).toEqual([false, ['net0', 'net1']]);
    gone();
    expect(await opening).toBe(true);
  });

  it('is bounded in number also by those that were given up and have not ended', async () => {
    const { nics, there } = ends();
    nics.onOpen = () => new Promise(() => undefined);
    const say = (request: object) => there.write(`${JSON.stringify(request)}\n`);
    // Both at once: it is never opened.
    there.write(
      `${JSON.stringify({ type: 'open', change: 99, device: 'net0', backend: LAN })}\n{"type":"drop","change":99}\n`,
    );
    for (let change = 1; change <= 40; change++) {
      say({ type: 'open', change, device: 'net0', backend: LAN });
      await turns();
      say({ type: 'drop', change });
    }
    await turns();
    expect(nics.asked.length).toBe(32);
  });

  it('is refused and closed where the streams of the nic have gone', async () => {
    const { nics, open, loseCarried } = ends();
    const network = new CountedNetwork();
    nics.onOpen = () => Promise.resolve(network);
    loseCarried();
    await expect(open()).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    await turns();
    expect(network.closes).toBe(1);
  });

  it('fails for whoever waits when the process outside goes, and for those who come later', async () => {
    const { nics, open, made, back } = ends();
    await open('net1');
    nics.onOpen = () => new Promise(() => undefined);
    nics.onExchange = () => new Promise(() => undefined);
    const opening = open('net0');
    const taking = made[0]!.take();
    const settled = Promise.allSettled([opening, taking]);
    await turns();
    back.end();
    const gone = { status: 'rejected', reason: { code: 'ERR_EMBEDDED_HOST' } };
    expect(await settled).toMatchObject([gone, gone]);
    await expect(open()).rejects.toMatchObject({ code: 'ERR_EMBEDDED_HOST' });
  });

  it('is closed when the process inside goes, also one that opens only then; close() waits for all of it', async () => {
    const { nics, lender, open, there } = ends();
    const [idle, late] = [new CountedNetwork(), new CountedNetwork()];
    nics.onOpen = () => Promise.resolve(idle);
    await open('net0');
    let finish = (): void => undefined;
    nics.onOpen = () => new Promise((resolve) => (finish = () => resolve(late)));
    open('net1').catch(() => undefined);
    await turns();
    there.end();
    await turns();
    expect([idle.closes, nics.asked[1]!.signal.aborted]).toEqual([1, true]);
    let isClosed = false;
    const closed = lender.close().then(() => (isClosed = true));
    await turns();
    expect(isClosed).toBe(false);
    finish();
    await closed;
    expect([idle.closes, late.closes]).toEqual([1, 1]);
  });

  it('is closed where it can not be put in the place of the other one, and that is told', async () => {
    const { nics, open, made } = ends();
    const network = new CountedNetwork();
    nics.onOpen = () => Promise.resolve(network);
    nics.onExchange = () => Promise.reject(new VmmError('ERR_STATE', 'not yet'));
    await open();
    await expect(made[0]!.take()).rejects.toMatchObject({ code: 'ERR_STATE', message: 'not yet' });
    await turns();
    expect(network.closes).toBe(1);
  });

  it.each([
    ['what is no request', { type: 'open', change: 1, device: 'net0' }],
    ['a file', { type: 'open', change: 1, device: 'net0', backend: { kind: 'file', path: '/etc/passwd' } }],
    ['a number that is none', { type: 'open', change: 0, device: 'net0', backend: LAN }],
    ['one that is not open taken', { type: 'take', change: 9 }],
  ])('is not had by who is out of step: %s', async (_what, request) => {
    const { nics, there, open } = ends();
    there.write(`${JSON.stringify(request)}\n`);
    await turns();
    expect([nics.asked, nics.exchanged]).toEqual([[], []]);
    await expect(open()).rejects.toMatchObject({ code: 'ERR_EMBEDDED_HOST' });
  });

  it.each([
    { type: 'taken' },
    { type: 'opened', change: 1 },
    { type: 'failed', change: 1 },
    { type: 'failed', change: 1, failure: { code: 'ERR_DEVICE' } },
    { type: 'odd', change: 1 },
    null,
  ])('is not had from who answers %j', async (answer) => {
    const { nics, open, back } = ends();
    nics.onOpen = () => new Promise(() => undefined);
    const opening = open();
    opening.catch(() => undefined);
    await turns();
    back.write(`${JSON.stringify(answer)}\n`);
    await expect(opening).rejects.toMatchObject({ code: 'ERR_EMBEDDED_HOST' });
  });
});
