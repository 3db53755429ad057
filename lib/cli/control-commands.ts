/**
 * The commands about named machines that ask once and print: ps, inspect, stats, pause, resume, stop, kill, wait, snapshot, rebind.
 * Answers go to stdout, for people or as JSON; what is wrong is thrown as the machine's process has it.
 */
import type { CommandIo } from '../base/command-io.js';
import { VmmError } from '../base/errors.js';
import { formatSize } from '../base/units.js';
import type { Backend, EndedRecord, ListedMachine, RemoteMachine, Stats } from '../control/index.js';
import type { ControlWorld } from './control-world.js';
import { ExitStatus } from './exit-status.js';
import { table } from './table.js';
import { untilInterrupted } from './until-interrupted.js';
import { UsageError } from './usage-error.js';

export interface AskContext {
  readonly io: CommandIo;
  readonly world: ControlWorld;
  readonly json: boolean;
}

export async function psCommand(all: boolean, { io, world, json }: AskContext): Promise<number> {
  const machines = await world.list();
  const ended = all ? world.listEnded() : [];
  if (json) {
    const list = [...machines, ...ended.map((machine) => ({ ...machine, state: 'ended' }))];
    io.stdout.write(`${JSON.stringify(list, null, 2)}\n`);
  } else if (machines.length + ended.length > 0) {
    const now = world.clock.wallMs();
    const rows = [...machines.map((machine) => rowOf(machine, now)), ...ended.map((machine) => endedRow(machine, now))];
    io.stdout.write(table([['NAME', 'ID', 'STATE', 'PID', 'HOST', 'SINCE'], ...rows]));
  }
  return ExitStatus.OK;
}

function rowOf({ name, id, state, pid, host, since }: ListedMachine, nowMs: number): string[] {
  return [name, id, state, String(pid), host, ago(since, nowMs)];
}

function endedRow({ name, id, status, reason, host, endedAt }: EndedRecord, nowMs: number): string[] {
  return [name, id, `ended (${reason}, ${status})`, '-', host, ago(endedAt, nowMs)];
}

/** Such as "3 min ago". */
function ago(iso: string, nowMs: number): string {
  const seconds = Math.max(0, Math.round((nowMs - Date.parse(iso)) / 1000));
  if (seconds < 100) return `${seconds} s ago`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86_400)} days ago`;
}

/** A question whose answer is a value: JSON as it is, or words for people. */
export async function ask<T>(
  name: string,
  context: AskContext,
  question: (machine: RemoteMachine, signal: AbortSignal) => Promise<T>,
  words: (answer: T) => string,
): Promise<number> {
  return untilInterrupted(context, async (signal) => {
    const machine = await context.world.connect(name, signal);
    const answer = await question(machine, signal);
    context.io.stdout.write(context.json ? `${JSON.stringify(answer, null, 2)}\n` : words(answer));
    return ExitStatus.OK;
  });
}

export function inspectCommand(name: string, context: AskContext): Promise<number> {
  return ask(name, { ...context, json: true }, (machine, signal) => machine.inspect({ signal }), String);
}

export function statsCommand(name: string, context: AskContext): Promise<number> {
  return ask(name, context, (machine, signal) => machine.stats({ signal }), statsText);
}

/** The text format of Prometheus, of one machine, or of all without a name. */
export function metricsCommand(name: string | undefined, context: AskContext): Promise<number> {
  return untilInterrupted(context, async (signal) => {
    const { io, world } = context;
    const text =
      name === undefined ? await world.scrape() : await (await world.connect(name, signal)).metrics({ signal });
    io.stdout.write(text);
    return ExitStatus.OK;
  });
}

function statsText({ state, cpus, memoryBytes, devices, process, pit }: Stats): string {
  const { phase, programmedHz } = (pit ?? {}) as { phase?: string; programmedHz?: number };
  const lines = [
    ['state', state],
    ['memory', formatSize(memoryBytes)],
    ...cpus.map(({ id, exits }) => [`cpu ${id}`, `${exits} exits`]),
    ['pit', `${programmedHz ?? 0} Hz, ${phase ?? 'unknown'}`],
    ['process', `${(process.cpuMs / 1000).toFixed(1)} s of CPU, ${formatSize(roundedKiB(process.rssBytes))}`],
    ...devices.map(({ id, functions }) => [
      id,
      Object.entries(functions)
        .filter(([, { calls }]) => calls > 0)
        .map(([what, { by, calls }]) => `${what} ${calls} (${by})`)
        .join(', ') || 'not used',
    ]),
  ];
  return table(lines);
}

function roundedKiB(bytes: number): number {
  return Math.round(bytes / 1024) * 1024;
}

/** Whoever changes a machine is told its name, as a script can use it. */
export function changeCommand(
  name: string,
  context: AskContext,
  change: (machine: RemoteMachine, signal: AbortSignal) => Promise<unknown>,
): Promise<number> {
  return ask(
    name,
    context,
    async (machine, signal) => {
      const end = await change(machine, signal);
      return { name, state: machine.state, ...(typeof end === 'object' && end !== null ? { end } : {}) };
    },
    () => `${name}\n`,
  );
}

/** The status that the machine's own command ends with, on stdout; of one that has ended already, what is remembered. */
export function waitCommand(name: string, timeoutMs: number | undefined, context: AskContext): Promise<number> {
  const { io, world, json } = context;
  return untilInterrupted(context, async (signal) => {
    let end: { readonly status?: number; readonly reason: string };
    try {
      const machine = await world.connect(name, signal);
      end = await machine.wait({ signal, ...(timeoutMs !== undefined && { timeoutMs }) });
    } catch (error) {
      const remembered = isCode(error, 'ERR_NO_MACHINE') ? world.ended(name) : undefined;
      if (isCode(error, 'ERR_TIMEOUT')) {
        io.stderr.write(`vivarium: ${(error as Error).message}\n`);
        return ExitStatus.TIMEOUT;
      }
      if (remembered === undefined) throw error;
      end = remembered;
    }
    io.stdout.write(json ? `${JSON.stringify(end, null, 2)}\n` : `${end.status ?? 0}\n`);
    return ExitStatus.OK;
  });
}

/** The addresses on which something in the guest listens on a TCP port, a line each, once there are some. */
export async function waitForPortCommand(
  name: string,
  port: number,
  timeoutMs: number | undefined,
  context: AskContext,
): Promise<number> {
  try {
    return await ask(
      name,
      context,
      (machine, signal) => machine.waitForPort(port, { timeoutMs: timeoutMs ?? Infinity, signal }),
      ({ addresses }) => addresses.map((address) => `${address}:${port}\n`).join(''),
    );
  } catch (error) {
    if (!isCode(error, 'ERR_TIMEOUT')) throw error;
    context.io.stderr.write(`vivarium: ${(error as Error).message}\n`);
    return ExitStatus.TIMEOUT;
  }
}

export function isCode(error: unknown, code: string): boolean {
  return error instanceof VmmError && error.code === code;
}

export interface SnapshotCommandOptions {
  readonly mode: 'live' | 'instant' | 'paused' | undefined;
  readonly parent: string | undefined;
  readonly maxPauseMs: number | undefined;
}

export function snapshotCommand(
  name: string,
  dir: string,
  { mode, parent, maxPauseMs }: SnapshotCommandOptions,
  context: AskContext,
): Promise<number> {
  return ask(
    name,
    context,
    (machine, signal) =>
      machine.snapshot(dir, {
        ...(mode && { mode }),
        ...(parent !== undefined && { parent }),
        ...(maxPauseMs !== undefined && { maxPauseMs }),
        signal,
      }),
    ({ stats: { pauseMs, totalMs, bytesWritten } }) => {
      const times = `the guest stood for ${pauseMs.toFixed(1)} ms of ${(totalMs / 1000).toFixed(2)} s`;
      return `${dir}: ${formatSize(roundedKiB(bytesWritten))}, ${times}\n`;
    },
  );
}

export function rebindCommand(name: string, device: string, backend: Backend, context: AskContext): Promise<number> {
  return ask(
    name,
    context,
    (machine, signal) => machine.device(device).rebind(backend, { signal }),
    ({ holdNs, held }) => `${name} ${device}: ${held} requests were held for ${(holdNs / 1e6).toFixed(1)} ms\n`,
  );
}

/** A backend as `--disk` and `--nic` have it: PATH[,format=raw|qcow2], tap:NAME, switch:NAME, passt. @throws UsageError */
export function parseBackend(text: string): Backend {
  const [, kind, rest] = /^(tap|switch|passt)(?::(.*))?$/s.exec(text) ?? [];
  if (kind === 'passt' && rest === undefined) return { kind };
  if ((kind === 'tap' || kind === 'switch') && rest !== undefined && rest !== '') return { kind, name: rest };
  if (kind !== undefined) throw new UsageError(`rebind: '${text}' is none of PATH, tap:NAME, switch:NAME, passt`);
  const [, path = text, format] = /^(.*),format=(raw|qcow2)$/s.exec(text) ?? [];
  if (path === '' || path.includes('\0')) throw new UsageError('rebind: the name of a file is wanted');
  const isQcow2 = format === undefined ? path.endsWith('.qcow2') : format === 'qcow2';
  return { kind: isQcow2 ? 'qcow2' : 'file', path };
}
