/**
 * The package as others get it: packed, looked at by publint and arethetypeswrong, installed into an empty folder where no compiler
 * is to be found, and used from there both by `import` and from CommonJS.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  accessSync,
  constants,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cache } from '../../lib/images/cache.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const run = promisify(execFile);

// @ts-expect-error -- a script without types
const { presentNodes } = (await import('../../scripts/lib/other-nodes.mjs')) as {
  presentNodes: (cache: Cache) => Promise<readonly { version: string; path: string }[] | undefined>;
};
const others = await presentNodes(new Cache());
if (others === undefined) throw new Error('other versions of Node are not there: npm run setup');
const OTHER_NODES = others.map(({ version, path: program }) => [version, program] as const);

const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-package-'));
const tools = path.join(folder, 'tools');
const app = path.join(folder, 'app');
const installed = path.join(app, 'node_modules/vivarium');
let tarball = '';
let packed: string[] = [];

/** A PATH with what npm itself needs, and no compiler, cmake or make. */
function environment(more: Record<string, string> = {}): NodeJS.ProcessEnv {
  return { ...process.env, PATH: tools, CC: '', CXX: '', XDG_CACHE_HOME: path.join(folder, 'cache'), ...more };
}

function findOnPath(name: string): string {
  const places = (process.env['PATH'] ?? '').split(path.delimiter).map((place) => path.join(place, name));
  const found = places.find((place) => {
    try {
      accessSync(place, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (found === undefined) throw new Error(`${name} is not on PATH`);
  return found;
}

beforeAll(async () => {
  for (const name of [tools, app]) mkdirSync(name);
  symlinkSync(process.execPath, path.join(tools, 'node'));
  for (const name of ['npm', 'sh', 'sync']) symlinkSync(findOnPath(name), path.join(tools, name));
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: ROOT });
  // What the hooks print stands before it. npm 11 gives a list, later ones an object by name.
  const told = JSON.parse(stdout.slice(stdout.search(/^[[{]$/m))) as Record<string, { files: { path: string }[] }>;
  packed = Object.values(told)[0]!.files.map((file) => file.path);
  tarball = path.join(
    folder,
    readdirSync(folder).find((name) => name.endsWith('.tgz'))!,
  );
  writeFileSync(path.join(app, 'package.json'), JSON.stringify({ name: 'app', private: true }));
  const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', '--omit=optional', tarball];
  await run('npm', install, { cwd: app, env: environment({ npm_config_cache: await npmCache() }) });
}, 300_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function npmCache(): Promise<string> {
  return (await run('npm', ['config', 'get', 'cache'], { cwd: ROOT })).stdout.trim();
}

const GUEST = `
  const code = Uint8Array.of(0xb0, 42, 0xe6, 0xf4); // mov al, 42; out 0xf4, al
  const boot = { flat: code, address: 0x1000, mode: 'real16' };
  const ended = Machine.create({ memory: '1MiB', boot, debugExit: true }).then(async (vm) => {
    await vm.start();
    const status = await vm.wait();
    await vm.close();
    return status.reason + ' ' + status.code;
  });
  console.log(await ended.catch((error) => error.code));
`;

/** A guest that sleeps: saved, restored, reached over its control socket from the same process, and ended. */
const LIFE = `
  import { connect, listMachines, Machine, serveMachine } from 'vivarium';
  const told = { node: process.version };
  try {
    const code = Uint8Array.of(0xf4, 0xeb, 0xfd); // hlt; jmp
    const vm = await Machine.create({ memory: '4MiB', boot: { flat: code, address: 0x1000, mode: 'real16' } });
    await vm.start();
    vm.memory.write(0x8000, Uint8Array.of(1, 2, 3));
    await vm.snapshot(process.argv[1], { mode: 'live' });
    await vm.close();
    const clone = await Machine.restore(process.argv[1], { name: 'box' });
    const served = await serveMachine(clone);
    told.names = (await listMachines()).map(({ name }) => name);
    const box = await connect('box');
    told.memory = [...(await box.memory.read(0x8000, 3))];
    await box.pause();
    told.state = clone.state;
    told.end = (await box.kill()).reason;
    await served.close();
    await clone.close();
  } catch (error) {
    told.lack = error.code ?? String(error);
  }
  console.log(JSON.stringify(told));
`;

/** What a guest, or the lack of a /dev/kvm, gives. */
function expected(): string {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return 'debug-exit 42\n';
  } catch {
    return 'ERR_KVM_UNAVAILABLE\n';
  }
}

async function inApp(args: string[], node = process.execPath): Promise<string> {
  return (await run(node, args, { cwd: app, env: environment() })).stdout;
}

describe('the package', () => {
  it('holds what is used, and no sources, tests or maps', () => {
    const folders = new Set(packed.map((file) => file.split('/')[0]!));
    const files = ['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'CMakeLists.txt'];
    expect([...folders].sort()).toEqual([...files, 'dist', 'guest', 'native', 'prebuilds', 'scripts'].sort());
    expect(packed).toContain('prebuilds/linux-x64/vivarium.node');
    accessSync(path.join(installed, 'prebuilds/linux-x64/vivarium-fence'), constants.X_OK);
    expect(packed.filter((file) => /\.test\.|\.map$|(^|\/)(testing|fake-)|^dist\/cli\//.test(file))).toEqual([]);
  });

  it('is what publint and arethetypeswrong want', async () => {
    const tool = (file: string, ...args: string[]) =>
      run(process.execPath, [path.join(ROOT, 'node_modules', file), ...args]);
    expect((await tool('publint/src/cli.js', 'run', tarball, '--strict')).stdout).toContain('All good!');
    // CommonJS reaches an ES module by await import(), which is what this profile holds.
    const { stdout } = await tool(
      '@arethetypeswrong/cli/dist/index.js',
      tarball,
      '--profile',
      'esm-only',
      '-f',
      'json',
    );
    const { analysis } = JSON.parse(stdout) as { analysis: { problems: { kind: string }[] } };
    expect(new Set(analysis.problems.map(({ kind }) => kind))).toEqual(new Set(['CJSResolvesToESM']));
  });

  it('was installed without a compiler, with nothing to build one with', () => {
    expect(readdirSync(installed)).not.toContain('build');
    expect(readdirSync(path.join(app, 'node_modules'))).not.toContain('cmake-js');
  });

  it('runs a guest by import', async () => {
    const text = `import { Machine } from 'vivarium';${GUEST}`;
    expect(await inApp(['--input-type=module', '-e', text])).toBe(expected());
  });

  it('runs a guest from CommonJS by await import()', async () => {
    const text = `(async () => { const { Machine } = await import('vivarium');${GUEST}})();`;
    expect(await inApp(['--input-type=commonjs', '-e', text])).toBe(expected());
  });

  it.each(OTHER_NODES)('does the same, and all that a machine does, under Node %s', async (version, node) => {
    const started = `import { Machine } from 'vivarium';${GUEST}`;
    expect(await inApp(['--input-type=module', '-e', started], node)).toBe(expected());
    const required = `(async () => { const { Machine } = await import('vivarium');${GUEST}})();`;
    expect(await inApp(['--input-type=commonjs', '-e', required], node)).toBe(expected());
    const command = path.join(app, 'node_modules/.bin/vivarium');
    expect(await inApp([command, '--version'], node)).toMatch(/^\d+\.\d+\.\d+\n$/);
    const [snapshot, place] = [path.join(folder, `snap-${version}`), path.join(folder, `run-${version}`)];
    mkdirSync(place, { mode: 0o700 });
    const told = await run(node, ['--input-type=module', '-e', LIFE, snapshot], {
      cwd: app,
      env: environment({ XDG_RUNTIME_DIR: place }),
    });
    expect(JSON.parse(told.stdout)).toEqual(
      expected() === 'debug-exit 42\n'
        ? { node: `v${version}`, names: ['box'], memory: [1, 2, 3], state: 'paused', end: 'killed' }
        : { node: `v${version}`, lack: 'ERR_KVM_UNAVAILABLE' },
    );
  });

  it('has the command', async () => {
    const command = path.join(app, 'node_modules/.bin/vivarium');
    expect(await inApp([command, '--version'])).toMatch(/^\d+\.\d+\.\d+\n$/);
    const told = await inApp([command, 'doctor', '--json']).catch(
      (error: unknown) => (error as { stdout: string }).stdout,
    );
    expect((JSON.parse(told) as { kvm: object }).kvm).toHaveProperty('present');
  });

  it('has the dashboard, with what its page draws by', async () => {
    const command = path.join(app, 'node_modules/.bin/vivarium');
    const child = spawn(process.execPath, [command, 'dashboard', '--json'], { cwd: app, env: environment() });
    try {
      const [line] = (await once(child.stdout, 'data')) as [Buffer];
      const url = new URL((JSON.parse(line.toString()) as { url: string }).url);
      for (const [file, text] of [
        ['/', '<title>vivarium</title>'],
        ['/main.js', 'new Page()'],
        ['/style.css', ':root'],
        ['/vendor/uplot.js', 'uPlot'],
        ['/vendor/xterm.js', 'Terminal'],
        ['/vendor/addon-fit.js', 'FitAddon'],
      ] as const) {
        const answer = await fetch(new URL(`${file}${url.search}`, url));
        expect([file, answer.status]).toEqual([file, 200]);
        expect(await answer.text()).toContain(text);
      }
      const ended = once(child, 'exit');
      child.kill('SIGINT');
      expect(await ended).toEqual([0, null]);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it("has the guest's agent", async () => {
    const agent = path.join(installed, 'dist/images/agent.js');
    const text = `const { guestAgent } = await import(${JSON.stringify(agent)}); console.log((await guestAgent()).path);`;
    const file = (await inApp(['--input-type=module', '-e', text])).trim();
    expect(file.startsWith(folder)).toBe(true);
    const cameAlong = packed.find((name) => name.startsWith('prebuilds/guest/'))!;
    expect(readFileSync(file).equals(readFileSync(path.join(installed, cameAlong)))).toBe(true);
  });

  it('wants a compiler, and says why, where the addon that came along does not load', async () => {
    const addon = path.join(installed, 'prebuilds/linux-x64/vivarium.node');
    writeFileSync(addon, 'no library');
    const { stdout } = await run(process.execPath, [path.join(installed, 'scripts/install.mjs')], {
      env: environment(),
    });
    expect(stdout).toMatch(/the addon is not built \(cmake, a C\+\+ compiler, make missing\)/);
    expect(stdout).toMatch(/of the one that came along: it does not load:[^]*(ELF|too short)/);
  });
});

it.each([
  ['GLIBC_2.34 GLIBC_2.2.5 GLIBCXX_3.4 GLIBCXX_3.4.30', []],
  ['GLIBC_2.38', ['GLIBC_2.38']],
  ['GLIBC_3.1 GLIBCXX_3.4.31', ['GLIBC_3.1', 'GLIBCXX_3.4.31']],
])('of the symbols %s those that Debian 12 lacks are %j', async (text, lacking) => {
  // @ts-expect-error -- a script without types
  const module = (await import('../../scripts/lib/prebuilt.mjs')) as { newerThanPromised: (text: string) => string[] };
  expect(module.newerThanPromised(text)).toEqual(lacking);
});
