/**
 * A command line of `vivarium` held against the command's own parser and its checks of arguments, up to where it would look at this
 * machine: nothing is started, opened or asked.
 */
import { parseBackend } from '../../lib/cli/control-commands.js';
import { parseCopy } from '../../lib/cli/copy-command.js';
import { FakeIo } from '../../lib/cli/fake-world.js';
import { type Actions, runProgram } from '../../lib/cli/program.js';
import { parseRestoreOptions } from '../../lib/cli/restore-options.js';
import { parseRunOptions } from '../../lib/cli/run-options.js';

const done = (): Promise<number> => Promise.resolve(0);

const CHECKS: Actions = {
  run: (raw, command) => {
    parseRunOptions(raw, command);
    return done();
  },
  restore: (dir, raw) => {
    parseRestoreOptions(dir, raw);
    return done();
  },
  control: (request) => {
    if (request.what === 'cp') parseCopy(request.from, request.to);
    if (request.what === 'rebind') parseBackend(request.backend);
    return done();
  },
  snapshots: done,
  doctor: done,
  dashboard: done,
  machineNames: () => Promise.resolve([]),
};

/** What `vivarium COMMAND --help` prints. @throws Error for a command that there is not */
export async function helpOf(command: string): Promise<string> {
  const io = new FakeIo();
  await runProgram([command, '--help'], io, '0.0.0', CHECKS);
  const { text } = io.collected;
  // What is asked of no command is answered with the help of all.
  if (!text.startsWith(`Usage: vivarium ${command} `)) throw new Error(`there is no command ${command}`);
  return text;
}

/** What is wrong with a command line, without the program's name; undefined for nothing. */
export async function grammarComplaint(argv: readonly string[]): Promise<string | undefined> {
  try {
    await runProgram(argv, new FakeIo(), '0.0.0', CHECKS);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
