/** A stock guest in a process of its own: reached by its name from others, until it is stopped. */
import { randomBytes } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { onTerminal, vivarium } from '../lib/command.js';

const NAME = `named-${process.pid}`;
const CLONE = `${NAME}-clone`;
const folder = mkdtempSync(join(tmpdir(), 'vivarium-named-'));

interface Listed {
  readonly name: string;
  readonly state: string;
  readonly pid: number;
}

async function listed(wanted = NAME): Promise<Listed | undefined> {
  const { stdout } = await vivarium(['ps', '--json']);
  return (JSON.parse(stdout.toString()) as Listed[]).find(({ name }) => name === wanted);
}

/** What a shell in the machine of that name prints. */
async function shell(name: string, words: string): Promise<string> {
  const { status, stdout, stderr } = await vivarium(['exec', '--wait', '120', name, '--', 'sh', '-c', words]);
  expect(status, stderr).toBe(0);
  return stdout.toString().trim();
}

/** Machine and clone are moved to another network of this machine, one after the other, and hear each other there. */
async function followsTo(network: string): Promise<void> {
  const refused = await vivarium(['rebind', NAME, 'net0', 'tap:missing']);
  expect([refused.status, refused.stderr]).toEqual([125, expect.stringMatching(/\btap\b/)]);
  const moved = async (name: string): Promise<void> => {
    const { status, stderr } = await vivarium(['rebind', name, 'net0', `switch:${network}`]);
    expect(status, stderr).toBe(0);
    const tree = await vivarium(['inspect', name]);
    expect(JSON.stringify(JSON.parse(tree.stdout.toString()))).toContain(`"name":"${network}"`);
  };
  await moved(NAME);
  expect(await shell(CLONE, 'ping -c 1 -W 2 10.9.0.1 > /dev/null || echo silent')).toBe('silent');
  await moved(CLONE);
  expect(await shell(CLONE, 'ping -c 3 -W 20 10.9.0.1')).toMatch(/[1-3] packets received/);
}

beforeAll(async () => {
  const disk = join(folder, 'disk.img');
  writeFileSync(disk, '');
  truncateSync(disk, 2 ** 20);
  const devices = ['--disk', disk, '--nic', `switch:${NAME}`];
  const { status, stdout, stderr } = await vivarium(['run', '-d', '--name', NAME, ...devices]);
  expect(status, stderr).toBe(0);
  expect(stdout.toString()).toBe(`${NAME}\n`);
});
afterAll(async () => {
  for (const name of [NAME, CLONE]) if ((await listed(name)) !== undefined) await vivarium(['kill', name]);
  rmSync(folder, { recursive: true });
});

describe('run -d', () => {
  it('leaves a machine that is listed, and whose name nobody else gets', async () => {
    const machine = await listed();
    expect(machine).toMatchObject({ name: NAME, state: 'running' });
    expect(() => process.kill(machine!.pid, 0)).not.toThrow();
    const { status, stderr } = await vivarium(['run', '-d', '--name', NAME]);
    expect(status).toBe(125);
    expect(stderr).toContain(`a machine named ${NAME} is there already, held by process ${machine!.pid}`);
  });

  it('runs commands with their streams and statuses', async () => {
    const told = await vivarium(
      ['exec', '--wait', '120', '-e', 'A=b', '-w', '/tmp', NAME, '--', 'sh', '-c', 'pwd; echo $A >&2; cat; exit 7'],
      { stdin: 'from here\n' },
    );
    expect(told).toMatchObject({ status: 7, stderr: 'b\n' });
    expect(told.stdout.toString()).toBe('/tmp\nfrom here\n');
    expect((await vivarium(['exec', NAME, '--', 'no-such-command'])).status).toBe(127);
    expect((await vivarium(['exec', '--timeout', '1', NAME, '--', 'sleep', '100'])).status).toBe(124);
  });

  it('takes files in and gives them out', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'vivarium-named-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const [from, to] = [join(folder, 'from'), join(folder, 'to')];
    mkdirSync(from);
    writeFileSync(join(from, 'data'), randomBytes(300_000));
    writeFileSync(join(from, 'run'), '#!/bin/sh\necho ran', { mode: 0o755 });
    symlinkSync('data', join(from, 'link'));
    expect(await vivarium(['cp', '--quiet', from, `${NAME}:/tmp/files`])).toMatchObject({ status: 0, stderr: '' });
    expect((await vivarium(['exec', NAME, '--', '/tmp/files/run'])).stdout.toString()).toBe('ran\n');
    expect(await vivarium(['cp', '--quiet', `${NAME}:/tmp/files`, to])).toMatchObject({ status: 0, stderr: '' });
    expect(readFileSync(join(to, 'data')).equals(readFileSync(join(from, 'data')))).toBe(true);
    expect(readlinkSync(join(to, 'link'))).toBe('data');
    const missing = await vivarium(['cp', `${NAME}:/no/such/file`, folder]);
    expect(missing.status).toBe(125);
    expect(missing.stderr).toContain(`cp ${NAME}:/no/such/file: `);
  });

  it('carries binary both ways', async () => {
    const data = randomBytes(1_000_000);
    const { status, stdout } = await vivarium(['exec', NAME, '--', 'cat'], { stdin: data });
    expect(status).toBe(0);
    expect(stdout.equals(data)).toBe(true);
  });

  it('gives a command a terminal', async () => {
    const shell = onTerminal([
      'exec',
      '-t',
      '--wait',
      '120',
      NAME,
      '--',
      'sh',
      '-c',
      'tty; stty size; read -r line; echo "<$line>"',
    ]);
    await shell.until(/\/dev\/pts\/\d+\r+\n30 100\r+\n/);
    shell.type('typed\r');
    await shell.until(/<typed>/);
    const { status, stdout } = await shell.ended;
    expect(status).toBe(0);
    expect(stdout.toString()).toMatch(/\[status 0\]\r+\nicanon \r+\necho /);
  });

  it('shows its console to several at once, and goes on when they leave', async () => {
    const [one, two] = [onTerminal(['console', NAME]), onTerminal(['console', NAME])];
    await Promise.all([one.until(/vivarium:~#/), two.until(/vivarium:~#/)]);
    one.type('echo $((6 * 7))\r');
    await Promise.all([one.until(/\n42\r/), two.until(/\n42\r/)]);
    for (const terminal of [one, two]) {
      terminal.type('\x1d');
      const { status, stdout } = await terminal.ended;
      expect(status).toBe(0);
      expect(stdout.toString()).toMatch(/\[status 0\]\r+\nicanon \r+\necho /);
    }
    expect((await listed())?.state).toBe('running');
    expect((await vivarium(['logs', NAME])).stdout.toString()).toContain('42');
  });

  it('is saved while it runs, and a clone of it goes on beside it, on disks of its own and the same network', async () => {
    await shell(NAME, 'echo before > /tmp/mark; echo before > /dev/vda; sync');
    const saved = join(folder, 'saved');
    const done = await vivarium(['snapshot', '--live', NAME, saved]);
    expect(done.status, done.stderr).toBe(0);
    await shell(NAME, 'echo after > /tmp/mark; echo after > /dev/vda; sync');
    const restored = await vivarium(['restore', '-d', '--name', CLONE, saved]);
    expect(restored.status, restored.stderr).toBe(0);
    expect(restored.stdout.toString()).toBe(`${CLONE}\n`);
    const seen = 'cat /tmp/mark; echo 3 > /proc/sys/vm/drop_caches; head -n 1 /dev/vda';
    expect(await shell(CLONE, seen)).toBe('before\nbefore');
    expect(await shell(NAME, seen)).toBe('after\nafter');
    const random = 'head -c 16 /dev/urandom | sha256sum';
    expect(await shell(CLONE, random)).not.toBe(await shell(NAME, random));
    // Two machines with one address: the clone takes another, and they hear each other.
    await shell(
      CLONE,
      'ip link set eth0 down; ip link set eth0 address 02:00:00:00:77:01; ip link set eth0 up; ip addr add 10.9.0.2/24 dev eth0',
    );
    await shell(NAME, 'ip addr add 10.9.0.1/24 dev eth0');
    expect(await shell(CLONE, 'ping -c 1 -W 20 10.9.0.1')).toContain('1 packets received');
    await followsTo(`${NAME}-2`);
    const [behindS, nowS] = [Number(await shell(CLONE, 'date +%s')), Date.now() / 1000];
    expect(Math.abs(nowS - behindS)).toBeLessThan(10);
    expect((await vivarium(['stop', CLONE])).status).toBe(0);
    await expect.poll(() => listed(CLONE)).toBeUndefined();
    expect((await listed())?.state).toBe('running');
  });

  it('is paused, resumed, looked at, and stopped by its power button', async () => {
    expect((await vivarium(['pause', NAME])).status).toBe(0);
    expect((await listed())?.state).toBe('paused');
    expect((await vivarium(['resume', NAME])).status).toBe(0);
    const stats = JSON.parse((await vivarium(['stats', '--json', NAME])).stdout.toString()) as {
      cpus: { exits: number }[];
    };
    expect(stats.cpus[0]!.exits).toBeGreaterThan(0);
    const waiting = vivarium(['wait', NAME]);
    const { status, stdout } = await vivarium(['stop', '--json', NAME]);
    expect(status).toBe(0);
    expect(JSON.parse(stdout.toString())).toMatchObject({ end: { reason: 'poweroff', status: 0 } });
    expect((await waiting).stdout.toString()).toBe('0\n');
    await expect.poll(listed).toBeUndefined();
    expect((await vivarium(['wait', NAME])).stdout.toString()).toBe('0\n');
  });
});
