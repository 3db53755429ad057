/**
 * `run -- COMMAND`: waits for the agent in the guest, runs the command on this command's own streams, and gives its end.
 * The guest's console stays apart; it is shown only when something went wrong.
 */
import { AgentClient } from '../agent/client.js';
import type { RunResult } from '../agent/session.js';
import { VmmError } from '../base/errors.js';
import type { CommandIo } from '../base/command-io.js';
import type { EndStatus } from '../machine/status.js';
import { guestEnvironment } from './guest-environment.js';
import type { ProgressWatch } from './progress-watch.js';
import type { Reporter } from './reporter.js';
import type { RunMachine } from './world.js';

export type CommandEnd =
  | { readonly by: 'command'; readonly result: RunResult }
  /** The guest ended before the command did. */
  | { readonly by: 'guest'; readonly end: EndStatus };

export interface CommandSession {
  readonly end: Promise<CommandEnd>;
  /** Asks the guest to end its commands and to power off. */
  askToEnd(): void;
}

export interface CommandSessionOptions {
  readonly machine: RunMachine;
  readonly command: readonly string[];
  readonly io: CommandIo;
  readonly report: Reporter;
  readonly wallMs: () => number;
  readonly signal: AbortSignal;
  /** Hears of every console byte and frame, and of the agent's hello. */
  readonly watch: ProgressWatch;
  /** Of somebody who has the guest's channel already, and tells the watch. */
  readonly agent?: AgentClient | undefined;
}

/** Takes the channel at once, so it must be called before the guest runs. */
export function openCommand(options: CommandSessionOptions): CommandSession {
  const { machine, command, io, report, signal, watch } = options;
  const client = options.agent ?? new AgentClient(machine.channel, { onActivity: () => watch.progress() });
  void followConsole(machine, watch);

  const guestEnd = machine.wait().then((end): CommandEnd => {
    client.close(new VmmError('ERR_AGENT', `the guest ended (${end.reason}) before the command did`));
    return { by: 'guest', end };
  });
  const commandEnd = (async (): Promise<CommandEnd> => {
    const guest = await client.ready({ signal });
    watch.alive();
    report.event(
      'agent-ready',
      { release: guest.release, cpus: guest.cpus, memoryBytes: guest.memoryBytes },
      { progress: `guest is up: Linux ${guest.release}` },
    );
    if (guest.notice !== '') report.warning('guest-notice', { notice: guest.notice }, `the guest: ${guest.notice}`);
    const result = await client.run({
      argv: command,
      env: guestEnvironment(io),
      stdin: io.stdin,
      stdout: io.stdout,
      stderr: io.stderr,
      signal,
    });
    return { by: 'command', result };
  })();

  const end = Promise.race([commandEnd, guestEnd]).catch(async (error: unknown) => {
    // A guest that has ended also breaks the connection: then its end is the news.
    if (error instanceof VmmError && error.code === 'ERR_AGENT') {
      const ended = await Promise.race([guestEnd, Promise.resolve(undefined)]);
      if (ended !== undefined) return ended;
    }
    throw error;
  });
  commandEnd.catch(() => undefined);
  return {
    end,
    askToEnd: () => {
      if (client.guest !== undefined) client.requestPower('POWEROFF');
    },
  };
}

/** Nobody reads the console of a command, but what comes on it is progress. */
async function followConsole(machine: RunMachine, watch: ProgressWatch): Promise<void> {
  for await (const _ of machine.console.output) watch.progress();
}
