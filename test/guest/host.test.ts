/**
 * The embedded KVM host for real: QEMU, its broker, the daemon inside. In a runtime folder of its own, so that the
 * user's host, which other tests and people use, is left alone. Each step has a watchdog of its own.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { embeddedHost } from '../../lib/host/index.js';

const folder = mkdtempSync(join(tmpdir(), 'vivarium-host-test-'));
const before = process.env['XDG_RUNTIME_DIR'];
const limit = (seconds: number): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(seconds * 1000) });
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

beforeAll(() => {
  process.env['XDG_RUNTIME_DIR'] = folder;
});
afterAll(async () => {
  await embeddedHost.stop(limit(30)).catch(() => undefined);
  if (before === undefined) delete process.env['XDG_RUNTIME_DIR'];
  else process.env['XDG_RUNTIME_DIR'] = before;
  rmSync(folder, { recursive: true, force: true });
});

describe('the embedded host', { concurrent: false }, () => {
  it('is not there, starts once for two who want it at the same time, and then is', async () => {
    expect(await embeddedHost.status()).toBeUndefined();
    expect(await embeddedHost.stop()).toBe(false);
    const [one, two] = await Promise.all([embeddedHost.start(limit(240)), embeddedHost.start(limit(240))]);
    expect(one.brokerPid).toBe(two.brokerPid);
    expect(await embeddedHost.status()).toMatchObject({ state: 'ready', brokerPid: one.brokerPid, sessions: 0 });
  });

  it('runs a script on /dev/kvm, with arguments, environment, and vivarium to import', async () => {
    const source = `
      import { accessSync, constants } from 'node:fs';
      import { Machine } from 'vivarium';
      accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
      console.log(JSON.stringify([typeof Machine.create, process.argv.slice(2), process.env.VIVARIUM_X]));
      console.error('to stderr');
      process.exitCode = 7;`;
    const options = { args: ['a b', "it's", ''], env: { VIVARIUM_X: 'y' }, ...limit(120) };
    const { status, stdout, stderr } = await embeddedHost.run({ source }, options);
    expect(stderr).toBe('to stderr\n');
    expect(JSON.parse(stdout)).toEqual(['function', ['a b', "it's", ''], 'y']);
    expect(status).toBe(7);
  });

  it('runs the probe guest natively inside: its KVM has the whole of ring 0', async () => {
    const source = `
      delete process.env.VIVARIUM_HOST;
      const { probeKvm } = await import(process.argv[2]);
      console.log(JSON.stringify(await probeKvm({ fresh: true })));`;
    const probe = new URL('../../dist/host/probe.js', import.meta.url).pathname;
    const { stdout, stderr } = await embeddedHost.run({ source }, { args: [probe], ...limit(200) });
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toMatchObject({ accessible: true, vendor: 'AMD', linuxGuests: true });
  });

  it('runs a script where it lies, with its neighbours, its folder and paths that mean the same', async () => {
    writeFileSync(join(folder, 'neighbour.mjs'), 'export const text = "from next door";');
    const script = `
      import { readFileSync, writeFileSync } from 'node:fs';
      import { text } from './neighbour.mjs';
      import * as vivarium from 'vivarium';
      writeFileSync('written', text + Object.keys(vivarium).includes('Machine') + process.cwd());`;
    writeFileSync(join(folder, 'script.mjs'), script);
    const result = await embeddedHost.run('script.mjs', { cwd: folder, ...limit(120) });
    expect(result).toEqual({ status: 0, stdout: '', stderr: '' });
    const { readFileSync } = await import('node:fs');
    expect(readFileSync(join(folder, 'written'), 'utf8')).toBe(`from next doortrue${folder}`);
  });

  it('carries 10 MB of binary both ways unharmed', async () => {
    const data = randomBytes(10 * 1024 * 1024);
    const hash = createHash('sha256');
    let length = 0;
    const { status } = await embeddedHost.run(
      { source: 'process.stdin.pipe(process.stdout);' },
      { stdin: data, onStdout: (bytes) => void (hash.update(bytes), (length += bytes.length)), ...limit(240) },
    );
    expect(status).toBe(0);
    expect(length).toBe(data.length);
    expect(hash.digest('hex')).toBe(sha256(data));
  });

  it('serves one session while another floods a stdout that nobody reads', async () => {
    let full: () => void = () => undefined;
    const flooding = new Promise<void>((resolve) => (full = resolve));
    const stopped = new AbortController();
    const flood = embeddedHost.run(
      { source: `process.stdout.write(Buffer.alloc(64 << 20)); console.error('flooding');` },
      { onStderr: () => full(), signal: stopped.signal, onStdout: () => undefined },
    );
    await flooding;
    const small = await embeddedHost.run({ source: 'console.log(6 * 7)' }, limit(120));
    expect(small.stdout).toBe('42\n');
    stopped.abort();
    await expect(flood).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it('ends a script by a signal when its caller gives up', async () => {
    let started: () => void = () => undefined;
    const running = new Promise<void>((resolve) => (started = resolve));
    const stop = new AbortController();
    const marker = join(folder, 'hung-up');
    const source = `
      import { writeFileSync } from 'node:fs';
      process.on('SIGHUP', () => { writeFileSync(${JSON.stringify(marker)}, ''); process.exit(0); });
      setInterval(() => undefined, 1000);
      console.log('started');`;
    const run = embeddedHost.run({ source }, { onStdout: () => started(), signal: stop.signal });
    await running;
    stop.abort();
    await expect(run).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect.poll(() => readdirSync(folder), { timeout: 60_000 }).toContain('hung-up');
    await expect.poll(async () => (await embeddedHost.status())?.sessions, { timeout: 60_000 }).toBe(0);
  });

  it('says which signal ended a script', async () => {
    const { status } = await embeddedHost.run({ source: `process.kill(process.pid, 'SIGKILL');` }, limit(120));
    expect(status).toBe(128 + 9);
  });

  it('reports the death of QEMU in the middle of a session, and starts again', async () => {
    const running = await embeddedHost.status();
    let started: () => void = () => undefined;
    const up = new Promise<void>((resolve) => (started = resolve));
    const run = embeddedHost.run(
      { source: `console.log('up'); setInterval(() => undefined, 1000);` },
      { onStdout: () => started(), ...limit(240) },
    );
    await Promise.race([up, run]);
    process.kill(running?.qemuPid ?? 0, 'SIGKILL');
    await expect(run).rejects.toMatchObject({
      code: 'ERR_EMBEDDED_HOST',
      message: expect.stringContaining('QEMU was ended by SIGKILL') as string,
    });
    const again = await embeddedHost.run({ source: 'console.log(1)' }, limit(240));
    expect(again.stdout).toBe('1\n');
    expect((await embeddedHost.status())?.brokerPid).not.toBe(running?.brokerPid);
  });

  it('leaves nothing behind when its start is given up', async () => {
    await embeddedHost.stop(limit(30));
    const stop = new AbortController();
    const start = embeddedHost.start({ signal: stop.signal });
    await expect.poll(async () => (await embeddedHost.status())?.state, { timeout: 60_000 }).toBe('starting');
    const status = await embeddedHost.status();
    stop.abort();
    await expect(start).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    const gone = (pid: number | undefined): boolean => {
      try {
        process.kill(pid ?? 0, 0);
        return pid === undefined;
      } catch {
        return true;
      }
    };
    await expect.poll(() => gone(status?.brokerPid), { timeout: 30_000 }).toBe(true);
    await expect.poll(() => gone(status?.qemuPid), { timeout: 30_000 }).toBe(true);
    expect(readdirSync(join(folder, 'vivarium', 'host-run')).filter((name) => /sock|lock/.test(name))).toEqual([]);
  });
});
