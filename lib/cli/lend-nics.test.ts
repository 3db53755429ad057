/** Networks that are lent into the embedded host, with the real rooms, both ends in this process. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Channel } from '../base/command-io.js';
import { ManualClock } from '../base/clock.js';
import { VmmError } from '../base/errors.js';
import { silentLogger } from '../base/logger.js';
import { backendsInside } from '../control/index.js';
import * as machines from '../machine/index.js';
import { lentNic } from '../machine/lent-device.js';
import { type CarriedNetwork, NetProvider, type NetSource } from '../vsp/index.js';
import { FakeGuest, FakeNetwork } from '../vsp/net/testing.js';
import { lendNics } from './lend-nics.js';
import { parseNics } from './nic-option.js';
import { networkOf } from './networks.js';

let runtime: string;
let before: string | undefined;
beforeAll(() => {
  before = process.env['XDG_RUNTIME_DIR'];
  runtime = mkdtempSync(join(tmpdir(), 'vivarium-lend-'));
  process.env['XDG_RUNTIME_DIR'] = runtime;
});
afterAll(() => {
  if (before === undefined) delete process.env['XDG_RUNTIME_DIR'];
  else process.env['XDG_RUNTIME_DIR'] = before;
  rmSync(runtime, { recursive: true });
});

const clock = new ManualClock();
const context = { machines, clock, logger: silentLogger, signal: new AbortController().signal };
const claims = () => readdirSync(join(runtime, 'vivarium', 'macs'));

function channelPair(): [Channel, Channel] {
  const [one, two] = [new PassThrough(), new PassThrough()];
  return [
    { input: one, output: two },
    { input: two, output: one },
  ];
}

describe('lendNics', () => {
  it('opens them here, and what is told inside finds them at its channels', async () => {
    const lent = await lendNics(parseNics(['switch:lend,mtu=9000', 'switch:lend,mac=02:00:00:00:00:0A'], []), context);
    expect(lent.nics).toMatchObject([
      { id: 'net0', mtuBytes: 9000, network: { kind: 'carried', channel: 0 } },
      { id: 'net1', mac: '02:00:00:00:00:0a', network: { kind: 'carried', channel: 1 } },
    ]);
    expect(machines.parseMac(lent.nics[0]!.mac!)).toBeDefined();
    expect(claims().length).toBe(2);

    const pairs = [channelPair(), channelPair()];
    lent.join.forEach((take, index) => take(pairs[index]![0]));
    const inner = pairs.map(([, channel]) => channel);
    const backends = await Promise.all(
      lent.nics.map(async (nic) =>
        networkOf(nic, machines, { channels: inner, carried: new Map() }).open({
          id: nic.id,
          mac: 1,
          clock,
          logger: silentLogger,
        }),
      ),
    );
    const got = await new Promise<Uint8Array>((resolve) => {
      backends[0]!.start({ receive: () => undefined, writable: () => undefined, link: () => undefined });
      backends[1]!.start({
        receive: ([frame]) => resolve(frame!.bytes),
        writable: () => undefined,
        link: () => undefined,
      });
      backends[0]!.send([{ bytes: new Uint8Array(8000).fill(7) }]);
    });
    expect([got.length, got[7999]]).toEqual([8000, 7]);
    await Promise.all(backends.map((backend) => backend.close()));
    await lent.close();
    expect(claims()).toEqual([]);
  });

  it('closes every network and lets every address go although one does not close', async () => {
    const closed: string[] = [];
    const networkSwitch: typeof machines.networkSwitch = (name) => ({
      class: 'network',
      describe: () => ({ kind: 'fake' }),
      open: () => {
        const network = new FakeNetwork();
        network.close = () => {
          closed.push(name);
          return name === 'bad' ? Promise.reject(new Error('does not end')) : Promise.resolve();
        };
        return Promise.resolve(network);
      },
    });
    const faked = { ...context, machines: { ...machines, networkSwitch } };
    const lent = await lendNics(parseNics(['switch:bad', 'switch:good'], []), faked);
    expect(claims().length).toBe(2);
    await expect(lent.close()).rejects.toThrow('does not end');
    expect([closed, claims()]).toEqual([['bad', 'good'], []]);

    // What stood in the way of opening is said, not what stood in the way of closing again.
    const nics = parseNics(['switch:bad,mac=02:00:00:00:00:0a', 'switch:good,mac=02:00:00:00:00:0b'], []);
    const other = machines.claimMac({ machine: 'other', id: 'net0', mac: 0x02000000000b });
    await expect(lendNics(nics, faked)).rejects.toThrow('02:00:00:00:00:0b is the address of nic net0');
    other.release();
    expect(claims()).toEqual([]);
  });

  it('puts another network in the place of one, as the device inside is rebound', async () => {
    const opened = new Map<string, FakeNetwork & { closes: number }>();
    const source = (name: string, mtuBytes = 1500): ReturnType<typeof machines.networkSwitch> => ({
      class: 'network',
      describe: () => ({ kind: 'fake', name }),
      open: ({ mac }) => {
        if (name === 'missing') {
          return Promise.reject(new VmmError('ERR_DEVICE', 'missing: there is none', { cure: 'make one' }));
        }
        const network = Object.assign(new FakeNetwork({ mtuBytes }), { closes: 0 });
        network.describe = () => ({ kind: 'fake', name, mac });
        network.close = () => {
          network.closes++;
          return Promise.resolve();
        };
        opened.set(name, network);
        return Promise.resolve(network);
      },
    });
    const networkSwitch: typeof machines.networkSwitch = (name, options) => source(name, options?.mtuBytes);
    const passt: typeof machines.passt = (options) => source(JSON.stringify(options?.forwards));
    const faked = { ...context, machines: { ...machines, networkSwitch, tap: () => source('narrow', 1400), passt } };
    const lent = await lendNics(parseNics(['switch:first,mac=02:00:00:00:00:0a'], []), faked);
    const [[outer, inner], [asked, asks]] = [channelPair(), channelPair()];
    lent.join[0]!(outer);
    lent.lendOthers(asked);
    // As a process inside does it: createMachine(), openControl(), the route of a rebind.
    const carried = new Map<string, CarriedNetwork>();
    const place = { id: 'net0', mac: 0x02000000000a, clock, logger: silentLogger };
    const backend = await networkOf(lent.nics[0]!, machines, { channels: [inner], carried }).open(place);
    const provider = new NetProvider({ ...place, backend });
    const guest = new FakeGuest();
    provider.attach(guest);
    const device = lentNic(provider, place);
    const makeBackend = backendsInside(asks, carried);
    const frame = (byte: number) => ({ bytes: new Uint8Array(60).fill(byte) });
    const lastOf = (network: FakeNetwork | undefined) => network?.sent.at(-1)?.bytes[0];

    await device.rebind(makeBackend({ kind: 'switch', name: 'second' }, 'net0'));
    const [first, second] = [opened.get('first')!, opened.get('second')!];
    provider.send([frame(2)]);
    await expect.poll(() => lastOf(second)).toBe(2);
    expect([first.closes, second.closes, device.contract.rebinds]).toEqual([1, 0, 1]);
    // At the address that was claimed outside.
    expect(device.contract.backend).toMatchObject({
      kind: 'carried',
      around: { kind: 'fake', name: 'second', mac: 0x02000000000a },
    });

    // What can't be had leaves the one that serves as it is, and is said in the words of the network itself.
    await expect(device.rebind(makeBackend({ kind: 'switch', name: 'missing' }, 'net0'))).rejects.toMatchObject({
      code: 'ERR_DEVICE',
      message: 'missing: there is none',
      cure: 'make one',
    });
    await expect(device.rebind(makeBackend({ kind: 'tap', name: 'narrow' }, 'net0'))).rejects.toMatchObject({
      code: 'ERR_DEVICE',
      message: 'network net0: rebind refused: an MTU of 1400 bytes, the device has 1500',
    });
    await expect.poll(() => opened.get('narrow')!.closes).toBe(1);
    provider.send([frame(4)]);
    await expect.poll(() => lastOf(second)).toBe(4);
    expect([second.closes, device.contract.rebinds]).toEqual([0, 1]);

    const forwards = [{ host: 8080, guest: 80 }];
    await device.rebind(makeBackend({ kind: 'passt', forwards }, 'net0'));
    const third = opened.get('[{"host":8080,"guest":80,"protocol":"tcp"}]')!;
    third.host.receive([{ bytes: new Uint8Array(60).fill(255) }]);
    await expect.poll(() => guest.got.length).toBe(1);

    // Other devices are none of its business.
    expect(makeBackend({ kind: 'switch', name: 'second' }, 'disk0').describe()).toMatchObject({ kind: 'switch' });
    expect(makeBackend({ kind: 'file', path: '/x' }, 'net0').class).toBe('block');
    // One that was opened and never taken goes with the rest.
    await (makeBackend({ kind: 'switch', name: 'unused' }, 'net0') as NetSource).open(place);
    await provider.close();
    await lent.close();
    expect([...opened].map(([name, { closes }]) => [name.slice(0, 6), closes])).toEqual([
      ['first', 1],
      ['second', 1],
      ['narrow', 1],
      ['[{"hos', 1],
      ['unused', 1],
    ]);
    expect(claims()).toEqual([]);
  });

  it('leaves nothing open when one is not there', async () => {
    const nics = parseNics(['switch:lend', 'switch:lend,mtu=9000'], []);
    await expect(lendNics(nics, context)).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    expect(claims()).toEqual([]);
    const anew = await lendNics(parseNics(['switch:lend,mtu=9000'], []), context);
    await anew.close();
  });
});
