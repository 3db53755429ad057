/**
 * The broker's process: detached from whoever started it, holds the lock, listens on the socket, owns QEMU.
 * Started by client.ts with one argument, the configuration as JSON. What it decides is in broker-core.ts.
 */
import { rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { AbortError } from '../base/errors.js';
import { hostClock } from '../base/clock.js';
import { acquireLock } from '../images/lock.js';
import { Broker } from './broker-core.js';
import { startQemu } from './embedded-machine.js';
import { sharedFolders } from './paths.js';

export interface BrokerConfiguration {
  readonly key: string;
  readonly qemuPath: string;
  readonly qemuArguments: readonly string[];
  readonly socket: string;
  readonly lock: string;
  readonly log: string;
  readonly idleMs: number;
  readonly bootDeadlineMs: number;
  readonly pingMs: number;
  readonly stallPings: number;
}

/** This process's exit status when another broker is there already: no failure. */
export const ALREADY_RUNNING = 0;

async function main(configuration: BrokerConfiguration): Promise<void> {
  const { socket, key } = configuration;
  const log = (text: string): void => void process.stderr.write(`${text}\n`);
  const busy = new AbortController();
  const release = await acquireLock(configuration.lock, {
    signal: busy.signal,
    onWait: () => busy.abort(),
  }).catch((error: unknown) => {
    if (error instanceof AbortError) process.exit(ALREADY_RUNNING);
    throw error;
  });

  let retired: Promise<void> | undefined;
  const retire = (): Promise<void> => {
    retired ??= (async () => {
      server.close();
      await rm(socket, { force: true });
      await release();
    })();
    return retired;
  };
  const broker = new Broker({
    ...configuration,
    clock: hostClock,
    startMachine: () => startQemu(configuration.qemuPath, configuration.qemuArguments, configuration.log),
    sharedFolders: () => sharedFolders(),
    log,
    onRetired: () => void retire(),
    onEnded: (error) => {
      const last = error === undefined ? Promise.resolve() : writeFile(`${configuration.log}.error`, error.message);
      void Promise.allSettled([retire(), last]).then(() => process.exit(error === undefined ? 0 : 1));
    },
  });
  const server = createServer((stream) => broker.accept(stream));
  // Only a socket that listens gets the name that clients look for, and an old one is replaced in the same step.
  const draft = `${socket}.${process.pid}`;
  await rm(draft, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(draft, resolve);
  });
  await rename(draft, socket);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => broker.stop(`ended by ${signal}`));
  process.on('SIGHUP', () => undefined); // the terminal that it was started from may go
  log(`broker ${process.pid} of host ${key}`);
  await broker.start();
}

await main(JSON.parse(process.argv[2] ?? '') as BrokerConfiguration);
