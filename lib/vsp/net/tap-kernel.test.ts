import { execFileSync } from 'node:child_process';
import { readdirSync, readlinkSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { hostClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import type { NetFrame } from './contract.js';
import { keptFrame } from './kept-frame.js';
import { tap, type TapOptions } from './tap.js';
import { lendingBackend } from './testing-lent.js';
import { isInNamespace, runInNamespace, whyNoTap } from './testing-namespace.js';

const ip = (...args: string[]) => execFileSync('ip', args, { encoding: 'utf8' });
const context = { id: 'net0', mac: 0x020000000042, logger: silentLogger, clock: hostClock };

/** Descriptors of taps that this process has open. */
function taps(): number {
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ''; // that of the folder itself
    }
  });
  return links.filter((path) => path === '/dev/net/tun').length;
}

/** A started network over the tap, and who is told of its link. */
async function started(name: string, options: TapOptions = {}) {
  const backend = lendingBackend(await tap(name, options).open(context));
  const got: NetFrame[] = [];
  const links: boolean[] = [];
  let told = () => {};
  backend.start({
    receive: (frames) => got.push(...frames.map(keptFrame)),
    writable: () => {},
    link: (up) => {
      links.push(up);
      told();
    },
  });
  const linked = async (count: number) => {
    while (links.length < count) await new Promise<void>((resolve) => (told = resolve));
  };
  return { backend, got, links, linked };
}

if (isInNamespace) {
  it('takes a lasting interface, and leaves it as it was', async () => {
    for (const queues of [[], ['multi_queue']]) {
      ip('tuntap', 'add', 'dev', 'vvlast', 'mode', 'tap', ...queues);
      ip('link', 'set', 'vvlast', 'mtu', '9000');
      const before = ip('-d', '-o', 'link', 'show', 'vvlast');
      const { backend, links } = await started('vvlast');
      expect([backend.mtuBytes, backend.gives, links]).toEqual([9000, { checked: true, merged: true }, [false]]);
      expect(taps()).toBe(1);
      await backend.close();
      const plain = (text: string) =>
        text.replace(/state \w+|<[^>]*>|qdisc \w+|mode DEFAULT|vnet_hdr \w+/g, '').replace(/\s+/g, ' ');
      // Each who takes it says whether frames have headers; what it said last stays.
      expect(plain(ip('-d', '-o', 'link', 'show', 'vvlast'))).toBe(plain(before));
      ip('link', 'del', 'vvlast');
    }
    expect(taps()).toBe(0);
  });

  it('makes one that goes with it', async () => {
    const { backend, links } = await started('vvown', { create: true });
    expect(ip('-o', 'link', 'show', 'vvown')).toMatch(/UP/);
    expect(links).toEqual([]);
    await backend.close();
    expect(() => ip('link', 'show', 'vvown')).toThrow();
  });

  it('says why it can not be had', async () => {
    await expect(started('vvnone')).rejects.toMatchObject({
      code: 'ERR_DEVICE',
      message: expect.stringMatching(/no such interface/),
    });
    await expect(started('lo')).rejects.toMatchObject({
      code: 'ERR_DEVICE',
      message: expect.stringMatching(/another kind/),
    });
    ip('tuntap', 'add', 'dev', 'vvtun', 'mode', 'tun');
    await expect(started('vvtun')).rejects.toMatchObject({
      code: 'ERR_DEVICE',
      message: expect.stringMatching(/another kind/),
    });
    ip('tuntap', 'add', 'dev', 'vvbusy', 'mode', 'tap');
    const { backend } = await started('vvbusy');
    await expect(started('vvbusy')).rejects.toMatchObject({
      code: 'ERR_DEVICE',
      message: expect.stringMatching(/somebody has it/),
    });
    await backend.close();
    expect(taps()).toBe(0);
  });

  it('tells of the interface going down and up, and of its end', async () => {
    const { backend, links, linked, got } = await started('vvlink', { create: true });
    ip('link', 'set', 'vvlink', 'down');
    await linked(1);
    backend.send([{ bytes: new Uint8Array(60) }]);
    ip('link', 'set', 'vvlink', 'name', 'vvnew');
    ip('link', 'set', 'vvnew', 'up');
    await linked(2);
    expect([links, backend.describe()['lost']]).toEqual([[false, true], 1]);
    // The kernel greets a new link (IPv6 neighbour discovery, or a listener's report): frames do come.
    while (got.length === 0) await new Promise((resolve) => setImmediate(resolve));
    ip('link', 'del', 'vvnew');
    await linked(3);
    backend.send([{ bytes: new Uint8Array(60) }]);
    expect([links, backend.describe()['up']]).toEqual([[false, true, false], false]);
    await backend.close();
  });
} else {
  it('a tap is what the kernel has, in a network namespace', { timeout: 120_000 }, async (test) => {
    const reason = whyNoTap();
    if (reason !== undefined) test.skip(reason);
    expect(await runInNamespace(fileURLToPath(import.meta.url))).toEqual({ passed: 4, others: [] });
  });
}
