/** `vivarium run`: the plan of a guest that is booted, with its images, on a native host or inside the embedded one. */
import path from 'node:path';
import type { CommandIo } from '../base/command-io.js';
import { AbortError } from '../base/errors.js';
import { formatSize } from '../base/units.js';
import { checkMemory } from '../machine/options.js';
import { checkImageFile } from './check-files.js';
import { checkDisk } from './disk-option.js';
import { ExitStatus } from './exit-status.js';
import { networksOf, type StandsOn } from './fence-plan.js';
import type { ForwardPlan } from './forward.js';
import { outcomeOfFailure } from './guest-outcome.js';
import { endStalled, onConsole, withCommand } from './guest-session.js';
import { type CommandContext, hostedCommand, type Reaching } from './hosted-command.js';
import { kernelCommandLine } from './kernel-cmdline.js';
import type { Images, Outcome } from './outcome.js';
import { refuseCarried } from './nic-option.js';
import { ProgressWatch } from './progress-watch.js';
import { innerArguments } from './run-arguments.js';
import { RunControl } from './run-control.js';
import type { RunOptions } from './run-options.js';
import { UsageError } from './usage-error.js';
import type { KernelChoice, RunWorld } from './world.js';

/** `argv` is the command line as it was given, for a process of its own. */
export async function runCommand(
  options: RunOptions,
  io: CommandIo,
  world: RunWorld,
  argv: readonly string[] = [],
): Promise<number> {
  const { cpus, memoryBytes, command } = options;
  const plan = {
    start: { cpus, memoryBytes, ...(command === undefined ? {} : { command }) },
    check: (context: CommandContext) => checkOptions(options, context),
    prepare: (context: CommandContext) => findImages(options, context),
    standsOn: async ({ io }: CommandContext, images: Images) => {
      await world.keepKernel(images.kernel);
      return standsOn(options, images, io.cwd);
    },
    here: (context: CommandContext, reaching: Reaching) => runHere(options, context, reaching),
    inside: (context: CommandContext) => planInside(options, context),
  };
  return hostedCommand(plan, options, io, world, argv);
}

async function checkOptions(options: RunOptions, { io }: CommandContext): Promise<undefined> {
  if (options.command !== undefined && options.initrd !== undefined) {
    throw new UsageError('--initrd: a COMMAND runs in the default initramfs, so there is no place for another');
  }
  refuseCarried(options.nics);
  checkMemorySize(options.memoryBytes);
  checkFiles(options, io.cwd);
  for (const disk of options.disks) checkDisk(disk, io.cwd, true);
  return Promise.resolve(undefined);
}

/** The outer process has put the default initramfs in words. */
async function planInside(options: RunOptions, context: CommandContext): Promise<ForwardPlan> {
  const { io, world } = context;
  const disks = options.disks.map((disk) => ({ ...disk, path: checkDisk(disk, io.cwd, false) }));
  const images = await findImages(options, context);
  return {
    disks,
    nics: options.nics,
    hasAgent: options.initrd === undefined,
    argv: ({ nics, control }) =>
      innerArguments({ ...options, disks, nics, control }, images, (path) => world.innerPath(path, io.cwd)),
  };
}

function standsOn({ disks, nics }: RunOptions, { kernel, initrd }: Images, cwd: string): StandsOn {
  return {
    images: disks.map((disk) => ({ ...disk, path: path.resolve(cwd, disk.path) })),
    read: [kernel, initrd],
    networks: networksOf(nics.map(({ network }) => network.kind)),
  };
}

/** The machine's own check, in the words of the command line, and before another host is asked. */
function checkMemorySize(memoryBytes: number): void {
  try {
    checkMemory(memoryBytes);
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(error.message.replace(/^memory/, '--memory')) : error;
  }
}

function checkFiles(options: RunOptions, cwd: string): { kernel: string | undefined; initrd: string | undefined } {
  const check = (option: string, path: string | undefined): string | undefined =>
    path === undefined ? undefined : checkImageFile(option, path, cwd, options.memoryBytes);
  return { kernel: check('--kernel', options.kernel), initrd: check('--initrd', options.initrd) };
}

async function findImages(options: RunOptions, { io, world, report, interruption }: CommandContext): Promise<Images> {
  const { signal } = interruption;
  const own = checkFiles(options, io.cwd);
  const log = report.logger();
  if (own.kernel !== undefined && own.initrd !== undefined) {
    report.event('images', { kernel: own.kernel, initrd: own.initrd });
    return { kernel: own.kernel, initrd: own.initrd };
  }
  const kernel: KernelChoice =
    own.kernel === undefined ? await world.defaultKernel(log, signal) : await world.describeKernel(own.kernel);
  const initrd = own.initrd ?? (await world.defaultInitramfs(kernel, log, signal));
  const { path, release } = kernel;
  report.event(
    'images',
    { kernel: path, ...(release === undefined ? {} : { release }), initrd },
    { progress: `kernel ${release ?? path}, ${options.cpus} CPU, ${formatSize(options.memoryBytes)}` },
  );
  return { kernel: path, initrd };
}

async function runHere(options: RunOptions, context: CommandContext, { link, onReached }: Reaching): Promise<Outcome> {
  const { io, world, report, interruption } = context;
  const { signal } = interruption;
  const images = await findImages(options, context);
  const isNamed = options.control?.hasAgent ?? (link !== undefined && options.initrd === undefined);
  const size = options.command === undefined ? io.terminalSize() : undefined;
  const cmdline = kernelCommandLine({ ...options, isNamed }, size);
  const { cpus, memoryBytes, nics, pit, qemuAgent } = options;
  const disks = options.disks.map((disk) => ({ ...disk, path: checkDisk(disk, io.cwd, !world.inside) }));
  const machine = await world.createMachine(
    {
      name: link?.record.name,
      cpus,
      memoryBytes,
      disks,
      nics,
      pit,
      qemuAgent,
      ...images,
      cmdline,
      logger: report.logger(),
    },
    signal,
  );
  const watch = new ProgressWatch(world.clock, options.stallTimeoutMs, () => {
    void endStalled(machine, interruption, world.clock);
  });
  const hasCommand = options.command !== undefined;
  let control: RunControl | undefined;
  const started = async (): Promise<void> => {
    watch.start();
    await control?.started();
    await onReached();
  };
  let outcome: Outcome | undefined;
  try {
    if (signal.aborted) throw new AbortError(signal);
    control = link && (await RunControl.open(machine, link, { io, world, watch, hasCommand }));
    report.event('boot', { host: world.inside ? 'embedded' : 'native', cmdline });
    outcome =
      options.command === undefined
        ? await onConsole(machine, io, report, interruption, watch, started)
        : await withCommand(machine, options.command, { ...context, watch, control, started });
    return outcome;
  } catch (error) {
    outcome = outcomeOfFailure(error, interruption, options, report);
    return outcome;
  } finally {
    watch.stop();
    try {
      await machine.close();
    } finally {
      await control?.close(outcome ?? { status: ExitStatus.FAILURE, reason: 'failure' });
    }
  }
}
