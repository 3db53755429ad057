import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { networkSwitch, type NetworkSwitchOptions } from './network-switch.js';
import { NetProvider } from './provider.js';
import type { NetSource } from './source.js';
import { FakeGuest, packet } from './testing.js';

const context = { id: 'net0', mac: 1, logger: silentLogger, clock: new ManualClock() };

async function guestOn(source: NetSource, mac: number) {
  const provider = new NetProvider({ id: 'net0', backend: await source.open(context), logger: silentLogger, mac });
  const guest = new FakeGuest();
  provider.attach(guest);
  return { provider, guest };
}

describe('networkSwitch', () => {
  it('joins those that name it, from the first to the last of them', async () => {
    const one = await guestOn(networkSwitch('lan', { mtuBytes: 9000 }), 0x020000000002);
    const two = await guestOn(networkSwitch('lan'), 0x020000000001);
    const other = await guestOn(networkSwitch('dmz'), 0x020000000001);
    const bytes = packet({ version: 4, payload: new Uint8Array(8000) });
    one.provider.send([{ bytes }]);
    expect(two.guest.got).toEqual([{ bytes }]);
    expect(other.guest.got).toEqual([]);
    expect([two.provider.mtuBytes, other.provider.mtuBytes]).toEqual([9000, 1500]);

    await expect(networkSwitch('lan', { mtuBytes: 1500 }).open(context)).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    await one.provider.close();
    await expect(networkSwitch('lan', { mtuBytes: 1500 }).open(context)).rejects.toThrow(/and it has 9000/);
    await two.provider.close();
    await two.provider.close();
    const anew = await guestOn(networkSwitch('lan'), 0x020000000002);
    expect(anew.provider.mtuBytes).toBe(1500);
    await anew.provider.close();
    await other.provider.close();
  });

  it.each([
    ['a/b', {}, TypeError],
    [7, {}, TypeError],
    ['lan', { mtu: 9000 }, TypeError],
    ['lan', { mtuBytes: 10 }, RangeError],
  ])('refuses %j with %j', (name, options, kind) => {
    expect(() => networkSwitch(name as string, options as NetworkSwitchOptions)).toThrow(kind);
  });
});
