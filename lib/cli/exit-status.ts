/**
 * The exit statuses of the command, and how the end of a machine or of a command in it becomes one.
 */
import type { CommandSignal } from '../base/command-io.js';
import type { ChildStatus } from '../agent/protocol.js';
import type { EndStatus } from '../machine/status.js';

export const ExitStatus = {
  OK: 0,
  /** `--timeout` passed. */
  TIMEOUT: 124,
  /** vivarium's own failure, or a bad option. */
  FAILURE: 125,
  /** The guest crashed; or, of a COMMAND, it may not be executed. */
  CRASH: 126,
  /** The COMMAND was not found in the guest. */
  NOT_FOUND: 127,
} as const;

/** Added to a signal's number. */
const SIGNAL_BASE = 128;
const SIGKILL = 9;
const ENOENT = 2;
const ENOTDIR = 20;

const SIGNAL_NUMBERS: Readonly<Record<CommandSignal | 'SIGPIPE', number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGPIPE: 13,
  SIGTERM: 15,
};

export function statusOfSignal(signal: CommandSignal | 'SIGPIPE'): number {
  return SIGNAL_BASE + SIGNAL_NUMBERS[signal];
}

/** As a shell has it: the status; 128 + n for a signal; 127 when it was not found, 126 when it could not be executed. */
export function statusOfChild(status: ChildStatus): number {
  switch (status.kind) {
    case 'exited':
      return status.code;
    case 'signalled':
      return SIGNAL_BASE + status.signal;
    case 'not-started':
      return status.errno === ENOENT || status.errno === ENOTDIR ? ExitStatus.NOT_FOUND : ExitStatus.CRASH;
  }
}

export function statusOfMachine(end: EndStatus): number {
  switch (end.reason) {
    case 'poweroff':
    case 'reset':
    case 'halted':
      return ExitStatus.OK;
    case 'crash':
    case 'panic':
      return ExitStatus.CRASH;
    case 'killed':
      return SIGNAL_BASE + SIGKILL;
    case 'debug-exit':
    case 'failed':
      return ExitStatus.FAILURE;
  }
}
