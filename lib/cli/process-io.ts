/**
 * This process's own streams, terminal and signals as a CommandIo. The terminal is given back when the process exits,
 * however it comes to that, as long as it comes to an exit.
 */
import { isatty } from 'node:tty';
import type { CommandIo, CommandSignal } from '../base/command-io.js';

const SIGNALS: readonly CommandSignal[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'];

export function processIo(): CommandIo {
  const { stdin, stdout, stderr, env } = process;
  const takers = new Set<(signal: CommandSignal) => void>();
  const onProcessSignal = (signal: NodeJS.Signals): void => {
    for (const taker of [...takers]) taker(signal as CommandSignal);
  };
  let raw = false;
  const setRaw = (on: boolean): void => {
    if (!stdin.isTTY || raw === on) return;
    raw = on;
    try {
      stdin.setRawMode(on);
    } catch {
      // The terminal has gone: there is nothing to give back.
    }
  };
  process.on('exit', () => setRaw(false));

  return {
    stdin,
    stdout,
    stderr,
    stdinIsTerminal: isatty(0),
    stdoutIsTerminal: isatty(1),
    stderrIsTerminal: isatty(2),
    cwd: process.cwd(),
    env,
    terminalSize: () => (stdout.isTTY ? { columns: stdout.columns, rows: stdout.rows } : undefined),
    onResize: (callback) => {
      stdout.on('resize', callback);
      return () => void stdout.off('resize', callback);
    },
    setRawMode: setRaw,
    onSignal: (callback) => {
      if (takers.size === 0) for (const signal of SIGNALS) process.on(signal, onProcessSignal);
      takers.add(callback);
      return () => {
        takers.delete(callback);
        if (takers.size === 0) for (const signal of SIGNALS) process.off(signal, onProcessSignal);
      };
    },
  };
}
