/**
 * What `run` and `restore` have in common, from checked options to an exit status: where the guest runs (here, inside the embedded
 * host, or in a process of its own), the name that others reach it by, and what is said at the end. What each does there is its plan.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import type { CommandIo } from '../base/command-io.js';
import { startHolder } from './detach-command.js';
import type { HolderFence } from './fence-launch.js';
import type { StandsOn } from './fence-plan.js';
import { FORWARDED, forward, type ForwardPlan } from './forward.js';
import { outcomeOfFailure } from './guest-outcome.js';
import { Holder } from './holder.js';
import { Interruption } from './interruption.js';
import type { Outcome } from './outcome.js';
import { flushed } from './pump-output.js';
import { ProgressBar, type ProgressView } from './progress-bar.js';
import { Reporter } from './reporter.js';
import type { ControlLink, NameClaim } from './run-control.js';
import type { HoldingOptions } from './run-options.js';
import { UsageError } from './usage-error.js';
import type { HostChoice, RunWorld } from './world.js';

export interface CommandContext {
  readonly io: CommandIo;
  readonly world: RunWorld;
  readonly report: Reporter;
  readonly interruption: Interruption;
  /** Of work whose end is known. */
  progressView(title: string): ProgressView;
}

/** What others do with the guest while it runs. */
export interface Reaching {
  /** How it is reached; undefined for nobody's. */
  readonly link: ControlLink | undefined;
  /** To be called when the guest runs. */
  readonly onReached: () => Promise<void>;
}

/** `Prepared`: what was made ready in front of the user. */
export interface HostedPlan<Prepared> {
  /** Of the first event. */
  readonly start: Readonly<Record<string, unknown>>;
  /** Looks at the user's own files: what is wrong with them has nothing to do with the host. Undefined: any KVM will do for this guest. */
  check(context: CommandContext): Promise<{ readonly anyKvm: string } | undefined>;
  /** What takes long and can be done in front of the user, before a process of its own is started. */
  prepare(context: CommandContext): Promise<Prepared>;
  /** What the machine stands on here. */
  standsOn(context: CommandContext, prepared: Prepared): Promise<StandsOn>;
  /** On this KVM. */
  here(context: CommandContext, reaching: Reaching): Promise<Outcome>;
  /** In the embedded host. */
  inside(context: CommandContext): Promise<ForwardPlan>;
}

/** `argv` is the command line for a process of its own. */
export async function hostedCommand<Prepared>(
  plan: HostedPlan<Prepared>,
  options: HoldingOptions,
  outerIo: CommandIo,
  world: RunWorld,
  argv: readonly string[],
): Promise<number> {
  const holder = options.isHolder ? new Holder(outerIo, { hasCommand: options.command !== undefined }) : undefined;
  const io = holder?.io ?? outerIo;
  const report = new Reporter(io, world.clock, options);
  if (!world.inside) report.event('start', plan.start);
  const interruption = new Interruption(io, world.clock, { timeoutMs: options.timeoutMs });
  const { signal } = interruption;
  const progressView = (title: string): ProgressView =>
    holder?.progressView(title) ?? new ProgressBar(io, title, options);
  const context = { io, world, report, interruption, progressView };
  let claim: NameClaim | undefined;
  let outcome: Outcome;
  try {
    // Before anything starts a thread of ours, which would have a filter of its own.
    const fence = options.isHolder ? await world.closeFence() : undefined;
    const host = await chooseHost(plan, options, context);
    if (options.detach && !options.isHolder) {
      const prepared = await plan.prepare(context);
      const standsOn = host === 'native' && options.fence ? await plan.standsOn(context, prepared) : undefined;
      outcome = await startHolder(argv, fenceFor(options, io.cwd, argv, standsOn), context, options);
    } else {
      if (options.name !== undefined && !world.inside) claim = await world.claimName(options.name, host);
      if (claim !== undefined) await holder?.logTo(claim.logPath);
      const onReached = async (): Promise<void> => {
        if (claim === undefined || holder === undefined) return;
        // Who is fenced connects to nobody, itself included; it listens.
        if (fence === undefined || fence.networks.switch) await world.untilReached(claim.record.name, signal);
        holder.ready(claim.record);
      };
      const link = claim ?? innerLink(options, io, world);
      outcome =
        host === 'native'
          ? await plan.here(context, { link, onReached })
          : await forward(await plan.inside(context), { ...context, claim, onReached });
    }
  } catch (error) {
    outcome = outcomeOfFailure(error, interruption, options, report);
  } finally {
    interruption.dispose();
  }
  const reason = outcome.reason === FORWARDED ? 'ended' : outcome.reason;
  await claim?.release({ status: outcome.status, reason, ...(holder && { output: holder.output.kept() }) });
  // The process inside has told its own end; a time that is over is told outside.
  const silent = outcome.reason === FORWARDED || (world.inside && interruption.timeIsOver);
  if (!silent) report.event('exit', { status: outcome.status, reason: outcome.reason, ...outcome.fields });
  await Promise.all([flushed(io.stdout), flushed(io.stderr)]);
  return outcome.status;
}

function fenceFor(
  { fence, allowPaths, name }: HoldingOptions,
  cwd: string,
  argv: readonly string[],
  standsOn: StandsOn | undefined,
): HolderFence {
  if (!fence) return 'none';
  if (standsOn === undefined) return 'carries';
  const allowed = allowPaths.map((each) => path.resolve(cwd, each));
  const missing = allowed.find((each) => !existsSync(each));
  if (missing !== undefined) throw new UsageError(`--allow-path: there is no ${missing}`);
  return { ...standsOn, name: name ?? argv[argv.indexOf('--name') + 1]!, allowed, cwd };
}

async function chooseHost(
  plan: HostedPlan<unknown>,
  { kvm, isHolder }: HoldingOptions,
  context: CommandContext,
): Promise<HostChoice['host']> {
  const { world, report, interruption } = context;
  // The outer process has checked.
  if (world.inside) return 'native';
  const any = await plan.check(context);
  const { host, reason } =
    any !== undefined && kvm !== 'embedded'
      ? { host: 'native' as const, reason: any.anyKvm }
      : await world.chooseHost(kvm, interruption.signal);
  const text = `${host === 'native' ? "this machine's KVM" : 'the embedded KVM host'}: ${reason}`;
  report.event(
    'host',
    { host, reason },
    // A process that holds a machine was started by one that has said so.
    host === 'native' || isHolder ? { progress: `using ${text}` } : { notice: `using ${text}` },
  );
  return host;
}

/** Inside the embedded host: the channel over which the process outside carries connections. */
function innerLink({ control }: HoldingOptions, io: CommandIo, world: RunWorld): ControlLink | undefined {
  if (control === undefined) return undefined;
  const { record, channel, networks } = control;
  return {
    record,
    networks: networks === undefined ? undefined : io.channels![networks],
    listen: (accept) => world.takeCarried(io.channels![channel]!, accept),
  };
}
