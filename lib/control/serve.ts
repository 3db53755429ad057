/**
 * Joins a machine with its control socket's server: the hubs that viewers look at, the client of the guest's agent, and, once
 * something listens, the server. What it is reached by is the caller's: serveMachine() has it listen on the socket of its name.
 */
import { chmodSync, readFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { isMainThread } from 'node:worker_threads';
import { type AgentEnds, GuestAgents } from '../agent/guest-agents.js';
import { hostClock, type Clock } from '../base/clock.js';
import { VmmError } from '../base/errors.js';
import { type Fence, fenceOf } from '../base/fence.js';
import type { EndStatus } from '../machine/index.js';
import { backendOf } from './backends.js';
import { Ending } from './ending.js';
import { EventHub, tellOf } from './event-hub.js';
import type { Failure } from './failures.js';
import { claimName, type MachineClaim, type MachinePlace, type MachineRecord } from './machine-folders.js';
import { OutputHub } from './output-hub.js';
import type { ControlServer } from './server.js';
import type { ControlledMachine, ControlTarget, FinalStatus } from './target.js';

/** How many connections may wait to be taken (listen(2)); the kernel's limit is lower where it is. */
const BACKLOG = 4096;
/** How many are served at a time, so that a client which forgets to close its own takes no descriptors from the guest's devices. */
const MAX_CONNECTIONS = 1024;
/** Further ones are told so; this many at a time, the rest is closed at once. */
const MAX_REFUSALS = 64;
/** How long one that is refused may take to go. */
const REFUSAL_MS = 1000;

export interface ControlOptions {
  readonly record: MachineRecord;
  readonly clock?: Clock;
  /** Of somebody who has the guest's channel already. */
  readonly agents?: GuestAgents;
  /** What `logs` is to show where it is not the console. */
  readonly logs?: OutputHub;
  /** Default: that of this process. */
  readonly fence?: Fence | undefined;
  /** Default: all that this host has. */
  readonly makeBackend?: ControlTarget['makeBackend'];
}

/** A machine that can be controlled, before and after somebody can reach it. */
export class MachineControl {
  readonly target: ControlTarget;
  #server: Promise<ControlServer> | undefined;

  /** Takes console and channel at once, so it must be made before the guest runs. */
  constructor(machine: ControlledMachine & AgentEnds, options: ControlOptions) {
    const { record, clock = hostClock, agents = new GuestAgents(machine, { clock }) } = options;
    const console = new OutputHub();
    const events = new EventHub(clock);
    this.target = {
      machine,
      record,
      fence: options.fence ?? fenceOf(),
      clock,
      agents,
      console,
      logs: options.logs ?? console,
      saves: new Set(),
      events,
      makeBackend: options.makeBackend ?? backendOf,
      ending: new Ending(),
    };
    tellOf(machine, events);
    agents.own.onHello = ({ agent, release }) => events.tell({ type: 'agent', agent, release });
    void console.follow(machine.console.output);
    void machine.wait().then((end) => {
      agents.close(new VmmError('ERR_AGENT', `the guest has ended (${end.reason})`));
    });
  }

  /** Loads the server; where connections come from, `accept` takes them meanwhile. */
  serve(): Promise<ControlServer> {
    this.#server ??= import('./server.js').then(
      ({ makeControlServer }) => makeControlServer(this.target, { version: packageVersion() }),
      (cause: unknown) => {
        throw new VmmError('ERR_SETUP', 'the control server can not be loaded', {
          cause,
          cure: 'npm ci; in a script inside the embedded host there is none: vivarium run --name serves its machine',
        });
      },
    );
    return this.#server;
  }

  accept(stream: Duplex): void {
    stream.on('error', () => undefined);
    this.serve().then(
      (server) => server.accept(stream),
      () => stream.destroy(),
    );
  }

  /** The holder knows how it ended: who waits is told, and all connections go. Idempotent. */
  async close(end: FinalStatus): Promise<void> {
    this.target.ending.settle(end);
    // One that could not be made has nothing to close.
    await (await this.#server?.catch(() => undefined))?.close();
  }
}

/** Something that listens on the socket of a name. */
export interface ControlSocket {
  close(): Promise<void>;
}

/**
 * Listens, for this user alone. Beyond `maxConnections` (default 1024) a client is answered with 503.
 *
 * @throws SystemError-like errors of listen(2)
 */
export async function listenFor(
  claim: MachineClaim,
  accept: (socket: Socket) => void,
  { maxConnections = MAX_CONNECTIONS }: { readonly maxConnections?: number } = {},
): Promise<ControlSocket> {
  let served = 0;
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    if (served >= maxConnections) return refuse(socket, `${claim.record.name} serves ${served} connections already`);
    served++;
    socket.once('close', () => served--);
    accept(socket);
  });
  server.maxConnections = maxConnections + MAX_REFUSALS;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    // The socket is bound in the call, with this mode: a sealed process can't change it afterwards. A Worker has no mask of its own.
    const mask = isMainThread ? process.umask(0o177) : undefined;
    server.listen({ path: claim.socketPath, backlog: BACKLOG }, resolve);
    if (mask !== undefined) process.umask(mask);
  });
  // accept(2) may be refused for a while (EMFILE): whoever connects then tries again, the guest runs on.
  server.on('error', () => undefined);
  if (!isMainThread) chmodSync(claim.socketPath, 0o600);
  return {
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

/** One answer without a look at the question. */
function refuse(socket: Socket, message: string): void {
  const body = JSON.stringify({ error: { code: 'ERR_CONTROL', message } satisfies Failure });
  const head = ['HTTP/1.1 503 Service Unavailable', 'content-type: application/json', 'connection: close'];
  socket.on('error', () => undefined);
  socket.setTimeout(REFUSAL_MS, () => socket.destroy());
  // With what was asked unread it would be reset, and the answer lost.
  socket.resume();
  socket.end(`${[...head, `content-length: ${Buffer.byteLength(body)}`].join('\r\n')}\r\n\r\n${body}`);
}

export interface ServeOptions {
  /** Default: the machine's own. */
  readonly name?: string;
  readonly place?: MachinePlace;
}

/** A machine of this process that others of the user can reach by its name. */
export interface ServedMachine extends AsyncDisposable {
  readonly name: string;
  readonly socketPath: string;
  /** Takes the name away from it; the machine runs on. Idempotent. */
  close(): Promise<void>;
}

/**
 * Lets the user's other processes reach a machine of this one by name, by the command and by connect(), until it ends. To be
 * called before it starts: what its guest's console and agent have said before is not known.
 *
 * @throws TypeError for what is no name; VmmError ERR_NAME_TAKEN, ERR_SETUP; SystemError
 * @example
 * const vm = await Machine.create({ name: 'box', boot: { kernel: 'vmlinuz' } });
 * await serveMachine(vm); // vivarium inspect box
 */
export async function serveMachine(
  machine: ControlledMachine & AgentEnds,
  options: ServeOptions = {},
): Promise<ServedMachine> {
  const name = options.name ?? machine.name;
  const claim = await claimName(name, { host: 'native' }, options.place);
  const control = new MachineControl(machine, { record: claim.record });
  let socket: ControlSocket;
  try {
    await control.serve();
    socket = await listenFor(claim, (stream) => control.accept(stream));
  } catch (error) {
    claim.release();
    throw error;
  }
  let closing: Promise<void> | undefined;
  const close = (end?: EndStatus): Promise<void> => {
    closing ??= (async () => {
      const closed = socket.close();
      await control.close(end ?? { reason: 'killed', detail: 'it has no name any more' });
      await closed;
      claim.release(end === undefined ? undefined : { reason: end.reason, status: 0 });
    })();
    return closing;
  };
  void machine.wait().then(close);
  return { name, socketPath: claim.socketPath, close: () => close(), [Symbol.asyncDispose]: () => close() };
}

/** The version of the package that this file belongs to, seen from lib/control or dist alike. */
function packageVersion(): string {
  for (const up of ['../../package.json', '../package.json']) {
    try {
      return (JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8')) as { version: string }).version;
    } catch {
      // The command is packed one folder less deep.
    }
  }
  return '0';
}
