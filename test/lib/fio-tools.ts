/**
 * fio for a guest, as a further part of its initramfs, and for this machine. The libraries of storage clusters that Debian's fio is linked
 * with are 80 MB which no test uses: in their place stands one small library that has their names and fails.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { cpioArchive, type CpioEntry } from '../../lib/images/cpio.js';
import { debianFio } from '../../lib/images/fio.js';

const LIBRARIES = 'usr/lib/x86_64-linux-gnu';
const LOADER = '/lib64/ld-linux-x86-64.so.2';
/** What a function of a library that is left out is called like, and of which version of it. */
const LEFT_OUT = /\b((?:glfs|ibv|nbd|pmem|pmemblk|rados|rbd|rdma)_\w+)(?:@+(\S+))?/g;

export interface FioTools {
  /** An archive for an initramfs; fio is in the guest's PATH. */
  readonly cpio: string;
  /** Runs it here. @throws Error with its words when it fails. */
  run(args: readonly string[]): void;
}

/** Makes both in `folder`, which is the caller's to remove. */
export async function fioTools(folder: string): Promise<FioTools> {
  const root = await debianFio();
  const program = path.join(root, 'usr/bin/fio');
  const libraries = path.join(folder, 'libraries');
  mkdirSync(libraries);
  const own = neededBy(program);
  const stub = makeStub(program, libraries);
  for (const [name, found] of own) copyFileSync(found ?? unpacked(root, name) ?? stub, path.join(libraries, name));
  const file = (from: string, to: string): CpioEntry => {
    return { path: to, type: 'file', mode: 0o755, data: readFileSync(from) };
  };
  const cpio = path.join(folder, 'fio.cpio');
  const folders = ['lib64', 'usr', 'usr/bin', 'usr/lib', LIBRARIES];
  writeFileSync(
    cpio,
    cpioArchive([
      ...folders.map((name): CpioEntry => ({ path: name, type: 'directory' })),
      file(LOADER, LOADER.slice(1)),
      file(program, 'usr/bin/fio'),
      ...[...own.keys()].map((name) => file(path.join(libraries, name), path.join(LIBRARIES, name))),
    ]),
  );
  const env = { ...process.env, LD_LIBRARY_PATH: libraries };
  return { cpio, run: (args) => void execFileSync(program, args, { env, stdio: 'pipe' }) };
}

/** One library for all that are left out: the loader wants each symbol in its version. */
function makeStub(program: string, folder: string): string {
  const stub = path.join(folder, 'stub.so');
  const versions = new Map<string, string[]>();
  const source: string[] = [];
  const undefinedNames = execFileSync('nm', ['-D', '--undefined-only', program], { encoding: 'utf8' });
  for (const [, name = '', version] of undefinedNames.matchAll(LEFT_OUT)) {
    source.push(`int ${name}(void) { return -1; }`);
    if (version !== undefined) versions.set(version, [...(versions.get(version) ?? []), name]);
  }
  const script = path.join(folder, 'stub.map');
  writeFileSync(script, [...versions].map(([version, names]) => `${version} { ${names.join('; ')}; };`).join('\n'));
  const options = ['-shared', '-fPIC', '-w', `-Wl,--version-script=${script}`, '-o', stub];
  execFileSync('cc', [...options, '-x', 'c', '-'], { input: source.join('\n') });
  return stub;
}

/** The libraries that a program names, and where this system has them. */
function neededBy(program: string): Map<string, string | undefined> {
  const words = execFileSync('readelf', ['-d', program], { encoding: 'utf8' });
  const names = [...words.matchAll(/NEEDED.*\[(.+)\]/g)].map(([, name]) => name!);
  return new Map(names.map((name) => [name, systemOnly(name)]));
}

/** The C library has to be that of the loader. */
function systemOnly(name: string): string | undefined {
  return /^lib[cm]\.so/.test(name) ? path.join('/', LIBRARIES, name) : undefined;
}

function unpacked(root: string, name: string): string | undefined {
  for (const folder of [LIBRARIES, 'lib/x86_64-linux-gnu']) {
    try {
      const names = readdirSync(path.join(root, folder));
      if (names.includes(name)) return path.join(root, folder, name);
    } catch {
      // A package has its libraries below one of the two.
    }
  }
  return undefined;
}
