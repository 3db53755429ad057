/**
 * Other work on the host: processes that do nothing but take CPU time from the guests and from this process.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';

export interface Load {
  /** Ends the work and waits until it is gone. */
  stop(): Promise<void>;
}

/** Starts `perCpu` busy processes for each CPU. */
export function startLoad(perCpu = 1): Load {
  const processes = Array.from({ length: Math.max(1, Math.round(perCpu * availableParallelism())) }, () =>
    spawn('/bin/sh', ['-c', 'while :; do :; done'], { stdio: 'ignore' }),
  );
  return {
    async stop() {
      await Promise.all(
        processes.map(async (child) => {
          if (child.exitCode !== null || child.signalCode !== null) return;
          const gone = once(child, 'exit');
          child.kill('SIGKILL');
          await gone;
        }),
      );
    },
  };
}
