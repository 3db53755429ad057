/**
 * One running QEMU that is the embedded host: its streams, its console's last lines, its end.
 * Starts and ends the process; says nothing to what runs inside (that is the broker's).
 */
import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import type { Duplex } from 'node:stream';
import { VmmError } from '../base/errors.js';
import { PORT_FD, QMP_FD } from './qemu.js';

/** How much of the console is kept for an error, and how much of it at most goes into the log. */
const TAIL_BYTES = 8192;
const LOG_MAX_BYTES = 4 * 1024 * 1024;
const TAIL_LINES = 12;

/** What the broker needs of the machine; the fake of its tests has the same shape. */
export interface EmbeddedMachine {
  readonly pid: number | undefined;
  /** The outer end of the port to the inner daemon. */
  readonly port: Duplex;
  /** Resolves once, to how it ended. */
  readonly ended: Promise<string>;
  /** The last lines of its console and of QEMU's own messages. */
  consoleTail(): string;
  kill(): void;
}

/** Starts QEMU. @throws VmmError ERR_EMBEDDED_HOST when it can't be started. */
export async function startQemu(path: string, args: readonly string[], logPath: string): Promise<EmbeddedMachine> {
  const child = spawn(path, args, { stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'] });
  const log = createWriteStream(logPath, { mode: 0o600 });
  let logged = 0;
  let tail = '';
  const hear = (chunk: Buffer): void => {
    tail = (tail + chunk.toString('utf8')).slice(-TAIL_BYTES);
    if (logged < LOG_MAX_BYTES) log.write(chunk);
    logged += chunk.length;
  };
  log.on('error', () => undefined);
  child.stdout?.on('data', hear);
  child.stderr?.on('data', hear);
  const port = child.stdio[PORT_FD] as Duplex;
  const monitor = child.stdio[QMP_FD] as Duplex;
  // QMP stands ready for people who debug; nothing is asked of it, but what it says must be read.
  monitor.on('error', () => undefined).resume();
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(`QEMU can't be started: ${error.message}`));
    child.once('close', (code, signal) => {
      log.end();
      resolve(signal === null ? `QEMU ended with status ${String(code)}` : `QEMU was ended by ${signal}`);
    });
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) => {
      reject(new VmmError('ERR_EMBEDDED_HOST', `${path} can't be started: ${error.message}`, { cause: error }));
    });
  });
  return {
    pid: child.pid,
    port,
    ended,
    consoleTail: () => lastLines(tail),
    kill: () => void child.kill('SIGKILL'),
  };
}

/** The last lines that say something, without the console's control sequences. */
export function lastLines(text: string): string {
  const clean = text.replaceAll(/\x1b\[[0-9;?]*[A-Za-z]/g, '').replaceAll(/[^\x20-\x7e\n]/g, '');
  const lines = clean.split('\n').filter((line) => line.trim() !== '');
  return lines.slice(-TAIL_LINES).join('\n');
}
