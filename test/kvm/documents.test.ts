/**
 * Blocks of the documents, run: the programs as they are written, with a line behind them that shows what they came to and closes their
 * machines; the lines of shell typed. The guests are flat ones, and in the place of Linux a kernel of the test's (test/lib/run-block.ts).
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { whyNoTap } from '../../lib/vsp/net/testing-namespace.js';
import { whyNoPasst } from '../../lib/vsp/net/testing-passt.js';
import { blockNamed } from '../lib/document-blocks.js';
import { RUN_ON_KVM } from '../lib/document-runs.js';
import { type Ended, Workplace } from '../lib/run-block.js';

type Name = (typeof RUN_ON_KVM)[number];
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
    const nics = "['net0', 'net1'].map((id) => [vm.device(id).contract.backend.kind, vm.inspect().lent.devices[id].linkUp])";
    const expected = [
      [expect.stringMatching(/record/) as string, false],
      ['passt', true],
    ];
    await withPasst(await run(name, nics), (nics) => expect(nics).toEqual(expected));
  },
  'README.md > The library > 5': async (name) => {
    const lack = whyNoTap();
    const launcher = ['unshare', '--net', ...(process.getuid!() === 0 ? [] : ['--user', '--map-root-user']), 'sh', '-c'];
    const ended =
      lack === undefined
        ? await run(name, 'lan.status?.() ?? null', [...launcher, 'ip tuntap add tap0 mode tap && exec "$@"', '-'])
        : await run(name, 'null');
    // A host where this user may make no tap: that far, and no further.
    if (lack === undefined) expect(ended).toMatchObject({ status: 0, stderr: '' });
    else expect(ended.stderr).toMatch(/tap0/);
  },
  'README.md > The library > 7': async (name) => {
    const ended = await shown(name, '{ stats, clone: clone.state, vm: vm.state, dir: clone.name }');
    expect(ended).toMatchObject({ clone: 'running', vm: 'running' });
    expect(ended.stats.bytesWritten).toBeGreaterThan(0);
  },
  'docs/snapshots.md > Snapshots > 1': async (name) => {
    const machine = `import { Machine as Made, networkSwitch } from 'vivarium';
      const vm = await Made.create({
        boot: { kernel: 'vmlinuz', initrd: 'initrd.img' }, nics: [{ id: 'net0', backend: networkSwitch('docs') }],
      });
      await vm.start();\n`;
    const left = "(await snapshots.list('snapshots')).map(({ dir, parent }) => [dir, parent ?? null])";
    await withPasst(await run(name, left, undefined, machine), (left) => expect(left).toEqual([]));
  },
};

/** The value of an expression behind the program of that block. @throws Error when it fails */
async function shown(name: Name, expression: string, launcher?: readonly string[]): Promise<any> {
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

/** Where this host lacks what passt wants, a program ends with just that. */
async function withPasst({ status, stdout, stderr }: Ended, check: (shown: any) => void): Promise<void> {
  const lack = await whyNoPasst();
  if (lack === undefined) expect(status, stderr).toBe(0);
  if (lack === undefined) check(JSON.parse(stdout.trim().split('\n').at(-1)!));
  else expect(stderr).toMatch(/passt/);
}

describe('run as it is written', () => {
  it.each(Object.keys(tests) as Name[])('%s', (name) => tests[name](name));
});
