/**
 * What a board tells, turned into how its machine ends: power-off, reset, panic, debug exit, a crash with its report, a
 * device of ours that failed. It decides nothing about the machine's life, which machine.ts does.
 */
import { VmmError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import { PAGE_SIZE } from '../base/units.js';
import type { GuestMemory } from '../memory/index.js';
import type { BoardListener } from './board.js';
import type { PanicWatch } from './panic-watch.js';
import { crashDetail, runFailure, stateDetail, type EndStatus } from './status.js';

export interface EndListenerOptions {
  readonly panic: PanicWatch;
  readonly logger: Logger;
  /** The present one: a reset replaces it. */
  readonly memory: () => GuestMemory;
  readonly onOutput: (bytes: Uint8Array) => void;
  readonly onReset: () => void;
  readonly onEnd: (status: EndStatus) => void;
}

export function endListener({ panic, logger, memory, onOutput, onReset, onEnd }: EndListenerOptions): BoardListener {
  /** What stands at an address, up to the end of its page, for reports. */
  const readCode = (gpa: number, length: number): Uint8Array | undefined => {
    const size = Math.min(length, PAGE_SIZE - (gpa % PAGE_SIZE));
    return memory().contains(gpa, size) ? memory().read(gpa, size) : undefined;
  };
  return {
    onFatalExit: (vcpu, exit) => {
      const detail = crashDetail(exit, vcpu, readCode);
      // A guest without firmware resets itself by a triple fault when it knows no better way.
      if (exit.kind === 'shutdown' && panic.message !== undefined) onReset();
      else onEnd({ reason: 'crash', detail });
    },
    // A bug in a device of ours stops this machine, with its state kept for a look, and no other.
    onFault: ({ device, cause }) => {
      const error = new VmmError('ERR_DEVICE', `device ${device} failed`, { cause });
      logger.log('error', error.message, { cause: String(cause) });
      onEnd({ reason: 'failed', detail: `${error.message}: ${String(cause)}`, error });
    },
    onRunFailure: (vcpu, errno) => {
      const error = runFailure(vcpu, errno);
      onEnd({ reason: 'failed', detail: stateDetail(error.message, vcpu, readCode), error });
    },
    onPowerOff: () => onEnd({ reason: 'poweroff' }),
    onReset,
    onPanic: (kind) => {
      const message = `the guest reported by pvpanic: ${kind}`;
      if (kind === 'crash-loaded') panic.crashKernelStarts(message);
      else panic.panicked(message);
    },
    onDebugExit: (code) => onEnd({ reason: 'debug-exit', code }),
    onConsoleOutput: (bytes) => {
      panic.look(bytes);
      onOutput(bytes);
    },
  };
}
