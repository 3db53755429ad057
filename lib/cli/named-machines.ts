/** The names of runs joined to the control room and to processes: the part of the commands' world that is about them. */
import { spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { ControlledMachine } from '../control/index.js';
import type { CarriedNetwork } from '../vsp/index.js';
import { fenceOf, SEALED_VARIABLE } from '../base/fence.js';
import type { HolderProcess } from './detach-command.js';
import type { HolderLine, Ready, Underway } from './holder.js';
import { type HolderFence, launchOf } from './fence-launch.js';
import type { OpenControl } from './run-control.js';
import type { ControlWishes, RunMachine, RunWorld } from './world.js';

/** What connections have to come to their end once the machine has. */
const LEAVING_MS = 1000;

export const namedMachines: Pick<
  RunWorld,
  'claimName' | 'carryConnections' | 'takeCarried' | 'untilReached' | 'startHolder' | 'closeFence'
> = {
  async claimName(name, host) {
    const { claimName, listenFor } = await import('../control/index.js');
    const claim = await claimName(name, { host });
    const sockets = new Set<Socket>();
    let stop: () => Promise<void> = () => Promise.resolve();
    return {
      record: claim.record,
      logPath: claim.logPath,
      async listen(accept) {
        const socket = await listenFor(claim, (stream) => {
          sockets.add(stream);
          stream.once('close', () => sockets.delete(stream));
          accept(stream);
        });
        stop = () => socket.close();
      },
      async release(end) {
        const late = setTimeout(() => {
          for (const socket of sockets) socket.destroy();
        }, LEAVING_MS);
        await stop();
        clearTimeout(late);
        claim.release(end);
      },
    };
  },

  async carryConnections(channel) {
    const { carryConnections } = await import('../control/index.js');
    const carrier = carryConnections(channel);
    return (stream) => carrier.carry(stream);
  },

  async takeCarried(channel, accept) {
    const { takeCarried } = await import('../control/index.js');
    takeCarried(channel, accept);
  },

  async untilReached(name, signal) {
    const { connect } = await import('../control/index.js');
    await connect(name, { signal });
  },

  startHolder,

  async closeFence() {
    const fence = fenceOf();
    if (fence === undefined || fence.carries === true) return fence;
    const { sealProcess } = await import('../kvm/index.js');
    const { tap, switch: connects } = fence.networks;
    if (sealProcess({ connects, taps: tap })) process.env[SEALED_VARIABLE] = 'seccomp';
    return fenceOf();
  },
};

/** `carried`: what its nics stand on that are lent in. */
export async function openControl(
  machine: RunMachine,
  { networks, ...options }: ControlWishes,
  carried: ReadonlyMap<string, CarriedNetwork>,
): Promise<OpenControl> {
  const { backendsInside, MachineControl } = await import('../control/index.js');
  // A Machine, of which a run needs less.
  const real = machine as RunMachine & ControlledMachine;
  const makeBackend = networks && backendsInside(networks, carried);
  const control = new MachineControl(real, { ...options, ...(makeBackend && { makeBackend }) });
  // Loaded while the guest boots; who connects before waits.
  control.serve().catch(() => undefined);
  return {
    accept: (stream) => control.accept(stream),
    close: async (end) => control.close({ ...(await real.wait()), ...end }),
  };
}

async function startHolder(
  argv: readonly string[],
  fence: HolderFence,
  onProgress: (underway: Underway) => void,
): Promise<HolderProcess> {
  if (typeof fence === 'object') (await import('../control/index.js')).readyFolder(fence.name);
  const command = [process.execPath, ...process.execArgv, process.argv[1]!, ...argv];
  const { program, args, env, unfenced } = launchOf(command, fence);
  const child = spawn(program, args, { env, detached: true, stdio: ['ignore', 'ignore', 'pipe', 'pipe'] });
  let stderr = '';
  const report = child.stderr as Readable;
  report.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const line = child.stdio[3] as Readable;
  let told: Ready | undefined;
  const lines = createInterface({ input: line });
  lines.on('line', (text) => {
    const said = holderLine(text);
    if (said === undefined) return;
    if ('progress' in said) onProgress(said);
    else told = said;
  });
  const ended = new Promise<{ status: number; stderr: string }>((resolve) => {
    child.once('error', (error) => resolve({ status: 125, stderr: `${error.message}\n` }));
    child.once('close', (code) => resolve({ status: code ?? 125, stderr }));
  });
  const ready = new Promise<Ready | undefined>((resolve) => lines.once('close', () => resolve(told)));
  return {
    unfenced,
    ready,
    ended,
    kill: () => void child.kill('SIGTERM'),
    letGo: () => {
      report.destroy();
      line.destroy();
      child.unref();
    },
  };
}

/** Undefined for a line that is cut. */
function holderLine(text: string): HolderLine | undefined {
  try {
    return JSON.parse(text) as HolderLine;
  } catch {
    return undefined;
  }
}
