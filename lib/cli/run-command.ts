/**
 * `vivarium run`: from checked options to an exit status. It chooses the host; on a native one (or inside the embedded
 * one) it makes the machine, joins console or command, and waits for whichever end comes first; otherwise it forwards
 * the whole command into the embedded host. Whatever happens the machine is closed and the terminal given back.
 */
import type { CommandIo } from '../base/command-io.js';
import { AbortError, VmmError } from '../base/errors.js';
import { formatSize } from '../base/units.js';
import { checkMemory } from '../machine/options.js';
import { checkDisk } from './disk-option.js';
import type { EndStatus } from '../machine/status.js';
import { checkImageFile } from './check-files.js';
import { openCommand } from './command-session.js';
import { startHolder } from './detach-command.js';
import { openConsole, type ConsoleEvent, type ConsoleSession } from './console-session.js';
import { ExitStatus, statusOfChild, statusOfMachine, statusOfSignal } from './exit-status.js';
import { FORWARDED, forward, type ForwardContext } from './forward-run.js';
import { Holder } from './holder.js';
import { Interruption } from './interruption.js';
import { kernelCommandLine } from './kernel-cmdline.js';
import type { Images, Outcome } from './outcome.js';
import { describeCpu, ProgressWatch, stalledCpus, type StalledCpu } from './progress-watch.js';
import { flushed } from './pump-output.js';
import { Reporter } from './reporter.js';
import { RunControl, type ControlLink, type NameClaim } from './run-control.js';
import type { RunOptions } from './run-options.js';
import { UsageError } from './usage-error.js';
import type { KernelChoice, RunMachine, RunWorld } from './world.js';

/** How much of the console is shown with a crash. */
const QUOTED_CONSOLE_CHARS = 8000;
/** How long the guest may take to power off after the first Ctrl-C; the second needs no such time. */
const POWER_OFF_MS = 60_000;
/** How long the CPUs of a stalled guest may take to be stopped. */
const STALLED_PAUSE_NS = 5_000_000_000n;

/** `argv` is the command line as it was given, for a process of its own. */
export async function runCommand(
  options: RunOptions,
  outerIo: CommandIo,
  world: RunWorld,
  argv: readonly string[] = [],
): Promise<number> {
  const holder = options.isHolder ? new Holder(outerIo, { hasCommand: options.command !== undefined }) : undefined;
  const io = holder?.io ?? outerIo;
  const report = new Reporter(io, world.clock, options);
  const { interruption, choose } = begin(options, io, world, report);
  const { signal } = interruption;
  const context = { io, world, report, interruption };
  let claim: NameClaim | undefined;
  let outcome: Outcome;
  try {
    outcome = await choose(async (host) => {
      if (options.detach && !options.isHolder) {
        await findImages(options, io, world, report, signal);
        return startHolder(argv, context);
      }
      if (options.name !== undefined) claim = await world.claimName(options.name, host);
      if (claim !== undefined) holder?.logTo(claim.logPath);
      const started = async (): Promise<void> => {
        if (claim === undefined || holder === undefined) return;
        await world.untilReached(claim.record.name, signal);
        holder.ready(claim.record);
      };
      if (host === 'native') return runHere(options, context, claim ?? innerLink(options, io, world), started);
      return forward(options, await findImages(options, io, world, report, signal), { ...context, claim, started });
    });
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

function begin(options: RunOptions, io: CommandIo, world: RunWorld, report: Reporter) {
  const start = {
    cpus: options.cpus,
    memoryBytes: options.memoryBytes,
    ...(options.command === undefined ? {} : { command: options.command }),
  };
  if (!world.inside) report.event('start', start);
  const interruption = new Interruption(io, world.clock, { timeoutMs: options.timeoutMs });
  const choose = async (go: (host: 'native' | 'embedded') => Promise<Outcome>): Promise<Outcome> => {
    // The outer process has checked, and has put the default initramfs in words.
    if (world.inside) return go('native');
    if (options.command !== undefined && options.initrd !== undefined) {
      throw new UsageError('--initrd: a COMMAND runs in the default initramfs, so there is no place for another');
    }
    if (options.nics.some(({ network }) => network.kind === 'carried')) {
      throw new UsageError("--nic: 'carried' is none of tap:NAME, switch:NAME, passt[:HOST:GUEST,...]");
    }
    checkMemorySize(options.memoryBytes);
    // The user's own files first: what is wrong with them has nothing to do with the host.
    checkFiles(options, io.cwd);
    for (const disk of options.disks) checkDisk(disk, io.cwd, true);
    const { host, reason } = await world.chooseHost(options.kvm, interruption.signal);
    const text = `${host === 'native' ? "this machine's KVM" : 'the embedded KVM host'}: ${reason}`;
    report.event(
      'host',
      { host, reason },
      host === 'native' ? { progress: `using ${text}` } : { notice: `using ${text}` },
    );
    return go(host);
  };
  return { interruption, choose };
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

async function findImages(
  options: RunOptions,
  io: CommandIo,
  world: RunWorld,
  report: Reporter,
  signal: AbortSignal,
): Promise<Images> {
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

/** Inside the embedded host: the channel over which the process outside carries connections. */
function innerLink({ control }: RunOptions, io: CommandIo, world: RunWorld): ControlLink | undefined {
  if (control === undefined) return undefined;
  const { record, channel } = control;
  return { record, listen: (accept) => world.takeCarried(io.channels![channel]!, accept) };
}

async function runHere(
  options: RunOptions,
  { io, world, report, interruption }: ForwardContext,
  link: ControlLink | undefined,
  onReached: () => Promise<void>,
): Promise<Outcome> {
  const { signal } = interruption;
  const images = await findImages(options, io, world, report, signal);
  const isNamed = options.control?.hasAgent ?? (link !== undefined && options.initrd === undefined);
  const size = options.command === undefined ? io.terminalSize() : undefined;
  const cmdline = kernelCommandLine({ ...options, isNamed }, size);
  const { cpus, memoryBytes, nics, pit } = options;
  const disks = options.disks.map((disk) => ({ ...disk, path: checkDisk(disk, io.cwd, !world.inside) }));
  const machine = await world.createMachine(
    { name: link?.record.name, cpus, memoryBytes, disks, nics, pit, ...images, cmdline, logger: report.logger() },
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
        : await withCommand(machine, options.command, { io, world, report, interruption, watch, control, started });
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

/** The console until the guest ends, or something ends it. */
export async function onConsole(
  machine: RunMachine,
  io: CommandIo,
  report: Reporter,
  interruption: Interruption,
  watch: ProgressWatch,
  started: () => Promise<void> = () => Promise.resolve(watch.start()),
): Promise<Outcome> {
  let console: ConsoleSession | undefined;
  try {
    report.raw = io.stdinIsTerminal;
    const onEvent = (event: ConsoleEvent): void => {
      if (event === 'dropped-input') {
        report.event('dropped-input', {}, { notice: 'the guest takes no input; what is typed now is dropped' });
        return;
      }
      report.raw = false;
      interruption.end({ kind: event });
    };
    console = openConsole(machine, io, onEvent, () => watch.alive());
    askBySignal(interruption, report, () => powerButton(machine, interruption));
    await machine.start();
    await started();
    const end = await untilEnd(machine, interruption);
    // A reader that takes its time gets the rest; an interrupted run waits for nobody.
    if (!interruption.signal.aborted) await Promise.race([console.outputDone, aborted(interruption.signal)]);
    console.close();
    report.raw = false;
    if (end === undefined) throw new AbortError(interruption.signal);
    return outcomeOfGuest(end, machine, report, interruption, { consoleWasShown: true });
  } finally {
    console?.close();
    report.raw = false;
  }
}

/** The command's end, or the guest's before it. */
async function withCommand(
  machine: RunMachine,
  command: readonly string[],
  context: ForwardContext & {
    readonly watch: ProgressWatch;
    readonly control: RunControl | undefined;
    readonly started: () => Promise<void>;
  },
): Promise<Outcome> {
  const { world, report, interruption, watch, control, started } = context;
  const { signal } = interruption;
  const wallMs = (): number => world.clock.wallMs();
  const io = control?.io ?? context.io;
  const session = openCommand({ machine, command, io, report, wallMs, signal, watch, agent: control?.agent });
  session.end.catch(() => undefined);
  askBySignal(interruption, report, () => {
    session.askToEnd();
    powerButton(machine, interruption);
  });
  try {
    await machine.start();
    await started();
    const end = await session.end;
    if (end.by === 'guest') {
      return outcomeOfGuest(end.end, machine, report, interruption, { consoleWasShown: false });
    }
    const { status, outputError } = end.result;
    const fields = { child: status, ...(outputError === undefined ? {} : { outputError: outputError.message }) };
    if (status.kind === 'not-started') {
      const why =
        status.errno === 2 ? 'not found in the guest' : `can't be executed in the guest (errno ${status.errno})`;
      report.warning(
        'command-not-started',
        { command: command[0], errno: status.errno },
        `${command[0] ?? ''}: ${why}`,
      );
    }
    // The first Ctrl-C asked for this end, whatever the command made of it.
    const asked = interruption.asked;
    if (asked !== undefined)
      return { status: statusOfSignal(asked), reason: 'signal', fields: { signal: asked, ...fields } };
    return { status: statusOfChild(status), reason: 'command', fields };
  } catch (error) {
    // A guest that never gets as far as its agent has said why on its console.
    const tellsMore = interruption.timeIsOver || interruption.cause?.kind === 'stalled';
    if (!(error instanceof AbortError) || tellsMore) quoteConsole(machine, report);
    throw error;
  }
}

function askBySignal(interruption: Interruption, report: Reporter, ask: () => void): void {
  interruption.onAsk = () => {
    report.event('power-button', {}, { notice: 'asked the guest to power off; once more ends it at once' });
    ask();
  };
}

function powerButton(machine: RunMachine, interruption: Interruption): void {
  machine.stop({ timeoutMs: POWER_OFF_MS, signal: interruption.signal }).catch((error: unknown) => {
    if (error instanceof VmmError && error.code === 'ERR_TIMEOUT')
      interruption.end({ kind: 'signal', signal: 'SIGINT' });
  });
}

/** Ends a run whose guest shows no progress, with what its CPUs do: they are stopped, so that their registers can be read. */
async function endStalled(machine: RunMachine, interruption: Interruption, clock: RunWorld['clock']): Promise<void> {
  const late = new Promise<void>((resolve) => clock.setTimer(STALLED_PAUSE_NS, resolve));
  await Promise.race([machine.pause().catch(() => undefined), late]);
  let cpus: readonly StalledCpu[] = [];
  try {
    cpus = stalledCpus(machine.inspect());
  } catch {
    // It ends all the same.
  }
  interruption.end({ kind: 'stalled', cpus });
}

/** How the machine ended; undefined when the run was ended first. */
async function untilEnd(machine: RunMachine, interruption: Interruption): Promise<EndStatus | undefined> {
  return Promise.race([machine.wait(), aborted(interruption.signal)]);
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}

function quoteConsole(machine: RunMachine, report: Reporter): void {
  const text = machine.console.text.slice(-QUOTED_CONSOLE_CHARS);
  report.quote("the guest's console", text);
}

function outcomeOfGuest(
  end: EndStatus,
  machine: RunMachine,
  report: Reporter,
  interruption: Interruption,
  { consoleWasShown }: { consoleWasShown: boolean },
): Outcome {
  const detail = end.detail === undefined ? {} : { detail: end.detail };
  const status = statusOfMachine(end);
  if (end.reason === 'killed') {
    report.event('guest-killed', {}, { notice: 'the guest was killed' });
  } else if (status !== ExitStatus.OK) {
    const what = { crash: 'the guest crashed', panic: "the guest's kernel panicked", failed: 'the machine failed' };
    const title = what[end.reason as keyof typeof what] ?? `the machine ended: ${end.reason}`;
    if (!consoleWasShown) quoteConsole(machine, report);
    report.warning(
      'guest-failed',
      { reason: end.reason, ...detail },
      `${title}: ${end.detail ?? 'nothing more is known'}`,
    );
  } else if (interruption.asked !== undefined) {
    const signal = interruption.asked;
    return { status: statusOfSignal(signal), reason: 'signal', fields: { signal, guest: end.reason } };
  } else if (!consoleWasShown) {
    report.event(
      'guest-ended',
      { guest: end.reason },
      { notice: `the guest ended (${end.reason}) before the command did` },
    );
  }
  return { status, reason: end.reason, fields: detail };
}

export function outcomeOfFailure(
  error: unknown,
  interruption: Interruption,
  options: Pick<RunOptions, 'timeoutMs' | 'stallTimeoutMs' | 'command'>,
  report: Reporter,
): Outcome {
  const { cause } = interruption;
  if (cause !== undefined && (error instanceof AbortError || interruption.signal.aborted)) {
    switch (cause.kind) {
      case 'timeout': {
        const seconds = (options.timeoutMs ?? 0) / 1000;
        report.warning('timeout', { seconds }, `--timeout ${seconds}: the time is over`);
        return { status: ExitStatus.TIMEOUT, reason: 'timeout' };
      }
      case 'stalled': {
        const seconds = options.stallTimeoutMs / 1000;
        const sign = options.command === undefined ? 'not a byte on its console' : 'no word of its agent, no progress';
        const where = cause.cpus.map(describeCpu).join('; ');
        report.warning(
          'stalled',
          { seconds, cpus: cause.cpus },
          `the guest shows no sign of life: ${sign} for ${seconds} s (--stall-timeout)${where === '' ? '' : `; ${where}`}`,
        );
        return { status: ExitStatus.CRASH, reason: 'stalled' };
      }
      case 'signal':
        return { status: statusOfSignal(cause.signal), reason: 'signal', fields: { signal: cause.signal } };
      case 'closed-output':
        return { status: statusOfSignal('SIGPIPE'), reason: 'closed-output' };
      case 'left':
        report.event('left', {}, { notice: 'left the console; the guest is ended' });
        return { status: ExitStatus.OK, reason: 'left' };
    }
  }
  report.failure(error);
  return { status: ExitStatus.FAILURE, reason: 'failure' };
}
