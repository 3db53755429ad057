/** How a guest's end, or what ended it, becomes an exit status, and what is said of it. */
import { AbortError } from '../base/errors.js';
import type { EndStatus } from '../machine/status.js';
import { ExitStatus, statusOfMachine, statusOfSignal } from './exit-status.js';
import type { Interruption } from './interruption.js';
import type { Outcome } from './outcome.js';
import { describeCpu } from './progress-watch.js';
import type { Reporter } from './reporter.js';
import type { RunOptions } from './run-options.js';
import type { RunMachine } from './world.js';

/** How much of the console is shown with a crash. */
const QUOTED_CONSOLE_CHARS = 8000;

/** What ends of itself are told with. */
export type Limits = Pick<RunOptions, 'timeoutMs' | 'stallTimeoutMs' | 'command'>;

/** How the machine ended; undefined when the command was ended first. */
export async function untilEnd(machine: RunMachine, interruption: Interruption): Promise<EndStatus | undefined> {
  return Promise.race([machine.wait(), aborted(interruption.signal)]);
}

export function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}

export function quoteConsole(machine: RunMachine, report: Reporter): void {
  const text = machine.console.text.slice(-QUOTED_CONSOLE_CHARS);
  report.quote("the guest's console", text);
}

export function outcomeOfGuest(
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
  options: Limits,
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
