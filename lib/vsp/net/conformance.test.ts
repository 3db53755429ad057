import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it, onTestFinished, type TestContext } from 'vitest';
import { hostClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import type { NetBackend } from './contract.js';
import { NetProvider } from './provider.js';
import { sharedNetwork } from './shared-network.js';
import type { NetSource } from './source.js';
import { NetSwitch } from './switch.js';
import { SwitchHub } from './switch-link-hub.js';
import { SwitchPlace } from './switch-link-place.js';
import { passt } from './passt.js';
import { tap } from './tap.js';
import { CONFORMANCE, conforms, type ConformanceNetwork } from './testing-conformance.js';
import { withoutNative } from './testing.js';
import { TinyGuest } from './testing-guest.js';
import { isInNamespace, makeDefaultRoute, runInNamespace, whyNoTap } from './testing-namespace.js';
import { whyNoPasst } from './testing-passt.js';
import { betweenGuests, echoOverSocket, echoServers, freePort } from './testing-far.js';

const provider = (backend: NetBackend, mac: number) =>
  new NetProvider({ id: 'net0', backend, mac, logger: silentLogger, clock: hostClock });

const open = (source: NetSource) =>
  source.open({ id: 'net0', mac: 0x020000000042, logger: silentLogger, clock: hostClock });

/** Where one can be had, taps and passt are tested in a network namespace, and nothing else is. */
const whyNoNamespace = isInNamespace ? undefined : whyNoTap();
const INSIDE = whyNoNamespace === undefined ? ['tap', 'passt'] : ['tap'];

/** Every check, with native functions and without. `lacking` says why the network can't be had here. */
function suite(
  name: string,
  make: () => Promise<ConformanceNetwork>,
  lacking: () => Promise<string | undefined> = () => Promise.resolve(undefined),
): void {
  if (isInNamespace !== INSIDE.includes(name)) return;
  describe(name, () => {
    for (const native of [true, false]) {
      for (const check of CONFORMANCE) {
        it(`${check.name}${native ? '' : ', with nothing native'}`, async (context: TestContext) => {
          const reason = await lacking();
          if (reason !== undefined) context.skip(reason);
          await conforms(check, make, native);
        });
      }
    }
  });
}

suite('a switch', () => {
  const net = new NetSwitch({ name: 'lan' });
  return Promise.resolve(betweenGuests(net.port(), net.port()));
});

suite('a switch of two processes', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'vivarium-conformance-'));
  const place = () => new SwitchPlace(folder, 'lan');
  const common = { name: 'lan', mtuBytes: undefined, clock: hostClock, logger: silentLogger };
  const hubs = [new SwitchHub({ ...common, place: place() }), new SwitchHub({ ...common, place: place() })];
  const [here, there] = [await hubs[0]!.port(undefined), await hubs[1]!.port(undefined)];
  return betweenGuests(here, there, async () => {
    for (const hub of hubs) hub.close();
    await rm(folder, { recursive: true });
  });
});

suite('a shared network', async () => {
  const outside = new NetSwitch({ name: 'outside' });
  const source: NetSource = {
    class: 'network',
    describe: () => ({ kind: 'switch' }),
    open: () => Promise.resolve(outside.port()),
  };
  return betweenGuests(await open(sharedNetwork(source).guest()), outside.port());
});

suite('a shared network, between its guests', async () => {
  const outside = new NetSwitch({ name: 'outside' });
  const shared = sharedNetwork({
    class: 'network',
    describe: () => ({ kind: 'switch' }),
    open: () => Promise.resolve(outside.port()),
  });
  return betweenGuests(await open(shared.guest()), await open(shared.guest()));
});

if (isInNamespace) beforeAll(makeDefaultRoute);

let passtLack: Promise<string | undefined> | undefined;

suite(
  'passt',
  async () => {
    const servers = await echoServers('127.0.0.1');
    const port = await freePort('127.0.0.1');
    const backend = await open(passt({ forwards: [{ host: port, guest: 80 }] }));
    return {
      ...servers,
      backend,
      guestIp: '10.0.2.15',
      farIp: '10.0.2.2',
      guestPort: 80,
      echoFromFar: (bytes) => echoOverSocket(port, '127.0.0.1', bytes),
    };
  },
  () => (passtLack ??= whyNoPasst()),
);

let taps = 0;

suite('tap', async () => {
  const name = `vvtap${taps++}`;
  const subnet = `10.9.${taps}`;
  const ip = (...args: string[]) => execFileSync('ip', args);
  const backend = await open(tap(name, { create: true }));
  ip('addr', 'add', `${subnet}.1/24`, 'dev', name);
  const servers = await echoServers(`${subnet}.1`);
  return {
    ...servers,
    backend,
    guestIp: `${subnet}.2`,
    farIp: `${subnet}.1`,
    guestPort: 80,
    echoFromFar: (bytes) => echoOverSocket(80, `${subnet}.2`, bytes),
  };
});

if (isInNamespace) {
  it('taps on a bridge join their guests, and the host', async () => {
    const ip = (line: string) => execFileSync('ip', line.split(' '));
    ip('link add vvbridge type bridge');
    ip('addr add 10.8.0.1/24 dev vvbridge');
    ip('link set vvbridge up');
    const servers = await echoServers('10.8.0.1');
    onTestFinished(() => servers.close());
    const guests: TinyGuest[] = [];
    for (const [index, name] of ['vvone', 'vvtwo'].entries()) {
      const net = provider(await open(tap(name, { create: true })), 0x020000000050 + index);
      onTestFinished(() => net.close());
      ip(`link set ${name} master vvbridge`);
      const guest = new TinyGuest(net, `10.8.0.${2 + index}`);
      onTestFinished(() => guest.stop());
      guests.push(guest);
    }
    const [one, two] = guests as [TinyGuest, TinyGuest];
    two.listen(7, (tcp) => (tcp.onData = (bytes) => tcp.write(bytes)));
    const bytes = Uint8Array.from({ length: 200_000 }, (_, at) => (at * 7 + (at >> 8)) & 255);
    for (const [address, port] of [
      [two.ip, 7],
      [[10, 8, 0, 1], servers.tcpEchoPort],
    ] as const) {
      const tcp = await one.connect(address, port);
      const parts: Uint8Array[] = [];
      tcp.onData = (part) => parts.push(part);
      tcp.write(bytes);
      await one.until(() => tcp.receivedBytes >= bytes.length);
      expect(Buffer.concat(parts).equals(bytes)).toBe(true);
    }
    expect([one.wrong, two.wrong]).toEqual([0, 0]);
  });
}

if (isInNamespace === INSIDE.includes('passt')) {
  it('passt forwards datagrams of the host', async (context) => {
    const reason = await whyNoPasst();
    if (reason !== undefined) context.skip(reason);
    const port = await freePort('127.0.0.1');
    const forwards = [{ host: port, guest: 53, protocol: 'udp' }] as const;
    const net = provider(await open(passt({ forwards })), 0x020000000042);
    onTestFinished(() => net.close());
    const guest = new TinyGuest(net, '10.0.2.15');
    onTestFinished(() => guest.stop());
    await guest.arp([10, 0, 2, 2]);
    guest.onUdp = (payload) => payload;
    const socket = createSocket('udp4');
    onTestFinished(() => void socket.close());
    let heard: Buffer | undefined;
    socket.on('message', (bytes) => (heard = bytes));
    await guest.until(
      () => heard !== undefined,
      () => socket.send('a question', port, '127.0.0.1'),
    );
    expect(heard?.toString()).toBe('a question');
    expect(guest.wrong).toBe(0);
  });

  it('passt carries a new stream each time that its guest comes back to it, and over a link that was down', async (context) => {
    const reason = await whyNoPasst();
    if (reason !== undefined) context.skip(reason);
    const servers = await echoServers('127.0.0.1');
    onTestFinished(() => servers.close());
    const lan = new NetSwitch({ name: 'lan' });
    const net = provider(lan.port(), 0x020000000042);
    onTestFinished(() => net.close());
    const guest = new TinyGuest(net, '10.0.2.15');
    onTestFinished(() => guest.stop());
    const bytes = Uint8Array.from({ length: 200_000 }, (_, at) => (at * 7 + (at >> 8)) & 255);
    for (let round = 0; round < 4; round++) {
      await net.rebind(await open(passt()));
      const tcp = await guest.connect([10, 0, 2, 2], servers.tcpEchoPort);
      for (const from of [0, bytes.length]) {
        tcp.write(bytes);
        await guest.until(() => tcp.receivedBytes >= from + bytes.length);
        for (const up of [false, true]) net.setLink(up);
      }
      await net.rebind(lan.port());
    }
    expect(guest.wrong).toBe(0);
  });

  it('passt sends everything to whoever spoke last, so that it serves one guest', async (context) => {
    const reason = await whyNoPasst();
    if (reason !== undefined) context.skip(reason);
    const far = createSocket('udp4');
    onTestFinished(() => void far.close());
    far.bind(0, '127.0.0.1');
    await once(far, 'listening');
    // As a shared network would be, were it not refused.
    const shared = sharedNetwork({ ...passt(), onlyOneGuest: undefined });
    const nets = [provider(await open(shared.guest()), 0x020000000042), provider(await open(shared.guest()), 0x43)];
    const [one, two] = [new TinyGuest(nets[0]!, '10.0.2.15'), new TinyGuest(nets[1]!, '10.0.2.16')];
    let asked: number | undefined;
    far.on('message', (_, { port }) => (asked = port));
    await one.udp([10, 0, 2, 2], far.address().port, Uint8Array.of(1), () => asked !== undefined);
    let got = 0;
    one.onUdp = () => {
      got++;
      return undefined;
    };
    const answer = () => far.send('an answer', asked, '127.0.0.1');
    await one.until(() => got > 0, answer);
    // The other one asks for something, and the same flow's next answers do not reach the first one any more.
    await two.arp([10, 0, 2, 2]);
    const before = [got, two.got];
    await two.until(() => two.got >= before[1]! + 3, answer);
    expect(got).toBe(before[0]);
    for (const guest of [one, two]) guest.stop();
    for (const net of nets) await net.close();
  });

  it('passt keeps the guest from the loopback of the host where it is told to', async (context) => {
    const reason = await whyNoPasst();
    if (reason !== undefined) context.skip(reason);
    const server = createSocket('udp4').bind(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await once(server, 'listening');
    const heard: string[] = [];
    server.on('message', (bytes) => heard.push(bytes.toString()));
    for (const hostLoopback of [false, true]) {
      const net = provider(await open(passt({ hostLoopback })), 0x020000000042);
      onTestFinished(() => net.close());
      const guest = new TinyGuest(net, '10.0.2.15');
      onTestFinished(() => guest.stop());
      let answered = hostLoopback ? 0 : 1;
      server.on('message', () => answered++);
      const question = Buffer.from(String(hostLoopback));
      await guest.udp([10, 0, 2, 2], server.address().port, question, () => answered > 0);
      // passt takes frames in order: with this answer it has done with what came before.
      await guest.arp([10, 0, 2, 77]);
    }
    expect(new Set(heard)).toEqual(new Set(['true']));
  });
}

if (!isInNamespace) {
  it('a stream goes on while its device moves between switches, and between processes', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'vivarium-rebind-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    const hubs = [0, 1, 2].map(() => {
      const common = { name: 'lan', mtuBytes: undefined, clock: hostClock, logger: silentLogger };
      return new SwitchHub({ ...common, place: new SwitchPlace(folder, 'lan') });
    });
    onTestFinished(() => hubs.forEach((hub) => hub.close()));
    const [near, far] = [
      provider(await hubs[0]!.port(undefined), 0x42),
      provider(await hubs[2]!.port(undefined), 0x43),
    ];
    const [guest, server] = [new TinyGuest(near, '10.1.0.2'), new TinyGuest(far, '10.1.0.1')];
    server.listen(7, (tcp) => (tcp.onData = (bytes) => tcp.write(bytes)));
    const bytes = Uint8Array.from({ length: 1_000_000 }, (_, at) => (at * 7 + (at >> 8)) & 255);
    const tcp = await guest.connect(server.ip, 7);
    const parts: Uint8Array[] = [];
    tcp.onData = (part) => parts.push(part);
    tcp.write(bytes);
    for (let moves = 0; moves < 9 && tcp.receivedBytes < bytes.length; moves++) {
      const before = tcp.receivedBytes;
      const backend = await hubs[moves % 3]!.port(undefined);
      await near.rebind(moves % 2 === 0 ? withoutNative(backend) : backend);
      await guest.until(() => tcp.receivedBytes > before);
    }
    await guest.until(() => tcp.receivedBytes >= bytes.length);
    expect(Buffer.concat(parts).equals(bytes)).toBe(true);
    expect([guest.wrong, server.wrong, near.linkUp]).toEqual([0, 0, true]);
    for (const one of [guest, server]) one.stop();
    await near.close();
    await far.close();
  });

  it('taps and passt conform, in a network namespace', { timeout: 120_000 }, async (context) => {
    if (whyNoNamespace !== undefined) context.skip(whyNoNamespace);
    const { passed, others } = await runInNamespace(fileURLToPath(import.meta.url));
    expect(others).toEqual([]);
    // Each check with native functions and without, over each; and what only one of them has.
    expect(passed).toBe(2 * 2 * CONFORMANCE.length + 5);
  });
}
