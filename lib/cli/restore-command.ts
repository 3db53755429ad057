/**
 * `vivarium restore`: the plan of a guest that a snapshot holds, on this KVM or inside the embedded host. There its nics are lent
 * from outside, by what the snapshot says that they stood on or by --nic; its disks' images keep their names.
 */
import path from 'node:path';
import { AgentClient } from '../agent/client.js';
import type { CommandIo } from '../base/command-io.js';
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
    standsOn: () => standsOn(dir, options, world),
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

async function standsOn(dir: string, options: RestoreCommandOptions, world: RunWorld): Promise<StandsOn> {
  const { chain, images, nics } = await world.describeSnapshot(dir);
  const given = new Map(options.nics.map(({ id, network }) => [id, network.kind]));
  return {
    // What a disk's guest writes goes into an image beside the saved one.
    images: images.map((image) => ({ ...image, readOnly: false })),
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
  const machine = await world
    .restoreMachine(
      folder,
      {
        nics,
        ...(memory && { memory }),
        ...(clock && { clock }),
        ...(called !== undefined && { name: called }),
        start: false,
        logger: report.logger(),
        ...(quiet ? {} : { onProgress: (progress) => bar.show(progress) }),
      },
      signal,
    )
    .finally(() => bar.end());
  const watch = new ProgressWatch(world.clock, 0, () => undefined);
  let control: RunControl | undefined;
  let outcome: Outcome | undefined;
  try {
    report.event('restored', { path: folder }, { progress: `restored from ${folder}` });
    control = link && (await RunControl.open(machine, link, { io, world, watch, hasCommand: false }));
    const agent = control?.agent ?? new AgentClient(machine.channel);
    outcome = await onConsole(machine, io, report, interruption, watch, async () => {
      tellClone(agent, clock, world, signal);
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

/** Its random numbers become its own also where its kernel has no driver for that, and its clock the host's. */
function tellClone(
  agent: AgentClient,
  clock: RestoreCommandOptions['clock'],
  world: RunWorld,
  signal: AbortSignal,
): void {
  const wallMs = clock === undefined || clock === 'step' ? { wallMs: () => world.clock.wallMs() } : {};
  // A guest without an agent has nobody to be told.
  agent.readyAsClone({ timeoutMs: AGENT_MS, signal, ...wallMs }).catch(() => undefined);
}
