import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, type TestContext } from 'vitest';
import { hostClock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { silentLogger } from '../../base/logger.js';
import type { NetSource } from './source.js';
import { NetSwitch } from './switch.js';
import { SwitchHub } from './switch-link-hub.js';
import { SwitchPlace } from './switch-link-place.js';
import { passt } from './passt.js';
import { tap } from './tap.js';
import { CONFORMANCE, conforms, type ConformanceNetwork } from './testing-conformance.js';
import { isInNamespace, runInNamespace, whyNoTap } from './testing-namespace.js';
import { betweenGuests, echoOverSocket, echoServers, freePort } from './testing-far.js';

const open = (source: NetSource) =>
  source.open({ id: 'net0', mac: 0x020000000042, logger: silentLogger, clock: hostClock });

/** Every check (for a tap inside a network namespace, where nothing else is run), with native functions and without. `lacking` says why the network can't be had here. */
function suite(
  name: string,
  make: () => Promise<ConformanceNetwork>,
  lacking: () => Promise<string | undefined> = () => Promise.resolve(undefined),
): void {
  if (isInNamespace !== (name === 'tap')) return;
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

let passtLack: Promise<string | undefined> | undefined;

/** Not installed, or a host without a network that it could use. */
function whyNoPasst(): Promise<string | undefined> {
  passtLack ??= open(passt()).then(
    async (backend) => {
      await backend.close();
      return undefined;
    },
    (error: unknown) => {
      if (error instanceof VmmError) return error.message;
      throw error;
    },
  );
  return passtLack;
}

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
  whyNoPasst,
);

let taps = 0;

suite('tap', async () => {
  const name = `vvtap${taps++}`;
  const subnet = `10.9.${taps}`;
  const ip = (...args: string[]) => execFileSync('ip', args);
  ip('link', 'set', 'lo', 'up');
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

if (!isInNamespace) {
  it('a tap conforms, in a network namespace', { timeout: 120_000 }, async (context) => {
    const reason = whyNoTap();
    if (reason !== undefined) context.skip(reason);
    const expected = { passed: 2 * CONFORMANCE.length, others: [] };
    expect(await runInNamespace(fileURLToPath(import.meta.url))).toEqual(expected);
  });
}
