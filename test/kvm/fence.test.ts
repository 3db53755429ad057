/**
 * The process of a machine that was started with `-d`, owned: a script inside it, in the guest's place, tries what a guest would that
 * had broken out. It is the real command with the real launcher; the guest is a flat one that a snapshot holds.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { type AddressInfo, connect as connectTo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { findLauncher, landlockVersion } from '../../lib/cli/fence-launch.js';
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

/** Of polls: processes that start and end. */
const PATIENT = { timeout: 10_000 };
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
  const said = stderr.replace(/^.*(using|restored from|starting|restore \w+ \d+ %).*\n/gm, '');
  // Whole: an assertion's message is cut.
  if (said !== '') throw new Error(said);
  expect([status, stdout.toString()]).toEqual([0, `${name}\n`]);
  await expect.poll(() => existsSync(answer), { timeout: 10_000 }).toBe(true);
  return JSON.parse(readFileSync(answer, 'utf8')) as Record<string, string>;
}

/** Undefined on a host without the program, or without a network for it, where it is refused. */
async function startOnPasst(name: string, tries: Tries = {}): Promise<Record<string, string> | undefined> {
  await saveOn(name, networkSwitch('lan'));
  const lack = await whyNoPasst();
  const started = start(name, ['--nic', 'passt,id=net0'], tries, name);
  if (lack === undefined) return started;
  await expect(started).rejects.toThrow(/passt/);
  return undefined;
}

/** No new privileges, filters, and hardly a capability. */
function expectHeld(pid: number): void {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  const field = (name: string): string => new RegExp(`^${name}:\\s+(\\S+)`, 'm').exec(status)![1]!;
  expect([field('NoNewPrivs'), field('Seccomp')]).toEqual(['1', '2']);
  const left = (1n << 1n) | (1n << 23n); // CAP_DAC_OVERRIDE, CAP_SYS_NICE
  for (const set of ['CapInh', 'CapAmb']) expect(BigInt(`0x${field(set)}`)).toBe(0n);
  // What programs could be given: an ordinary user may not change that, and no_new_privs holds it.
  const bounding = process.getuid!() === 0 ? ['CapBnd'] : [];
  for (const set of ['CapPrm', 'CapEff', ...bounding]) expect(BigInt(`0x${field(set)}`) & ~left).toBe(0n);
}

async function backendOf(name: string): Promise<unknown> {
  return ((await (await connect(name)).device('net0').contract()) as { backend: unknown }).backend;
}

const STATE_AND_PARENT = /\) (\S) (\d+) /;

/** Undefined for one that is not there. */
function statOf(pid: number): { readonly state: string; readonly parent: number } | undefined {
  try {
    const [, state, parent] = STATE_AND_PARENT.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))!;
    return { state: state!, parent: Number(parent) };
  } catch {
    return undefined;
  }
}

/** Not one whom nobody has waited for yet. */
function isAlive(pid: number): boolean {
  const { state } = statOf(pid) ?? { state: 'X' };
  return !['Z', 'X'].includes(state);
}

function childrenOf(pid: number): number[] {
  const all = readdirSync('/proc').map(Number).filter(Number.isInteger);
  return all.filter((each) => statOf(each)?.parent === pid && isAlive(each));
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
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
    expectHeld(pid);
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
    await expect((await connect('switched')).device('net0').rebind({ kind: 'passt' })).rejects.toMatchObject({
      code: 'ERR_FENCED',
      cure: expect.stringMatching(/^start the machine with a nic on such a network/) as string,
    });
  });

  it('on passt is fenced as any other, and has passt started by a keeper that it does not reach', async () => {
    const tries: Tries = {
      secret: ['read', place('home/.ssh/id')],
      shell: ['start', '/bin/true'],
      passt: ['start', 'passt', '--version'],
      server: ['connect', 1, '127.0.0.1'],
      keeperMemory: ['ofChild', 'mem'],
      keeperVariables: ['ofChild', 'environ'],
      keeperSignal: ['signalChild'],
      noCore: ['core'],
    };
    const outcomes = await startOnPasst('passt', tries);
    if (outcomes === undefined) return;
    const { secret, shell, passt, server, keeperMemory, keeperVariables, keeperSignal, noCore } = outcomes;
    expect([secret, keeperMemory, keeperVariables]).toEqual(Array(3).fill('EACCES'));
    expect([shell, passt, server, keeperSignal]).toEqual(Array(4).fill('EPERM'));
    expect(noCore).toBe('done');
    const machine = await connect('passt');
    expect(await backendOf('passt')).toMatchObject({ kind: 'passt', up: true, restarts: 0 });
    const { fence } = (await machine.inspect()) as { fence: Record<string, unknown> };
    expect(fence).toMatchObject({ sealed: true, landlock: landlockVersion(findLauncher()!) });
    expect(fence).not.toHaveProperty('open');
    expectHeld(machine.record.pid);
  });

  it('on passt has it started again, and gives it other forwards, but takes no other network', async () => {
    const [port, taken] = [await freePort(), createServer().listen(0, '127.0.0.1')];
    onTestFinished(() => void taken.close());
    await expect.poll(() => taken.listening).toBe(true);
    if ((await startOnPasst('again')) === undefined) return;
    const machine = await connect('again');
    const nic = machine.device('net0');
    const [keeper] = childrenOf(machine.record.pid) as [number];
    const [first] = childrenOf(keeper) as [number];
    process.kill(first, 'SIGKILL');
    await expect.poll(() => backendOf('again'), PATIENT).toMatchObject({ up: true, restarts: 1 });
    const [second] = childrenOf(keeper) as [number];
    expect(second).not.toBe(first);

    const onto = (host: number) => nic.rebind({ kind: 'passt', forwards: [{ host, guest: 80 }] });
    await onto(port);
    await new Promise((resolve, reject) => {
      const client = connectTo(port, '127.0.0.1', () => resolve(client.destroy())).once('error', reject);
    });
    // The old one has gone, and so has who is refused.
    await expect(onto((taken.address() as AddressInfo).port)).rejects.toMatchObject({
      code: 'ERR_DEVICE',
      message: expect.stringContaining('bind') as string,
    });
    await expect.poll(() => childrenOf(keeper), PATIENT).toHaveLength(1);
    expect(childrenOf(keeper)).not.toContain(second);
    for (const other of [{ kind: 'switch', name: 'lan' } as const, { kind: 'tap', name: 'tap0' } as const])
      await expect(nic.rebind(other)).rejects.toMatchObject({ code: 'ERR_FENCED' });

    const [third] = childrenOf(keeper) as [number];
    process.kill(keeper, 'SIGKILL');
    await expect.poll(() => isAlive(keeper), PATIENT).toBe(false);
    // What runs goes on.
    await expect(onto(await freePort())).rejects.toMatchObject({ code: 'ERR_DEVICE', cure: 'start the machine again' });
    expect(await backendOf('again')).toMatchObject({ up: true, forwards: `tcp 127.0.0.1/${port}:80` });
    await machine.kill();
    await expect.poll(() => isAlive(third), PATIENT).toBe(false);
  });

  it('leaves neither passt nor keeper behind, however it ends', async () => {
    if ((await startOnPasst('left')) === undefined) return;
    const { pid } = (await connect('left')).record;
    const [keeper] = childrenOf(pid) as [number];
    const [passt] = childrenOf(keeper) as [number];
    process.kill(pid, 'SIGKILL');
    await expect.poll(() => [pid, keeper, passt].filter(isAlive), PATIENT).toEqual([]);
  });

  it('does what its user may with --no-fence', async () => {
    const outcomes = await start('free', ['--no-fence'], { secret: ['read', place('home/.ssh/id')] });
    expect(outcomes).toEqual({ secret: 'done' });
  });
});
