#!/usr/bin/env node
/**
 * The bin: this process's arguments and streams to the command, its status to the process. What was written is out
 * before the process ends, and an error that nobody caught still gives the terminal back.
 */
import { runMain } from './main-command.js';
import { processIo } from './process-io.js';
import { outerWorlds } from './real-world.js';

/** vivarium's own failure, as in exit-status.ts, which is not loaded for it. */
const FAILURE = 125;

const fail = (error: unknown): never => {
  process.stderr.write(
    `vivarium: a failure of vivarium's own: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
  );
  process.exit(FAILURE);
};
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);
// A reader that goes away is noticed where something is written; it must not end the process by itself.
process.stdout.on('error', () => undefined);
process.stderr.on('error', () => undefined);

process.exit(await runMain(process.argv.slice(2), processIo(), outerWorlds));
