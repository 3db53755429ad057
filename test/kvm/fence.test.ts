/**
 * The process of a machine that was started with `-d`, owned: a script inside it, in the guest's place, tries what a guest would that
 * had broken out. It is the real command with the real launcher; the guest is a flat one that a snapshot holds.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { connect, serveMachine } from '../../lib/control/index.js';
import { fileDisk, Machine, networkSwitch } from '../../lib/machine/index.js';
import { whyNoPasst } from '../../lib/vsp/net/testing-passt.js';
import type { NetSource } from '../../lib/vsp/index.js';
import { snapshots } from '../../lib/snapshot/index.js';
import { assemble } from '../lib/assemble.js';
import { MAIN, Vivarium } from '../lib/command.js';
import { makeGuest } from '../lib/machine.js';
import { SHORTEST } from '../lib/snapshots.js';

/** What is tried, by a name of its own: see test/lib/owned-holder.mjs. */
type Tries = Record<string, readonly (string | number)[]>;

const INSIDE = fileURLToPath(new URL('../lib/owned-holder.mjs', import.meta.url));
const root = mkdtempSync(join(tmpdir(), 'vivarium-fence-'));
const place = (...names: string[]): string => join(root, ...names);
const before = process.env['XDG_RUNTIME_DIR'];

beforeAll(async () => {
  process.env['XDG_RUNTIME_DIR'] = place('run');
  for (const folder of ['run', 'home', 'home/.ssh', 'home/project', 'disks', 'other', 'saved'])
    mkdirSync(place(folder), { mode: 0o700 });
  writeFileSync(place('home/.ssh/id'), 'secret');
  for (const disk of ['disks/own.img', 'other/disk.img']) {
    writeFileSync(place(disk), '');
    truncateSync(place(disk), 1024 * 1024);
  }
  const address = 0x10000;
  const vm = await Machine.create({
    memory: '16MiB',
    disks: [{ id: 'disk0', backend: fileDisk(place('disks/own.img')) }],
    boot: { flat: assemble('count', address, { COUNTER: 0x20000 }), address, mode: 'long64' },
  });
  await vm.snapshot(place('saved/one'), { mode: 'paused' });
  await vm.close();
});
afterAll(() => {
  if (before === undefined) delete process.env['XDG_RUNTIME_DIR'];
  else process.env['XDG_RUNTIME_DIR'] = before;
  rmSync(root, { recursive: true, force: true });
});

/** A machine with a nic on that network, saved. */
async function saveOn(name: string, network: NetSource): Promise<void> {
  const vm = await makeGuest('count', {
    mode: 'long64',
    defines: { COUNTER: 0x20000 },
    nics: [{ id: 'net0', backend: network }],
  });
  await vm.snapshot(place('saved', name), { mode: 'paused' });
  await vm.close();
}

/** Starts the snapshot's machine in a process of its own, in the folder `home/project`; its end is the test's. */
async function start(
  name: string,
  options: readonly string[],
  tries: Tries = {},
  saved = 'one',
): Promise<Record<string, string>> {
  const answer = place('home/project', `${name}.json`);
  const env = {
    HOME: place('home'),
    NODE_OPTIONS: `--import ${pathToFileURL(INSIDE).href}`,
    VIVARIUM_TRY: JSON.stringify({ answer, ...tries }),
    SECRET_TOKEN: 'secret',
  };
  const args = [MAIN, 'restore', '-d', '--name', name, ...options, place('saved', saved)];
  onTestFinished(async () => {
    await connect(name).then(
      (machine) => machine.kill(),
      () => undefined,
    );
  });
  const { status, stderr, stdout } = await new Vivarium(process.execPath, args, {
    env,
    cwd: place('home/project'),
    stdin: '',
  }).ended;
  expect(stderr.replace(/^.*(using|restored from|starting|restore \w+ \d+ %).*\n/gm, '')).toBe('');
  expect([status, stdout.toString()]).toEqual([0, `${name}\n`]);
  await expect.poll(() => existsSync(answer), { timeout: 10_000 }).toBe(true);
  return JSON.parse(readFileSync(answer, 'utf8')) as Record<string, string>;
}

describe('a machine of -d whose process is owned', () => {
  it('reaches its disk, its socket and its folder, and nothing else', async () => {
    const other = await makeGuest('count', { mode: 'long64', defines: { COUNTER: 0x20000 }, name: 'other' });
    const { socketPath } = await serveMachine(other);
    const bystander = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
    onTestFinished(() => void bystander.kill('SIGKILL'));
    const server = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await expect.poll(() => server.listening).toBe(true);
    const { port } = server.address() as { port: number };

    const denied: Tries = {
      secret: ['read', place('home/.ssh/id')],
      secretByLink: ['link', place('home/.ssh/id'), place('home/project/link')],
      home: ['list', place('home')],
      passwords: ['open', '/etc/shadow'],
      secretForAll: ['mode', place('home/.ssh/id')],
      startUp: ['make', place('home/.profile')],
      otherDisk: ['open', place('other/disk.img')],
      otherDiskWritten: ['write', place('other/disk.img')],
      otherDiskMoved: ['move', place('other/disk.img'), place('home/project/disk.img')],
      otherRecord: ['read', join(socketPath, '../machine.json')],
      otherLock: ['remove', join(socketPath, '../lock')],
      otherSocket: ['connect', socketPath],
      ownSnapshotChanged: ['make', place('saved/one/more')],
      memory: ['open', `/proc/${process.pid}/mem`],
      environment: ['read', `/proc/${process.pid}/environ`],
      bystander: ['signal', bystander.pid!],
      shell: ['start', '/bin/sh', '-c', 'true'],
      setUserId: ['start', '/bin/su', '--version'],
      server: ['connect', port, '127.0.0.1'],
      ownServer: ['listen', 0],
      datagram: ['datagram', port],
      disks: ['open', '/dev/vda'],
      kernel: ['open', '/dev/mem'],
    };
    const allowed: Tries = {
      ownDisk: ['open', place('disks/own.img')],
      ownSnapshot: ['read', place('saved/one/manifest.json')],
      ownFolder: ['make', place('home/project/file')],
      ownRuntime: ['make', place('run/vivarium/machines/owned/file')],
      noCore: ['core'],
    };
    const { ...outcomes } = await start('owned', [], { ...denied, ...allowed });
    const refusals = Object.keys(denied).filter((name) => !/^(EACCES|EPERM|ENOENT|ENXIO)$/.test(outcomes[name]!));
    expect(refusals.map((name) => `${name}: ${outcomes[name]}`)).toEqual([]);
    // What is not there at all shows nothing of the fence.
    const missing = Object.keys(denied).filter((name) => /^(ENOENT|ENXIO)$/.test(outcomes[name]!));
    expect(missing.filter((name) => !['disks', 'kernel'].includes(name))).toEqual([]);
    expect(
      Object.keys(allowed)
        .filter((name) => outcomes[name] !== 'done')
        .map((name) => `${name}: ${outcomes[name]}`),
    ).toEqual([]);
    expect(bystander.exitCode ?? bystander.signalCode).toBeNull();
    expect(existsSync(place('other/disk.img'))).toBe(true);
  });

  it('has no new privileges, hardly a capability, filters on all threads, and none of the variables of others', async () => {
    await start('bare', []);
    const machine = await connect('bare');
    const { pid } = machine.record;
    const facts = (await machine.inspect()) as { fence: { landlock: number; sealed: boolean } };
    expect(facts.fence).toMatchObject({ sealed: true });
    expect(facts.fence.landlock).toBeGreaterThan(0);
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    const field = (name: string): string => new RegExp(`^${name}:\\s+(\\S+)`, 'm').exec(status)![1]!;
    expect([field('NoNewPrivs'), field('Seccomp')]).toEqual(['1', '2']);
    const left = (1n << 1n) | (1n << 23n); // CAP_DAC_OVERRIDE, CAP_SYS_NICE
    for (const set of ['CapInh', 'CapAmb']) expect(BigInt(`0x${field(set)}`)).toBe(0n);
    // What programs could be given: an ordinary user may not change that, and no_new_privs holds it.
    const bounding = process.getuid!() === 0 ? ['CapBnd'] : [];
    for (const set of ['CapPrm', 'CapEff', ...bounding]) expect(BigInt(`0x${field(set)}`) & ~left).toBe(0n);
    const environment = (): string => readFileSync(`/proc/${pid}/environ`, 'latin1');
    // Not even its own user may look into it: it is not dumpable.
    if (process.getuid!() === 0) expect(environment()).not.toContain('SECRET_TOKEN');
    else expect(environment).toThrow('EACCES');
  });

  it('is saved into its folder and those that are allowed, and names the option for all others', async () => {
    mkdirSync(place('allowed'));
    await start('saved', ['--allow-path', place('allowed')]);
    const machine = await connect('saved');
    await machine.snapshot(place('home/project/two'), { mode: 'live' });
    await machine.snapshot(place('allowed/three'), { mode: SHORTEST });
    for (const dir of ['home/project/two', 'allowed/three']) await snapshots.verify(place(dir));
    const refused = machine.snapshot(place('other/four'), { mode: 'live' });
    await expect(refused).rejects.toMatchObject({
      code: 'ERR_FENCED',
      cure: expect.stringMatching(/^start the machine with --allow-path .*other/) as string,
    });
    await expect(machine.device('disk0').rebind({ kind: 'file', path: place('other/disk.img') })).rejects.toMatchObject(
      { code: 'ERR_FENCED' },
    );
    expect(machine.state).toBe('running');
  });

  it('in whose home a disk is directly is refused an image beside it, with the option that lets it', async () => {
    writeFileSync(place('home/disk.img'), '');
    truncateSync(place('home/disk.img'), 1024 * 1024);
    const vm = await makeGuest('count', {
      mode: 'long64',
      defines: { COUNTER: 0x20000 },
      disks: [{ id: 'disk0', backend: fileDisk(place('home/disk.img')) }],
    });
    await vm.snapshot(place('saved/home'), { mode: 'paused' });
    await vm.close();
    await expect(start('athome', [], {}, 'home')).rejects.toThrow(new RegExp(`--allow-path ${place('home')}`));
    const secret: Tries = { secret: ['read', place('home/.ssh/id')] };
    expect(await start('allowed', ['--allow-path', place('home')], secret, 'home')).toEqual({ secret: 'done' });
  });

  it('joins the switch that it is on, and is fenced in all else', async () => {
    await saveOn('switched', networkSwitch('lan'));
    const there = networkSwitch('lan');
    await makeGuest('count', { mode: 'long64', defines: { COUNTER: 0x20000 }, nics: [{ id: 'net0', backend: there }] });
    const tries: Tries = {
      secret: ['read', place('home/.ssh/id')],
      shell: ['start', '/bin/true'],
      server: ['connect', 1, '127.0.0.1'],
    };
    expect(await start('switched', [], tries, 'switched')).toEqual({
      secret: 'EACCES',
      shell: 'EPERM',
      server: 'EPERM',
    });
    const { backend } = (await (await connect('switched')).device('net0').contract()) as { backend: unknown };
    expect(backend).toMatchObject({ kind: 'switch', role: 'joined' });
  });

  it('on passt has its paths open, which is said', async () => {
    await saveOn('passt', networkSwitch('lan'));
    const tries: Tries = { secret: ['read', place('home/.ssh/id')], noCore: ['core'] };
    const lack = await whyNoPasst();
    const started = start('passt', ['--nic', 'passt,id=net0'], tries, 'passt');
    if (lack !== undefined) {
      // A host without the program, or without a network for it.
      await expect(started).rejects.toThrow(/passt/);
      return;
    }
    expect(await started).toEqual({ secret: 'done', noCore: 'done' });
    const machine = await connect('passt');
    const { backend } = (await machine.device('net0').contract()) as { backend: unknown };
    expect(backend).toMatchObject({ kind: 'passt', up: true });
    const open = expect.stringMatching(/^passt/) as string;
    expect(await machine.inspect()).toMatchObject({ fence: { landlock: 0, sealed: true, open } });
  });

  it('does what its user may with --no-fence', async () => {
    const outcomes = await start('free', ['--no-fence'], { secret: ['read', place('home/.ssh/id')] });
    expect(outcomes).toEqual({ secret: 'done' });
  });
});
