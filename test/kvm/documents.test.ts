/**
 * Blocks of the documents, run: the programs as they are written, with a line behind them that shows what they came to and closes their
 * machines; the lines of shell typed. The guests are flat ones, and in the place of Linux a kernel of the test's (test/lib/run-block.ts).
 */
import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { serveMachine } from '../../lib/control/index.js';
import { lockFile, userFaultSupport } from '../../lib/memory/index.js';
import { snapshots } from '../../lib/snapshot/index.js';
import { freePort } from '../../lib/vsp/net/testing-far.js';
import { whyNoTap } from '../../lib/vsp/net/testing-namespace.js';
import { whyNoPasst } from '../../lib/vsp/net/testing-passt.js';
import type { Vivarium } from '../lib/command.js';
import { blockNamed } from '../lib/document-blocks.js';
import { RUN_ON_KVM } from '../lib/document-runs.js';
import { makeGuest, startGuest } from '../lib/machine.js';
import { type Ended, Workplace } from '../lib/run-block.js';

/** What a program says in JSON. */
type Shown = ReturnType<JSON['parse']>;
type Name = (typeof RUN_ON_KVM)[number];
function whyNoTun(): string | undefined {
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

const tests: { readonly [name in Name]: (name: Name) => Promise<void> } = {
  'README.md > The library > 1': async (name) => {
    expect(await shown(name, 'status')).toEqual({ reason: 'debug-exit', code: 42 });
  },
  'README.md > The library > 2': async (name) => {
    const { functions, backend, rebinds } = await shown(name, "vm.device('root').contract");
    expect(functions['discard']!.by).toMatch(/^(native|emulated)$/);
    expect({ backend, rebinds }).toMatchObject({ backend: { kind: 'qcow2' }, rebinds: 1 });
  },
  'README.md > The library > 3': async (name) => {
    const backend = await shown(name, "vm.device('agent').contract.backend");
    expect(backend).toMatchObject({ kind: 'unix-socket', connected: false });
    expect(path.basename(backend.path)).toBe('agent.sock');
  },
  'README.md > The library > 4': async (name) => {
    const nics =
      "['net0', 'net1'].map((id) => [vm.device(id).contract.backend.kind, vm.inspect().lent.devices[id].linkUp])";
    const expected = [
      [expect.stringMatching(/record/) as string, false],
      ['passt', true],
    ];
    endedOr(await passtLack(), await run(name, nics), (nics) => expect(nics).toEqual(expected));
  },
  'README.md > The library > 5': async (name) => {
    // Root's taps are what continuous integration promises; an ordinary user has what the node's mode says.
    const lack = whyNoTap() ?? whyNoTun();
    const launcher = [
      'unshare',
      '--net',
      ...(process.getuid!() === 0 ? [] : ['--user', '--map-root-user']),
      'sh',
      '-c',
    ];
    const ended =
      lack === undefined
        ? await run(name, '1', [...launcher, 'ip tuntap add tap0 mode tap && exec "$@"', '-'])
        : await run(name, '1');
    // A host where this user may make no tap: that far, and no further.
    if (lack === undefined) expect(ended).toMatchObject({ status: 0, stdout: '1\n', stderr: '' });
    else expect(ended.stderr).toMatch(/tap0/);
  },
  'README.md > The library > 7': async (name) => {
    const ended = await shown(name, '{ stats, clone: clone.state, vm: vm.state, dir: clone.name }');
    expect(ended).toMatchObject({ clone: 'running', vm: 'running' });
    expect(ended.stats.bytesWritten).toBeGreaterThan(0);
  },
  'docs/guest-time.md > For programs > 1': async (name) => {
    const { phase, books, policy } = await shown(
      name,
      '{ phase, books: [expected, delivered, forgiven, owed], causes, policy: vm.pit.status().policy }',
    );
    // The kernel of these tests never programs the PIT: there is nothing to count.
    expect({ phase, books, policy }).toEqual({ phase: 'stand-down', books: [0, 0, 0, 0], policy: 'custom' });
  },
  'docs/devices.md > For programs > 1': async (name) => {
    const ended = await run(name, '{ held, holdNs, backend: vm.device("root").contract.backend.kind }');
    expect(ended.status, ended.stderr).toBe(0);
    expect(ended.stdout).toMatch(/^root \S+ discard emulated 0 0$/m);
    expect(ended.stdout).toMatch(/^net0 switch send \w+ 0 0$/m);
    expect(JSON.parse(ended.stdout.trim().split('\n').at(-1)!)).toMatchObject({ held: 0 });
  },
  'docs/snapshots.md > Snapshots > 1': async (name) => {
    const machine = `import { Machine as Made, networkSwitch } from 'vivarium';
      const vm = await Made.create({
        boot: { kernel: 'vmlinuz', initrd: 'initrd.img' }, nics: [{ id: 'net0', backend: networkSwitch('docs') }],
      });
      await vm.start();\n`;
    const left = "(await snapshots.list('snapshots')).snapshots.map(({ name }) => name)";
    endedOr(instantLack() ?? (await passtLack()), await run(name, left, undefined, machine), (left) =>
      expect(left).toEqual(['later']),
    );
  },
  'docs/snapshots.md > The command > 1': async (name) => {
    const place = new Workplace();
    const vm = await startGuest('uart-letters');
    await vm.snapshot(place.path('snapshots/old'));
    await vm.snapshot(place.path('snapshots/ready'), { parent: place.path('snapshots/old') });
    await vm.close();
    const shell = place.terminal(`set -ex; ${blockNamed(name)}`);
    await shell.until(/\+ vivarium restore snapshots\/ready[^]*?WXYZ/);
    shell.type('\x1d');
    const { status, stdout } = await shell.ended;
    expect(status, stdout.toString()).toBe(0);
    expect(stdout.toString()).toMatch(/two\r\n$/);
    expect((await place.type('vivarium kill two')).status).toBe(0);
    const { snapshots: left, broken } = await snapshots.list(place.path('snapshots'));
    expect([left.map(({ name }) => name), broken]).toEqual([['ready'], []]);
  },
  'docs/control.md > The socket > 1': async (name) => {
    const place = new Workplace();
    await served(place);
    const { status, stdout, stderr } = await place.type(blockNamed(name));
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/^\{"name":"box".*"state":"running".*\}\s*\{"openapi":"3\.1\.0"/);
  },
  'docs/control.md > Metrics > 1': async (name) => {
    const place = new Workplace();
    await served(place);
    const port = await freePort('127.0.0.1');
    const block = blockNamed(name).replace('9100', String(port));
    const { status, stdout, stderr } = await place.program(`${block}
      const answer = await fetch('http://127.0.0.1:${port}/metrics');
      console.log(answer.headers.get('content-type'), await answer.text());
      process.exit(0);\n`);
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/^text\/plain; version=0\.0\.4; charset=utf-8 /);
    expect(stdout).toMatch(/^vivarium_machine_state\{.*machine="box".*\} 1$/m);
  },
  'docs/control.md > Logs and probes > 1': async (name) => {
    // What the machine itself says there is held by probes.test.ts.
    const slow = { machine: 'box', device: 'root', class: 'block', function: 'flush', bytes: 0, ns: 20e6 };
    const ended = await new Workplace().program(`${blockNamed(name)}
      import { channel } from 'node:diagnostics_channel';
      for (const ns of [20e6, 1e6]) channel('vivarium:request').publish({ ...${JSON.stringify(slow)}, ns });\n`);
    expect(ended).toMatchObject({ status: 0, stdout: 'root: a flush took 20 ms\n' });
  },
  'docs/dashboard.md > The dashboard > 1': async (name) => {
    const place = new Workplace();
    const port = await freePort('127.0.0.1');
    const lines = blockNamed(name).replace('8080', String(port)).trimEnd().split('\n');
    expect(lines).toHaveLength(3);
    for (const line of lines) {
      const dashboard = await dashboardOf(place, line);
      expect((await fetch(dashboard.url)).status).toBe(200);
      if (line.includes('--port')) expect(new URL(dashboard.url).port).toBe(String(port));
      dashboard.child.kill('SIGINT');
      expect((await dashboard.ended).status).toBe(0);
    }
  },
  'docs/dashboard.md > What it shows > 1': async (name) => {
    const place = new Workplace();
    await served(place);
    const dashboard = await dashboardOf(place, 'vivarium dashboard');
    const url = new URL(dashboard.url);
    // As Prometheus asks: the path that it takes unless told otherwise, and the parameters of the block.
    const [, parameter] = /^ +params: \{ (\w+): \['\.\.\.'\] \}$/m.exec(blockNamed(name))!;
    const token = url.searchParams.get(parameter!)!;
    const answer = await fetch(`${url.origin}/metrics?${parameter}=${encodeURIComponent(token)}`);
    expect(answer.status).toBe(200);
    expect(await answer.text()).toMatch(/^vivarium_machine_state\{.*machine="box".*\} 1$/m);
  },
};

/** The value of an expression behind the program of that block. @throws Error when it fails */
async function shown(name: Name, expression: string, launcher?: readonly string[]): Promise<Shown> {
  const { status, stdout, stderr } = await run(name, expression, launcher);
  expect(status, stderr).toBe(0);
  return JSON.parse(stdout.trim().split('\n').at(-1)!);
}

async function run(name: Name, expression: string, launcher?: readonly string[], before = ''): Promise<Ended> {
  const place = new Workplace();
  await place.stock();
  const json = `JSON.stringify(${expression}, (_, value) => (typeof value === 'bigint' ? Number(value) : value))`;
  return place.program(`${before}${blockNamed(name)}\nconsole.log(${json});\nprocess.exit(0);\n`, launcher);
}

/** A machine of the test's that runs, reached as `box` by the programs of that place. */
async function served(place: Workplace): Promise<void> {
  const vm = await makeGuest('uart-letters', { name: 'box' });
  const folder = place.path('run/vivarium/machines');
  const { close } = await serveMachine(vm, { place: { folder, lock: lockFile } });
  onTestFinished(close);
  await vm.start();
}

/** Starts it, and waits until it serves. */
async function dashboardOf(place: Workplace, line: string): Promise<Vivarium & { url: string }> {
  const dashboard = place.start(line);
  onTestFinished(() => void dashboard.child.kill('SIGKILL'));
  const [url] = await dashboard.until(/http:\/\/127\.0\.0\.1:\d+\/\?token=[\w-]+/);
  return Object.assign(dashboard, { url });
}

/** What this host lacks of what a program wants, as the program's own failure names it: then it ends with that, and no sooner. */
const passtLack = async (): Promise<RegExp | undefined> => ((await whyNoPasst()) === undefined ? undefined : /passt/);
const instantLack = (): RegExp | undefined =>
  userFaultSupport('anonymous').instant === undefined ? undefined : /mode 'instant': this host lacks/;

function endedOr(lack: RegExp | undefined, { status, stdout, stderr }: Ended, check: (shown: Shown) => void): void {
  if (lack !== undefined) return expect(stderr).toMatch(lack);
  expect(status, stderr).toBe(0);
  check(JSON.parse(stdout.trim().split('\n').at(-1)!));
}

describe('run as it is written', () => {
  it.each(Object.keys(tests) as Name[])('%s', (name) => tests[name](name));
});
