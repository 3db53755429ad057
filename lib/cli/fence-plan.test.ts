import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { launchFenced } from './fence-launch.js';
import { backingFilesOf, type FenceWants, networksOf, packageFolderOf, planFence } from './fence-plan.js';

const root = realpathSync(mkdtempSync(join(tmpdir(), 'vivarium-fence-plan-')));
afterAll(() => rmSync(root, { recursive: true }));
const home = join(root, 'home');
for (const folder of ['home', 'home/project', 'home/disks', 'run', 'saved']) mkdirSync(join(root, folder));

const places = {
  env: { XDG_CACHE_HOME: join(root, 'cache') },
  homes: [home],
  runtime: (name: string) => join(root, 'run', name),
  packageFolder: '/opt/node_modules',
  node: process.execPath,
};

const plan = (wants: Partial<FenceWants>, env = {}) =>
  planFence(
    { name: 'box', images: [], read: [], networks: networksOf([]), allowed: [], cwd: join(home, 'project'), ...wants },
    { ...places, env: { ...places.env, ...env } },
  );

describe('planFence', () => {
  it('lets the machine change its own folder, its disks, what lies beside them, and the working folder', () => {
    const images = [
      { path: join(home, 'disks/a.img'), readOnly: false, format: 'raw' as const },
      { path: join(root, 'saved/b.img'), readOnly: true, format: 'raw' as const },
    ];
    const { asked, read } = plan({ images, read: ['/boot/vmlinuz'] });
    const own = ['home/disks', 'home/disks/a.img', 'home/project', 'run/machines/box'];
    expect(asked.write).toEqual(own.map((name) => join(root, name)));
    expect(asked.open).toBeUndefined();
    expect(read).toEqual(
      expect.arrayContaining([
        '/boot/vmlinuz',
        join(root, 'saved/b.img'),
        '/opt/node_modules',
        join(root, 'cache/vivarium'),
      ]),
    );
  });

  it('never lends a home as a whole, nor what holds one, but for who says so', () => {
    symlinkSync(home, join(root, 'also-home'));
    const images = [{ path: join(home, 'a.img'), readOnly: false, format: 'raw' as const }];
    for (const cwd of [home, root, '/', join(root, 'also-home')]) {
      expect(plan({ images, cwd }).asked.write).toEqual([join(home, 'a.img'), join(root, 'run/machines/box')].sort());
    }
    expect(plan({ cwd: '/', allowed: [home] }).asked.write).toContain(home);
  });

  it('keeps for a network what that needs, and no more', () => {
    const bare = plan({});
    expect(bare.capabilities).not.toContain(12);
    expect(bare.devices).not.toContain('/dev/net/tun');
    expect(bare.asked.write).not.toContain(join(root, 'run/switches'));
    const tap = plan({ networks: networksOf(['tap']) });
    expect(tap.capabilities).toContain(12);
    expect(tap.devices).toContain('/dev/net/tun');
    expect(plan({ networks: networksOf(['switch']) }).asked.write).toContain(join(root, 'run/switches'));
    const passt = plan({ networks: networksOf(['passt']) });
    expect(passt.capabilities).toEqual(bare.capabilities);
    expect([passt.asked.open, passt.devices, passt.run]).toEqual([undefined, bare.devices, bare.run]);
    expect(bare.passt).toBeUndefined();
  });

  it('has passt started from where the machine can not exchange it', () => {
    for (const folder of ['home/project/bin', 'bin', 'other']) mkdirSync(join(root, folder));
    const [inside, outside] = [join(root, 'home/project/bin/passt'), join(root, 'bin/passt')];
    for (const program of [inside, outside]) writeFileSync(program, '', { mode: 0o755 });
    const passtOf = (path: readonly string[], wants: Partial<FenceWants> = {}) => {
      const env = { PATH: path.map((each) => (each.startsWith('.') ? each : join(root, each))).join(':') };
      return plan({ networks: networksOf(['passt']), ...wants }, env).passt;
    };
    expect(passtOf(['other', 'bin'])).toBe(outside);
    expect(passtOf(['', './bin', 'home/project/bin', 'bin'])).toBe(outside);
    // By the name that it has in the end.
    symlinkSync(inside, join(root, 'other/passt'));
    expect(passtOf(['other', 'bin'])).toBe(outside);
    expect(passtOf([])).toMatch(/^\/.*\/passt$/);
    expect(() => passtOf(['other'], { allowed: ['/usr'] })).toThrow(
      expect.objectContaining({ code: 'ERR_FENCED', message: expect.stringContaining(inside) as string }),
    );
  });

  it('follows the backing files of an image as a disk does, and gives up on what is none', () => {
    const image = (name: string, backing: string, format?: string) => {
      const bytes = Buffer.alloc(512);
      bytes.writeUInt32BE(0x514649fb, 0);
      bytes.writeUInt32BE(3, 4);
      bytes.writeBigUInt64BE(256n, 8);
      bytes.writeUInt32BE(Buffer.byteLength(backing), 16);
      bytes.writeUInt32BE(16, 20);
      bytes.writeBigUInt64BE(2n ** 20n, 24);
      bytes.writeUInt32BE(1, 36);
      bytes.writeBigUInt64BE(65_536n * 3n, 40);
      bytes.writeBigUInt64BE(65_536n, 48);
      bytes.writeUInt32BE(1, 56);
      bytes.writeUInt32BE(4, 96);
      bytes.writeUInt32BE(104, 100);
      if (format !== undefined) {
        bytes.writeUInt32BE(0xe2792aca, 104);
        bytes.writeUInt32BE(format.length, 108);
        bytes.write(format, 112);
      }
      bytes.write(backing, 256);
      const path = join(root, 'saved', name);
      writeFileSync(path, bytes);
      truncateSync(path, 65_536 * 4);
      return path;
    };
    const saved = (name: string) => join(root, 'saved', name);
    const top = image('top.qcow2', 'middle.qcow2', 'qcow2');
    image('middle.qcow2', 'base.img', 'raw');
    // The guest wrote the lowest one, which is raw: what it looks like is its own business.
    image('base.img', '/etc/shadow', 'raw');
    expect(backingFilesOf(top)).toEqual([saved('middle.qcow2'), saved('base.img')]);
    expect(backingFilesOf(join(home, 'nothing'))).toEqual([]);
    expect(backingFilesOf(image('ring.qcow2', 'ring.qcow2', 'qcow2')).length).toBeLessThan(100);
    for (const [name, format] of [
      ['../home/a.img', 'raw'],
      ['/', 'raw'],
      ['.', 'raw'],
      ['base.img', undefined],
    ] as const) {
      expect(backingFilesOf(image('odd.qcow2', name, format))).toEqual([]);
    }
    const { read } = plan({ images: [{ path: top, readOnly: true, format: 'qcow2' }] });
    expect(read).toContain(saved('base.img'));
  });

  it('lends nothing beside a disk that is a device', () => {
    const device = readdirSync('/dev').find((name) => statSync(join('/dev', name)).isBlockDevice());
    if (device === undefined) throw new Error('this machine has no block device to name');
    const images = [{ path: join('/dev', device), readOnly: false, format: 'raw' as const }];
    expect(plan({ images }).asked.write).not.toContain('/dev');
  });

  it('finds the folder of all that the package loads', () => {
    expect(packageFolderOf('/app/node_modules/a/node_modules/vivarium')).toBe('/app/node_modules');
    expect(packageFolderOf('/src/vivarium')).toBe('/src/vivarium');
  });
});

describe('launchFenced', () => {
  it('leaves the variables that a machine needs, and says what was asked', () => {
    const env = { PATH: '/bin', HOME: home, AWS_SECRET_ACCESS_KEY: 'x', NODE_AUTH_TOKEN: 'x', LC_ALL: 'C' };
    const { program, args, env: left } = launchFenced('/fence', plan({}), ['node', 'main.js'], env);
    expect(program).toBe('/fence');
    expect(args.slice(-3)).toEqual(['--', 'node', 'main.js']);
    expect(args.filter((arg) => ['--no-paths', '--passt'].includes(arg))).toEqual([]);
    expect(Object.keys(left).sort()).toEqual(['HOME', 'LC_ALL', 'PATH', 'VIVARIUM_FENCE']);
    expect(JSON.parse(left['VIVARIUM_FENCE']!)).toMatchObject({ networks: { passt: false } });
  });

  it('has passt started for a machine on it, and fences it like any other', () => {
    const on = plan({ networks: networksOf(['passt']) });
    const { args, unfenced } = launchFenced('/fence', on, ['node'], {});
    expect(args[args.indexOf('--passt') + 1]).toBe(on.passt);
    expect(args).not.toContain('--no-paths');
    expect(unfenced).toBeUndefined();
  });

  it('fences no paths of who only carries', () => {
    const { args, env } = launchFenced('/fence', undefined, ['node'], { TOKEN: 'x' });
    expect(args).toContain('--no-paths');
    expect(env).toHaveProperty('TOKEN', 'x');
  });
});
