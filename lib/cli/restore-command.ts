/**
 * `vivarium restore`: the plan of a guest that a snapshot holds, on this KVM or inside the embedded host. There its nics are lent
 * from outside, by what the snapshot says that they stood on or by --nic; its disks' images keep their names.
 */
import path from 'node:path';
import { GuestAgents } from '../agent/guest-agents.js';
import type { CommandIo } from '../base/command-io.js';
import { VmmError } from '../base/errors.js';
import { fenceOf, isWithin, orFenced, realPathOf } from '../base/fence.js';
import { printable } from '../base/printable.js';
import { cacheRoot } from '../base/user-folders.js';
import { ExitStatus } from './exit-status.js';
import { networksOf, type StandsOn } from './fence-plan.js';
import type { ForwardPlan } from './forward.js';
import { outcomeOfFailure } from './guest-outcome.js';
import { onConsole } from './guest-session.js';
import { type CommandContext, hostedCommand, type Reaching } from './hosted-command.js';
import { type NicChoice, refuseCarried, savedNic } from './nic-option.js';
import type { Outcome } from './outcome.js';
import { ProgressWatch } from './progress-watch.js';
import { innerRestoreArguments, type RestoreCommandOptions } from './restore-options.js';
import { RunControl } from './run-control.js';
import { UsageError } from './usage-error.js';
import type { RunWorld } from './world.js';

/** How long the agent of a restored guest has to answer before nobody waits for it any more: a guest without one never does. */
const AGENT_MS = 60_000;
/** What every fenced process may read, with the user's cache (fence-plan.ts). */
const KERNELS = ['/boot'];
const MAX_SHOWN_FILES = 4;
const MAX_SHOWN_CHARS = 256;
const NOT_TOLD = "the guest's agent does not answer: its calendar stands where the snapshot was taken";

export async function restoreCommand(
  options: RestoreCommandOptions,
  io: CommandIo,
  world: RunWorld,
  argv: readonly string[] = [],
): Promise<number> {
  const dir = path.resolve(io.cwd, options.dir);
  const plan = {
    start: { path: dir },
    check: async () => {
      refuseCarried(options.nics);
      const { kind, nics } = await world.describeSnapshot(dir);
      requireKnown(options.nics, nics);
      return kind === 'flat' ? { anyKvm: "the snapshot's guest is no Linux" } : undefined;
    },
    prepare: () => Promise.resolve(),
    standsOn: (context: CommandContext) => standsOn(dir, options, context),
    here: (context: CommandContext, reaching: Reaching) => restoreHere(dir, options, context, reaching),
    inside: () => planInside(dir, options, world),
  };
  return hostedCommand(plan, options, io, world, argv);
}

async function planInside(dir: string, options: RestoreCommandOptions, world: RunWorld): Promise<ForwardPlan> {
  const { images, nics } = await world.describeSnapshot(dir);
  const given = new Map(options.nics.map((nic) => [nic.id, nic]));
  return {
    disks: images.map((image) => ({ ...image, readOnly: true })),
    disksMayBeHeld: true,
    nics: nics.map(({ id, backend }) => given.get(id) ?? savedNic(id, backend)),
    hasAgent: true,
    argv: (inside) => innerRestoreArguments(options, world.innerPath(dir, '/'), inside),
  };
}

async function standsOn(
  dir: string,
  options: RestoreCommandOptions,
  { io, world, report }: CommandContext,
): Promise<StandsOn> {
  const { chain, images, bootFiles, nics } = await world.describeSnapshot(dir);
  const lent = [...options.allowPaths.map((allowed) => path.resolve(io.cwd, allowed)), ...KERNELS, cacheRoot(io.env)];
  // Any file may be named so: only the user knows which are to be lent.
  const unlent = bootFiles.filter((file) => !lent.some((folder) => isWithin(realPathOf(file), realPathOf(folder))));
  if (unlent.length > 0) {
    const names = unlent.map((file) => printable(file, MAX_SHOWN_CHARS));
    const cure = names.slice(0, MAX_SHOWN_FILES).map((file) => `--allow-path ${file}`);
    const notice = `a guest that resets itself ends, since its process may not read what it starts from; ${cure.join(' ')}: it starts again`;
    report.event('boot-files-not-lent', { files: names.slice(0, MAX_SHOWN_FILES) }, { notice });
  }
  const given = new Map(options.nics.map(({ id, network }) => [id, network.kind]));
  return {
    // What the guest writes to a disk that was cut goes into an image beside it; others are only read.
    images: images.map(({ isCut, ...image }) => ({ ...image, readOnly: !isCut })),
    read: chain,
    networks: networksOf(nics.map(({ id, backend }) => given.get(id) ?? backend['kind'])),
  };
}

function requireKnown(given: readonly NicChoice[], saved: readonly { readonly id: string }[]): void {
  const unknown = given.find(({ id }) => !saved.some((nic) => nic.id === id));
  if (unknown === undefined) return;
  const ids = saved.map(({ id }) => `'${id}'`).join(', ');
  throw new UsageError(`--nic: the snapshot has no nic '${unknown.id}'; it has ${ids === '' ? 'none' : ids}`);
}

async function restoreHere(
  folder: string,
  options: RestoreCommandOptions,
  context: CommandContext,
  { link, onReached }: Reaching,
): Promise<Outcome> {
  const { memory, clock, nics, name, quiet } = options;
  const { io, world, report, interruption } = context;
  const { signal } = interruption;
  const bar = context.progressView(`restore ${path.basename(folder)}`);
  const called = link?.record.name ?? name;
  // Its agent sets the calendar, and no other clock of the guest jumps: to its scheduler a gap is a task that ran all through it.
  const steps = clock === undefined || clock === 'step';
  const byAgent = clock === undefined && (await world.describeSnapshot(folder)).hasAgent;
  const mode = byAgent ? 'freeze' : clock;
  const machine = await world
    .restoreMachine(
      folder,
      {
        nics,
        ...(memory && { memory }),
        ...(mode && { clock: mode }),
        ...(called !== undefined && { name: called }),
        start: false,
        logger: report.logger(),
        ...(quiet ? {} : { onProgress: (progress) => bar.show(progress) }),
      },
      signal,
    )
    .finally(() => bar.end())
    .catch((error: unknown) => {
      throw orFenced(error, fenceOf());
    });
  const watch = new ProgressWatch(world.clock, 0, () => undefined);
  let control: RunControl | undefined;
  let outcome: Outcome | undefined;
  try {
    report.event('restored', { path: folder }, { progress: `restored from ${folder}` });
    control = link && (await RunControl.open(machine, link, { io, world, watch, hasCommand: false }));
    const agents = control?.agents ?? new GuestAgents(machine, { clock: world.clock });
    outcome = await onConsole(machine, io, report, interruption, watch, async () => {
      void tellClone(agents, steps, world, signal).catch((error: unknown) => {
        // A guest without an agent has nobody to be told.
        if (byAgent && error instanceof VmmError && error.code === 'ERR_TIMEOUT') report.logger().log('warn', NOT_TOLD);
      });
      await control?.started();
      await onReached();
    });
    return outcome;
  } catch (error) {
    outcome = outcomeOfFailure(error, interruption, options, report);
    return outcome;
  } finally {
    try {
      await machine.close();
    } finally {
      await control?.close(outcome ?? { status: ExitStatus.FAILURE, reason: 'failure' });
    }
  }
}

/** Its random numbers become its own also where its kernel has no driver for that, and its calendar the host's. */
async function tellClone(agents: GuestAgents, steps: boolean, world: RunWorld, signal: AbortSignal): Promise<void> {
  const wallMs = steps ? { wallMs: () => world.clock.wallMs() } : {};
  await agents.readyAsClone({ timeoutMs: AGENT_MS, signal, ...wallMs });
}
