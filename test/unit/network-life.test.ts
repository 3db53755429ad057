/**
 * Networks and the ends of processes: passt does not outlive whoever started it, and is started again when it dies; a
 * switch goes on when the process that listened is killed. Needs the built library (test/lib/network-child.mjs).
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it, onTestFinished, type TestContext } from 'vitest';
import { hostClock } from '../../lib/base/clock.js';
import { silentLogger } from '../../lib/base/logger.js';
import type { NetSource } from '../../lib/vsp/index.js';
import { networkSwitch, passt } from '../../lib/vsp/index.js';
import { isInNamespace, makeDefaultRoute, runInNamespace, whyNoTap } from '../../lib/vsp/net/testing-namespace.js';
import { whyNoPasst } from '../../lib/vsp/net/testing-passt.js';

const open = (source: NetSource) =>
  source.open({ id: 'net0', mac: 0x020000000042, logger: silentLogger, clock: hostClock });

/** A child process with a network, once it is open. */
async function child(...args: string[]): Promise<{ process: ChildProcess; description: Record<string, unknown> }> {
  const script = join(import.meta.dirname, '../lib/network-child.mjs');
  const started = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void started.kill('SIGKILL'));
  for await (const line of createInterface(started.stdout)) {
    return { process: started, description: JSON.parse(line) as Record<string, unknown> };
  }
  throw new Error('the child said nothing');
}

async function gone(pid: unknown): Promise<void> {
  // Nobody's child of ours: its end can only be looked for.
  while (existsSync(`/proc/${String(pid)}`)) await delay(5);
}

/** What passt needs of a host is made in a network namespace, where one can be had. */
const whyNoNamespace = isInNamespace ? undefined : whyNoTap();

if (isInNamespace) beforeAll(makeDefaultRoute);
else {
  it('passt lives and dies, in a network namespace', { timeout: 120_000 }, async (context) => {
    if (whyNoNamespace !== undefined) context.skip(whyNoNamespace);
    expect(await runInNamespace(fileURLToPath(import.meta.url))).toEqual({ passed: 4, others: [] });
  });
}

if (isInNamespace || whyNoNamespace !== undefined)
  describe('passt', () => {
    const skipIfLacking = async (context: TestContext) => {
      const reason = await whyNoPasst();
      if (reason !== undefined) context.skip(reason);
    };

    it('goes when whoever started it is killed', async (context) => {
      await skipIfLacking(context);
      const { process, description } = await child('passt');
      expect(existsSync(`/proc/${String(description['pid'])}`)).toBe(true);
      process.kill('SIGKILL');
      await gone(description['pid']);
    });

    it('is started again when it is killed, and goes when it is closed', async (context) => {
      await skipIfLacking(context);
      const backend = await open(passt());
      const links: boolean[] = [];
      let told = () => {};
      backend.start({
        receive: () => {},
        writable: () => {},
        link: (up) => {
          links.push(up);
          told();
        },
      });
      const first = Number(backend.describe()['pid']);
      process.kill(first, 'SIGKILL');
      while (links.length < 2) await new Promise<void>((resolve) => (told = resolve));
      const second = backend.describe()['pid'];
      expect([links, second === first, backend.describe()['restarts']]).toEqual([[false, true], false, 1]);
      await backend.close();
      await gone(second);
    });

    it('says that a port is taken', async (context) => {
      await skipIfLacking(context);
      const server = createServer().listen(0, '127.0.0.1');
      onTestFinished(() => void server.close());
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      const expected = {
        code: 'ERR_DEVICE',
        message: expect.stringContaining(String(port)),
        cure: expect.stringMatching(/another port/),
      };
      await expect(open(passt({ forwards: [{ host: port, guest: 80 }] }))).rejects.toMatchObject(expected);
    });

    it('is missed where it is not installed', async () => {
      const { PATH } = process.env;
      onTestFinished(() => void (process.env['PATH'] = PATH));
      process.env['PATH'] = '/nowhere';
      await expect(open(passt())).rejects.toMatchObject({
        code: 'ERR_SETUP',
        cure: expect.stringMatching(/npm run setup/),
      });
    });
  });

if (!isInNamespace)
  describe('a switch', () => {
    it('goes on when the process that listened is killed', async () => {
      const folder = await mkdtemp(join(tmpdir(), 'vivarium-switch-'));
      onTestFinished(() => rm(folder, { recursive: true }));
      const first = await child('switch', folder);
      const second = await child('switch', folder);
      const third = await open(networkSwitch('lan', { folder }));
      expect([first, second].map(({ description }) => description['role'])).toEqual(['listening', 'joined']);
      const links: boolean[] = [];
      let told = () => {};
      third.start({ receive: () => told(), writable: () => {}, link: (up) => links.push(up) });
      const heard = () => new Promise<void>((resolve) => (told = resolve));
      await heard();
      first.process.kill('SIGKILL');
      await once(first.process, 'exit');
      while (third.describe()['handovers'] === 0) await delay(5);
      // The second is still there, over whichever of the two listens now.
      await heard();
      second.process.kill('SIGKILL');
      await once(second.process, 'exit');
      while (third.describe()['role'] !== 'listening') await delay(5);
      expect(links).toEqual([]);
      await third.close();
    });
  });
