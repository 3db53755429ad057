import { createServer } from 'node:http';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import type { DashboardWorld } from '../dashboard/index.js';
import { snapshots } from '../snapshot/index.js';
import { FakeIo } from './fake-world.js';
import { runMain } from './main-command.js';
import { restoreProcess } from './restore-process.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'vivarium-dashboard-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const none = (): Promise<never> => Promise.reject(new Error('not asked for'));
const world: DashboardWorld = {
  clock: new ManualClock(),
  list: () => Promise.resolve([]),
  connect: none,
  metrics: none,
  store: snapshots,
  restore: none,
};

function start(...argv: string[]): { io: FakeIo; status: Promise<number> } {
  const io = new FakeIo({ cwd: folder });
  const worlds = { run: none, doctor: none, snapshots: none, control: none, dashboard: () => Promise.resolve(world) };
  return { io, status: runMain(['dashboard', ...argv], io, worlds) };
}

describe('vivarium dashboard', () => {
  it('prints the URL, serves the page there until Ctrl-C, and leaves nothing behind', async () => {
    const { io, status } = start('--snapshots', 'shelf');
    await expect.poll(() => io.collected.text).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/\?token=[\w-]{43}\n$/);
    const url = io.collected.text.trim();
    expect(existsSync(path.join(folder, 'shelf'))).toBe(true);
    expect((await fetch(url)).headers.get('content-type')).toContain('text/html');
    expect((await fetch(new URL('/', url))).status).toBe(403);
    io.signal('SIGINT');
    expect(await status).toBe(0);
    await expect(fetch(url)).rejects.toThrow();
    expect(io.takesSignals).toBe(false);
    expect(io.stderr.text).toBe('');
  });

  it('prints one object with --json', async () => {
    const { io, status } = start('--json');
    await expect.poll(() => io.collected.text).toMatch(/\n$/);
    expect(JSON.parse(io.collected.text)).toEqual({ url: expect.stringMatching(/^http:/) as string });
    io.signal('SIGTERM');
    expect(await status).toBe(0);
  });

  it('says of a port that is taken how to cure it', async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as AddressInfo;
    const { io, status } = start('--port', String(port));
    expect(await status).toBe(125);
    expect(io.stderr.text).toBe(
      `vivarium: port ${port} of 127.0.0.1 is taken by another program\n` +
        'vivarium: to cure it: another --port, or none: any that is free\n',
    );
    expect(io.collected.text).toBe('');
    await new Promise((resolve) => other.close(resolve));
  });

  it.each([
    [['--port', 'http'], "--port: 'http' is no number from 0 to 65535"],
    [['--port', '70000'], "--port: '70000' is no number from 0 to 65535"],
    [['box'], "dashboard: what is 'box'?"],
    [['--', 'ls'], 'dashboard: there is nothing to put after --'],
  ])('refuses %j', async (argv, text) => {
    const { io, status } = start(...argv);
    expect(await status).toBe(125);
    expect(io.stderr.text).toContain(text);
  });
});

describe('a restore in a process of its own', () => {
  /** What stands for the command: it prints its arguments and these lines, and ends so. */
  function command(lines: readonly string[], status: number): string[] {
    const file = path.join(folder, 'command.mjs');
    const text = `process.stderr.write(${JSON.stringify(lines.map((line) => `${line}\n`).join(''))});
      process.stderr.write(JSON.stringify({ event: 'progress', message: process.argv.slice(2).join(' ') }) + '\\n');
      process.exitCode = ${status};`;
    writeFileSync(file, text);
    return [process.execPath, file];
  }
  const run = async (program: string[], signal = new AbortController().signal) => {
    const told: string[] = [];
    await restoreProcess('/there', 'again', { signal, onProgress: (text) => told.push(text) }, program);
    return told;
  };

  it('hands on what it is at', async () => {
    const lines = [
      '{"event":"start"}',
      '{"event":"progress","bytesDone":1,"bytesTotal":4}',
      'a word of Node',
      '{"event":"exit"}',
    ];
    expect(await run(command(lines, 0))).toEqual([
      'start',
      '25 %',
      'a word of Node',
      'restore -d --json --name again /there',
    ]);
  });

  it('fails as the command does', async () => {
    const lines = ['{"event":"error","code":"ERR_NAME_TAKEN","message":"taken","cure":"another"}'];
    await expect(run(command(lines, 125))).rejects.toMatchObject({
      code: 'ERR_NAME_TAKEN',
      message: 'taken',
      cure: 'another',
    });
    await expect(run(command([], 3))).rejects.toMatchObject({
      code: 'ERR_CONTROL',
      message: 'vivarium restore ended with 3',
    });
    await expect(run([path.join(folder, 'none')])).rejects.toMatchObject({
      message: expect.stringContaining('ENOENT') as string,
    });
  });

  it('is ended with the dashboard', async () => {
    const file = path.join(folder, 'command.mjs');
    writeFileSync(file, 'process.stderr.write("here\\n"); setInterval(() => undefined, 1000);');
    const stop = new AbortController();
    const onProgress = (): void => stop.abort();
    const running = restoreProcess('/there', 'again', { signal: stop.signal, onProgress }, [process.execPath, file]);
    await expect(running).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });
});
