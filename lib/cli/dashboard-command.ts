/** `vivarium dashboard`: serves the page until a signal ends it. The URL is the only thing on stdout. */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import type { CommandIo } from '../base/command-io.js';
import { naming } from '../base/system-call.js';
import { startDashboard, type DashboardWorld } from '../dashboard/index.js';
import { ExitStatus } from './exit-status.js';
import { Interruption } from './interruption.js';

export interface DashboardRequest {
  /** Undefined or 0: any that is free. */
  readonly port: number | undefined;
  /** A folder, which is made where it is not there. */
  readonly snapshots: string | undefined;
  readonly json: boolean;
}

/** @throws as startDashboard; SystemError when the folder of snapshots can't be made */
export async function dashboardCommand(
  { port, snapshots, json }: DashboardRequest,
  io: CommandIo,
  world: DashboardWorld,
): Promise<number> {
  const folder = snapshots === undefined ? undefined : path.resolve(io.cwd, snapshots);
  if (folder !== undefined) await naming(folder, () => mkdir(folder, { recursive: true }));
  const interruption = new Interruption(io, world.clock, { timeoutMs: undefined });
  const { signal } = interruption;
  const interrupted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  try {
    const dashboard = await startDashboard({ world, port, snapshots: folder });
    try {
      io.stdout.write(json ? `${JSON.stringify({ url: dashboard.url })}\n` : `${dashboard.url}\n`);
      if (io.stderrIsTerminal && !json)
        io.stderr.write('vivarium: open this URL in a browser; Ctrl-C ends the dashboard\n');
      await interrupted;
      // To be ended is what it is for.
      return ExitStatus.OK;
    } finally {
      await dashboard.close();
    }
  } finally {
    interruption.dispose();
  }
}
