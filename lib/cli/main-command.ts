/**
 * The command as a function: arguments and streams in, exit status out. Everything that fails ends here, as one message
 * on stderr and a status; nothing is thrown, and the process is nobody's business here.
 */
import { readFileSync } from 'node:fs';
import { hostClock } from '../base/clock.js';
import type { CommandIo } from '../base/command-io.js';
import { freshName } from '../base/machine-name.js';
import type { ControlWorld } from './control-world.js';
import type { DashboardWorld } from '../dashboard/index.js';
import type { DoctorWorld } from './doctor.js';
import { ExitStatus } from './exit-status.js';
import type { SnapshotsWorld } from './snapshots-command.js';
import { runProgram } from './program.js';
import { flushed } from './pump-output.js';
import { Reporter } from './reporter.js';
import { parseRestoreOptions } from './restore-options.js';
import { parseRunOptions } from './run-options.js';
import type { RunWorld } from './world.js';

/** Where the commands get what they need; made only when a command asks. */
export interface Worlds {
  run(io: CommandIo): Promise<RunWorld>;
  doctor(io: CommandIo): Promise<DoctorWorld>;
  snapshots(io: CommandIo): Promise<SnapshotsWorld>;
  control(io: CommandIo): Promise<ControlWorld>;
  dashboard(io: CommandIo): Promise<DashboardWorld>;
}

/** Runs the command line (without the program's name); resolves to the exit status. */
export async function runMain(argv: readonly string[], io: CommandIo, worlds: Worlds): Promise<number> {
  try {
    return await runProgram(argv, io, packageVersion(), {
      run: async (raw, command) => {
        const options = parseRunOptions(raw, command);
        const [{ runCommand }, world] = await Promise.all([import('./run-command.js'), worlds.run(io)]);
        return runCommand(options, io, world, holderArguments(argv, options.name));
      },
      doctor: async (options) => {
        const [{ doctorCommand }, world] = await Promise.all([import('./doctor.js'), worlds.doctor(io)]);
        return doctorCommand(options, io, world);
      },
      restore: async (dir, raw) => {
        const options = parseRestoreOptions(dir, raw);
        const [{ restoreCommand }, world] = await Promise.all([import('./restore-command.js'), worlds.run(io)]);
        return restoreCommand(options, io, world, holderArguments(argv, options.name));
      },
      snapshots: async (request) => {
        const [{ snapshotsCommand }, world] = await Promise.all([
          import('./snapshots-command.js'),
          worlds.snapshots(io),
        ]);
        return snapshotsCommand(request, io, world);
      },
      control: async (request) => {
        const [{ controlCommand }, world] = await Promise.all([import('./control-dispatch.js'), worlds.control(io)]);
        return controlCommand(request, io, world);
      },
      dashboard: async (request) => {
        const [{ dashboardCommand }, world] = await Promise.all([
          import('./dashboard-command.js'),
          worlds.dashboard(io),
        ]);
        return dashboardCommand(request, io, world);
      },
      machineNames: async () => (await worlds.control(io)).names(),
    });
  } catch (error) {
    const json = argv.slice(0, argv.includes('--') ? argv.indexOf('--') : undefined).includes('--json');
    const report = new Reporter(io, hostClock, { quiet: false, json });
    report.failure(error);
    if (json) report.event('exit', { status: ExitStatus.FAILURE, reason: 'failure' });
    return ExitStatus.FAILURE;
  } finally {
    await Promise.all([flushed(io.stdout), flushed(io.stderr)]);
  }
}

/** The same command line for a process of its own, which has a name whatever was said. */
function holderArguments([command = '', ...more]: readonly string[], name: string | undefined): string[] {
  return [command, '--holder', '--name', name ?? freshName(), ...more];
}

/** The version of the package that this file belongs to, seen from lib/cli or dist/cli alike. */
function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
