/**
 * Which paths, capabilities and variables the process that holds a machine keeps: from what the machine stands on to the rules of its
 * launcher. Looks at files to resolve them; starts nothing.
 */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  openSync,
  readSync,
  realpathSync,
  statSync,
} from 'node:fs';
import { userInfo } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { VmmError } from '../base/errors.js';
import { type FenceAsked, type FenceNetworks, isWithin, realPathOf } from '../base/fence.js';
import { cacheRoot } from '../base/user-folders.js';
import { type Header, HEADER_READ_BYTES, parseHeader } from '../vsp/block/qcow2/header.js';

/** What a machine stands on, with absolute paths. */
export interface StandsOn {
  readonly images: readonly FencedImage[];
  /** Kernel, initrd, folders of snapshots. */
  readonly read: readonly string[];
  readonly networks: FenceNetworks;
}

export interface FenceWants extends StandsOn {
  /** Of the machine's own folder in the runtime folder. */
  readonly name: string;
  /** Of --allow-path. */
  readonly allowed: readonly string[];
  /** The command's working folder: where snapshots go whose path is relative. */
  readonly cwd: string;
}

export interface FencedImage {
  readonly path: string;
  readonly readOnly: boolean;
  readonly format: 'raw' | 'qcow2';
}

export interface FencePlan {
  readonly asked: FenceAsked;
  readonly read: readonly string[];
  readonly run: readonly string[];
  readonly devices: readonly string[];
  /** Numbers (linux/capability.h). */
  readonly capabilities: readonly number[];
  /** passt's program, which is started outside of the fence, for a machine that is on it. */
  readonly passt?: string | undefined;
}

/** Folders of this user's, made if need be. A parameter for tests. */
export interface FencePlaces {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Homes of this user: what the environment says, and what the system says. */
  readonly homes: readonly string[];
  runtime(name: string): string;
  /** Of this package and what it loads. */
  readonly packageFolder: string;
  readonly node: string;
}

const CAP_DAC_OVERRIDE = 1;
const CAP_NET_ADMIN = 12;
const CAP_SYS_PTRACE = 19;
const CAP_SYS_NICE = 23;
/** What a program of this system needs to run at all, and Node. */
const SYSTEM_LIBRARIES = ['/usr', '/lib', '/lib64', '/nix/store', '/gnu/store'];
const SYSTEM_FILES = [
  '/etc/ld.so.cache',
  '/etc/ssl/openssl.cnf',
  '/etc/pki/tls/openssl.cnf',
  '/etc/crypto-policies',
  '/etc/localtime',
  '/etc/timezone',
  '/etc/machine-id',
  '/etc/passwd',
  '/etc/nsswitch.conf',
  // Where this machine's own kernels are looked for.
  '/boot',
  '/proc',
  '/sys/module',
  '/sys/class',
  '/sys/devices',
  '/sys/fs/cgroup',
  '/sys/kernel/mm',
];
const DEVICES = ['/dev/null', '/dev/zero', '/dev/urandom', '/dev/random', '/dev/userfaultfd'];
const MAX_CHAIN = 64;
const USUAL_PASST = '/usr/bin/passt';

/** @throws VmmError ERR_FENCED when passt lies where the machine may write. */
export function planFence(wants: FenceWants, places: FencePlaces): FencePlan {
  const { networks } = wants;
  const chains = wants.images.flatMap(({ path, format }) => (format === 'qcow2' ? backingFilesOf(path) : []));
  const written = wants.images.filter(({ readOnly }) => !readOnly).map(({ path }) => path);
  // A home as a whole is what the fence is for: files in it are lent one by one, folders below it as such.
  // Beside a block device no image is laid.
  const folders = [wants.cwd, ...written.filter((path) => !isBlockDevice(path)).map((path) => dirname(path))].filter(
    (folder) => !places.homes.some((home) => isWithin(realPathOf(home), realPathOf(folder))),
  );
  const own = [
    join(places.runtime('machines'), wants.name),
    ...(networks.switch ? [places.runtime('switches')] : []),
    ...(networks.tap || networks.switch || networks.passt ? [places.runtime('macs')] : []),
  ];
  const write = unique([...own, ...written, ...folders, ...wants.allowed].map(realPathOf));
  const read = [
    ...SYSTEM_FILES,
    ...[places.env['OPENSSL_CONF'], places.env['LD_LIBRARY_PATH']].flatMap((list) => (list ?? '').split(':')),
    places.packageFolder,
    cacheRoot(places.env),
    ...wants.images.filter(({ readOnly }) => readOnly).map(({ path }) => path),
    ...chains,
    ...wants.read,
  ];
  return {
    asked: { write, networks },
    read: unique(read.filter(isAbsolute)),
    run: [...SYSTEM_LIBRARIES, realpathSync(places.node)],
    devices: [...DEVICES, places.env['VIVARIUM_KVM'] ?? '/dev/kvm', ...(networks.tap ? ['/dev/net/tun'] : [])],
    capabilities: capabilitiesFor(networks),
    ...(networks.passt && { passt: findPasst(places.env['PATH'], write) }),
  };
}

/**
 * Who owns the machine's process must not become what is started outside of it: a program that lies where the machine may write is passed
 * over. Without any, where it would be.
 */
function findPasst(path: string | undefined, write: readonly string[]): string {
  const folders = [...(path ?? '').split(':').filter(isAbsolute), dirname(USUAL_PASST)];
  const found = folders.map((folder) => join(folder, 'passt')).filter(isExecutable);
  const programs = found.length > 0 ? found.map((program) => realpathSync(program)) : [USUAL_PASST];
  const program = programs.find((each) => !write.some((folder) => isWithin(each, folder)));
  if (program !== undefined) return program;
  throw new VmmError(
    'ERR_FENCED',
    `passt: the machine could exchange ${programs.join(', ')}, which lies where it may write`,
    {
      cure: 'start the machine in another folder, with other disks, or with --no-fence',
    },
  );
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** Of the folder with the package: the outermost node_modules, in which is what it depends on, or the package itself. */
export function packageFolderOf(root: string): string {
  const at = root.indexOf('/node_modules/');
  return at < 0 ? root : root.slice(0, at + '/node_modules'.length);
}

function capabilitiesFor({ tap }: FenceNetworks): number[] {
  return [
    // Files of other users that root lends: within the paths that are left.
    CAP_DAC_OVERRIDE,
    // The PIT's own thread, see lib/machine/pit-worker.ts.
    CAP_SYS_NICE,
    ...(tap ? [CAP_NET_ADMIN] : []),
    // Before Linux 6.1 the system call is the only way to serve page faults, and asks for this.
    ...(existsSync('/dev/userfaultfd') ? [] : [CAP_SYS_PTRACE]),
  ];
}

/**
 * The files that an image names, one below the other, as far as a disk on it would open them (vsp/block/qcow2/open.ts): what a guest wrote
 * into a raw one names nothing. What can't be followed is for the machine to refuse.
 */
export function backingFilesOf(image: string): string[] {
  const found: string[] = [];
  for (let path: string | undefined = image; path !== undefined && found.length < MAX_CHAIN;) {
    const backing = backingOf(path);
    if (backing?.format !== 'raw' && backing?.format !== 'qcow2') break;
    const folder: string = dirname(realPathOf(path));
    const file: string = realPathOf(resolve(folder, backing.name));
    if (!isWithin(file, folder) || !statSync(file, { throwIfNoEntry: false })?.isFile()) break;
    found.push(file);
    path = backing.format === 'qcow2' ? file : undefined;
  }
  return found;
}

function backingOf(path: string): Header['backing'] {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return undefined;
  }
  try {
    const { size } = fstatSync(fd);
    const bytes = new Uint8Array(Math.min(size, HEADER_READ_BYTES));
    const count = readSync(fd, bytes, 0, bytes.length, 0);
    return parseHeader(bytes.subarray(0, count), path, size).backing;
  } catch {
    return undefined;
  } finally {
    closeSync(fd);
  }
}

function isBlockDevice(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isBlockDevice() === true;
}

/** By the kinds of networks. */
export function networksOf(kinds: readonly unknown[]): FenceNetworks {
  return { tap: kinds.includes('tap'), switch: kinds.includes('switch'), passt: kinds.includes('passt') };
}

/** Both, since either may be what the user's secrets are in. */
export function homesOf(env: Readonly<Record<string, string | undefined>>): string[] {
  const homes = [env['HOME'] ?? '/'];
  try {
    homes.push(userInfo().homedir);
  } catch {
    // A user without an entry.
  }
  return homes.filter((home) => isAbsolute(home) && home !== '/');
}

function unique(paths: readonly string[]): string[] {
  return [...new Set(paths)].sort();
}
