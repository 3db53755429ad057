/** A machine joined to the command's streams, from its start to its outcome: by its console, or by a COMMAND in it. */
import type { CommandIo } from '../base/command-io.js';
import { AbortError, VmmError } from '../base/errors.js';
import { openCommand } from './command-session.js';
import { openConsole, type ConsoleEvent, type ConsoleSession } from './console-session.js';
import { statusOfChild, statusOfSignal } from './exit-status.js';
import { aborted, outcomeOfGuest, quoteConsole, untilEnd } from './guest-outcome.js';
import type { CommandContext } from './hosted-command.js';
import type { Interruption } from './interruption.js';
import type { Outcome } from './outcome.js';
import { type ProgressWatch, stalledCpus, type StalledCpu } from './progress-watch.js';
import type { Reporter } from './reporter.js';
import type { RunControl } from './run-control.js';
import type { RunMachine, RunWorld } from './world.js';

/** How long the guest may take to power off after the first Ctrl-C; the second needs no such time. */
const POWER_OFF_MS = 60_000;
/** How long the CPUs of a stalled guest may take to be stopped. */
const STALLED_PAUSE_NS = 5_000_000_000n;

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
export async function withCommand(
  machine: RunMachine,
  command: readonly string[],
  context: CommandContext & {
    readonly watch: ProgressWatch;
    readonly control: RunControl | undefined;
    readonly started: () => Promise<void>;
  },
): Promise<Outcome> {
  const { world, report, interruption, watch, control, started } = context;
  const { signal } = interruption;
  const wallMs = (): number => world.clock.wallMs();
  const io = control?.io ?? context.io;
  // A COMMAND has the default initramfs, and with it vivarium's own agent.
  const agent = control?.agents.own;
  const session = openCommand({ machine, command, io, report, wallMs, signal, watch, agent });
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
export async function endStalled(
  machine: RunMachine,
  interruption: Interruption,
  clock: RunWorld['clock'],
): Promise<void> {
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
