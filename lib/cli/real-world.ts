/**
 * The commands' world joined to the other rooms. Each room is loaded when it is first used, since loading costs a
 * command that needs little of it, most of all inside the embedded host.
 */
import { statfs } from 'node:fs/promises';
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { hostClock } from '../base/clock.js';
import { cacheRoot } from '../base/user-folders.js';
import type { CommandIo } from '../base/command-io.js';
import { VmmError } from '../base/errors.js';
import type * as Host from '../host/index.js';
import type { Worlds } from './main-command.js';
import type { KernelImage } from '../images/kernel.js';
import { namedMachines, openControl } from './named-machines.js';
import { type InsideNetworks, networkOf } from './networks.js';
import type { ControlWorld } from './control-world.js';
import type { DashboardWorld } from '../dashboard/index.js';
import type { DoctorWorld, KvmFacts } from './doctor.js';
import type { SnapshotsWorld } from './snapshots-command.js';
import type { HostChoice, KernelChoice, RunWorld } from './world.js';

/** The world of a command on the user's own machine. */
export const outerWorlds: Worlds = {
  run: (io) => Promise.resolve(runWorld(io, false)),
  doctor: (io) => Promise.resolve(doctorWorld(io)),
  snapshots: snapshotsWorld,
  control: controlWorld,
  dashboard: dashboardWorld,
};

/** The world of a command inside the embedded host. */
export const innerWorlds: Worlds = {
  run: (io) => Promise.resolve(runWorld(io, true)),
  doctor: (io) => Promise.resolve(doctorWorld(io)),
  snapshots: snapshotsWorld,
  control: controlWorld,
  dashboard: dashboardWorld,
};

async function snapshotsWorld(): Promise<SnapshotsWorld> {
  const { snapshots } = await import('../snapshot/index.js');
  return { clock: hostClock, store: snapshots };
}

async function controlWorld(): Promise<ControlWorld> {
  const control = await import('../control/index.js');
  return {
    clock: hostClock,
    connect: (name, signal) => control.connect(name, { signal }),
    list: () => control.listMachines(),
    scrape: () => control.scrapeMachines(),
    names: () => control.listRecords().map(({ name }) => name),
    listEnded: () => control.listEndedMachines(),
    ended: (name) => control.endedRecordOf(name),
    endedOutput: (name) => control.endedOutputOf(name),
  };
}

async function dashboardWorld(): Promise<DashboardWorld> {
  const [control, { snapshots }] = await Promise.all([import('../control/index.js'), import('../snapshot/index.js')]);
  return {
    clock: hostClock,
    list: () => control.listMachines(),
    connect: (name, signal) => control.connect(name, { signal }),
    metrics: () => control.scrapeMachines(),
    store: snapshots,
    restore: async (dir, name, options) => {
      const { restoreProcess } = await import('./restore-process.js');
      return restoreProcess(dir, name, options);
    },
  };
}

function runWorld(io: CommandIo, inside: boolean): RunWorld {
  const lentIn: InsideNetworks = { channels: io.channels ?? [], carried: new Map() };
  return {
    clock: hostClock,
    inside,
    chooseHost,
    async defaultKernel(log, signal) {
      const { defaultKernel } = await import('../images/kernel.js');
      return kernelChoice(await defaultKernel({ log, signal }));
    },
    async describeKernel(path) {
      const { bzImageRelease } = await import('../images/kernel.js');
      const release = await bzImageRelease(path);
      const modulesPath = release === undefined ? undefined : join('/lib/modules', release);
      const image: Pick<KernelImage, 'key' | 'release' | 'modulesPath'> | undefined =
        release !== undefined && modulesPath !== undefined && existsSync(join(modulesPath, 'modules.dep'))
          ? { key: `own-${release}`, release, modulesPath }
          : undefined;
      return { path, release, image };
    },
    async keepKernel(path) {
      const { keepUnpackedKernel } = await import('../boot/index.js');
      await keepUnpackedKernel(path, unpackedKernels(io)).catch(() => undefined);
    },
    async defaultInitramfs(kernel, log, signal) {
      const { defaultInitramfs } = await import('../images/initramfs.js');
      return defaultInitramfs({ log, signal, kernel: kernel.image as KernelImage | undefined });
    },
    async createMachine(options, signal) {
      const { name, cpus, memoryBytes, disks, nics, pit, qemuAgent, kernel, initrd, cmdline, logger } = options;
      const machines = await import('../machine/index.js');
      const { Machine, fileDisk, qcow2Disk } = machines;
      const boot = {
        kernel,
        ...(initrd === undefined ? {} : { initrd }),
        cmdline,
        // Inside, 53 MB of kernel come slower from the cache, over 9p, than the guest unpacks its own 14.
        ...(inside ? { entry: 'bzimage' as const } : { cacheDir: unpackedKernels(io) }),
      };
      const lent = disks.map(({ id, path, readOnly, format, limits }) => ({
        id,
        readOnly,
        ...(limits && { limits }),
        backend: format === 'qcow2' ? qcow2Disk(path) : fileDisk(path),
      }));
      const lentNics = nics.map((nic) => ({
        id: nic.id,
        backend: networkOf(nic, machines, lentIn),
        ...(nic.mac === undefined ? {} : { mac: nic.mac }),
        ...(nic.mtuBytes === undefined ? {} : { mtuBytes: nic.mtuBytes }),
        ...(nic.limits && { limits: nic.limits }),
      }));
      const devices = { disks: lent, nics: lentNics, qemuAgent };
      const named = name === undefined ? {} : { name };
      return Machine.create(
        { ...named, cpus, memory: memoryBytes, ...devices, pit: { policy: pit }, boot, logger },
        { signal },
      );
    },
    async describeSnapshot(dir) {
      const { describeSnapshot } = await import('../machine/index.js');
      const { images, bootFiles, ...more } = await describeSnapshot(dir);
      const { toOuterPath } = await import('../host/paths.js');
      // One that was saved inside the embedded host names them as they are called there.
      return {
        ...more,
        images: inside ? images : images.map((image) => ({ ...image, path: toOuterPath(image.path) })),
        bootFiles: inside ? bootFiles : bootFiles.map((file) => toOuterPath(file)),
      };
    },
    async restoreMachine(dir, { nics, ...options }, signal) {
      const machines = await import('../machine/index.js');
      const networks = Object.fromEntries(nics.map((nic) => [nic.id, networkOf(nic, machines, lentIn)]));
      return machines.Machine.restore(dir, { ...options, overrides: { nics: networks }, signal });
    },
    ...namedMachines,
    openControl: (machine, wishes) => openControl(machine, wishes, lentIn.carried),
    async lockDisks(disks) {
      const { lockImages } = await import('../machine/index.js');
      return lockImages(disks);
    },
    async lendNics(nics, logger, signal) {
      const [machines, { lendNics }] = await Promise.all([import('../machine/index.js'), import('./lend-nics.js')]);
      return lendNics(nics, { machines, clock: hostClock, logger, signal });
    },
    innerPath: (path, cwd) => {
      return chosenHost().toInnerPath(path, cwd);
    },
    forward: (argv, commandIo, options) => chosenHost().runInEmbeddedHost(argv, commandIo, options),
  };
}

/** Loaded with the choice of the embedded host: paths are translated, and signals handed over, without a wait. */
let host: typeof Host | undefined;

function chosenHost(): typeof Host {
  if (host === undefined) throw new VmmError('ERR_STATE', 'the embedded host was not chosen');
  return host;
}

async function chooseHost(wish: 'auto' | 'native' | 'embedded'): Promise<HostChoice> {
  const choice = await decide(wish);
  if (choice.host === 'embedded') host = await import('../host/index.js');
  return choice;
}

async function decide(wish: 'auto' | 'native' | 'embedded'): Promise<HostChoice> {
  if (wish === 'embedded') return { host: 'embedded', reason: 'asked for by --kvm embedded' };
  const { probeKvm } = await import('../host/probe.js');
  const facts = await probeKvm();
  if (facts.linuxGuests) return { host: 'native', reason: facts.reason };
  if (wish === 'auto') return { host: 'embedded', reason: facts.reason };
  throw new VmmError('ERR_LINUX_NEEDS_EMBEDDED_HOST', `--kvm native: ${facts.reason}`, {
    cure: facts.cure ?? 'leave --kvm out: the embedded KVM host runs Linux guests',
  });
}

function unpackedKernels({ env }: CommandIo): string {
  return join(cacheRoot(env), 'unpacked-kernels');
}

function kernelChoice(image: KernelImage): KernelChoice {
  return { path: image.path, release: image.release, image };
}

function doctorWorld(io: CommandIo): DoctorWorld {
  return {
    nodeVersion: process.version,
    async addonProblem() {
      const { Kvm } = await import('../kvm/index.js');
      try {
        Kvm.open().close();
      } catch (error) {
        if (error instanceof VmmError && error.code === 'ERR_ADDON_MISSING') {
          const why = error.cause instanceof Error ? error.cause.message.split('\n')[0] : undefined;
          return why ?? error.message;
        }
      }
      return undefined;
    },
    async kvm(): Promise<KvmFacts> {
      const { probeKvm } = await import('../host/probe.js');
      return probeKvm();
    },
    async snapshots() {
      const { canCompress, userFaultSupport } = await import('../memory/index.js');
      try {
        const { lazy, instant } = userFaultSupport('anonymous');
        return { lazy, instant, compresses: canCompress() };
      } catch (error) {
        if (error instanceof VmmError && error.code === 'ERR_ADDON_MISSING') return undefined;
        throw error;
      }
    },
    async fence() {
      const { findLauncher, landlockVersion } = await import('./fence-launch.js');
      const launcher = findLauncher();
      return { launcher: launcher !== undefined, landlock: launcher === undefined ? 0 : landlockVersion(launcher) };
    },
    async qemu() {
      const { locateQemu } = await import('../host/qemu.js');
      try {
        return await locateQemu(io.env);
      } catch {
        return undefined;
      }
    },
    async cached() {
      const { Cache } = await import('../images/cache.js');
      const cache = new Cache(cacheRoot(io.env));
      // Whole entries only; the last by name is as good as any to be named.
      const any = (name: string): string | undefined =>
        listFolder(join(cache.path, name))
          .map((key) => cache.peek(name, key))
          .filter((path) => path !== undefined)
          .at(-1);
      return {
        kernel: cache.current('kernel-cloud'),
        initramfs: any('initramfs'),
        hostImage: any('host-image'),
      };
    },
    async cacheFolder() {
      const path = cacheRoot(io.env);
      // The deepest ancestor that is there says how much room there is, and whether it can be made.
      let there = path;
      while (!existsSync(there)) there = dirname(there);
      const { bavail, bsize } = await statfs(there);
      return { path, freeBytes: bavail * bsize, writable: isWritable(there) };
    },
  };
}

function listFolder(path: string): string[] {
  try {
    return readdirSync(path)
      .filter((name) => !name.startsWith('.') && name !== 'current')
      .sort();
  } catch {
    return [];
  }
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
