/**
 * A run that others of the user reach by its name: joins its machine with the control socket, from before the guest runs until
 * its outcome is known. Where connections come from is the link's: a socket here, or a channel inside the embedded host.
 */
import { Writable, type Duplex } from 'node:stream';
import { GuestAgents } from '../agent/guest-agents.js';
import type { Channel, CommandIo } from '../base/command-io.js';
import { OutputHub, type EndToRemember, type MachineRecord } from '../control/index.js';
import type { Outcome } from './outcome.js';
import type { ProgressWatch } from './progress-watch.js';
import type { RunMachine, RunWorld } from './world.js';

/** Where connections come from. */
export interface ControlLink {
  readonly record: MachineRecord;
  /** Inside the embedded host: where the process outside is asked for other networks. */
  readonly networks?: Channel | undefined;
  /** From now on they are handed to `accept`. */
  listen(accept: (stream: Duplex) => void): Promise<void>;
}

/** A name that is this process's. */
export interface NameClaim extends ControlLink {
  /** Of the file for what the process has to say when nobody listens. */
  readonly logPath: string;
  /** Stops listening and gives the name up. */
  release(end: EndToRemember): Promise<void>;
}

/** The control of a machine, as a run needs it. */
export interface OpenControl {
  accept(stream: Duplex): void;
  close(end: { readonly status: number; readonly outcome: string }): Promise<void>;
}

export class RunControl {
  readonly agents: GuestAgents;
  /** The run's streams; what a COMMAND writes to them is also what `logs` shows. */
  readonly io: CommandIo;
  readonly #link: ControlLink;
  readonly #open: OpenControl;
  /** Of a COMMAND; else `logs` shows the console. */
  readonly #logs: OutputHub | undefined;

  private constructor(agents: GuestAgents, io: CommandIo, link: ControlLink, open: OpenControl, logs?: OutputHub) {
    this.agents = agents;
    this.io = io;
    this.#link = link;
    this.#open = open;
    this.#logs = logs;
  }

  /** Takes the machine's console and channel, so it must be made before the guest runs. */
  static async open(
    machine: RunMachine,
    link: ControlLink,
    context: { io: CommandIo; world: RunWorld; watch: ProgressWatch; hasCommand: boolean },
  ): Promise<RunControl> {
    const { io, world, watch, hasCommand } = context;
    const agents = new GuestAgents(machine, { onActivity: () => watch.progress() });
    const logs = hasCommand ? new OutputHub() : undefined;
    const { record, networks } = link;
    const open = await world.openControl(machine, { record, agents, networks, ...(logs && { logs }) });
    return new RunControl(agents, logs === undefined ? io : withOutputTo(io, logs), link, open, logs);
  }

  /** The guest runs: it can be reached. */
  async started(): Promise<void> {
    await this.#link.listen((stream) => this.#open.accept(stream));
  }

  /** After the machine's close. */
  async close({ status, reason }: Outcome): Promise<void> {
    this.#logs?.end();
    await this.#open.close({ status, outcome: reason });
  }
}

/** The same streams; what is written is also seen in the hub. */
export function withOutputTo(io: CommandIo, hub: OutputHub): CommandIo {
  const seen = Object.create(io) as { -readonly [Key in keyof CommandIo]: CommandIo[Key] };
  seen.stdout = new SeenWritable(io.stdout, hub);
  seen.stderr = new SeenWritable(io.stderr, hub);
  return seen;
}

class SeenWritable extends Writable {
  readonly #target: Writable;
  readonly #hub: OutputHub;

  constructor(target: Writable, hub: OutputHub) {
    super();
    this.#target = target;
    this.#hub = hub;
    target.on('error', (error) => this.destroy(error));
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#hub.push(Uint8Array.from(chunk));
    this.#target.write(chunk, done);
  }
}
