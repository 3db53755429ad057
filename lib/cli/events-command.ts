/** `events`: what happens to a machine, a line each as it happens, until its end. */
import type { MachineEvent } from '../control/index.js';
import type { AskContext } from './control-commands.js';
import { ExitStatus, statusOfSignal } from './exit-status.js';
import { pumpOutput } from './pump-output.js';
import { untilInterrupted } from './until-interrupted.js';

/** With `json` the lines are those of the control socket. */
export function eventsCommand(name: string, context: AskContext): Promise<number> {
  const { io, world, json } = context;
  return untilInterrupted(context, async (signal) => {
    const machine = await world.connect(name, signal);
    async function* lines(): AsyncGenerator<Uint8Array> {
      for await (const event of machine.events({ signal }))
        yield Buffer.from(json ? `${JSON.stringify(event)}\n` : `${event.at}  ${words(event)}\n`);
    }
    return (await pumpOutput(lines(), io.stdout)) === 'broken' ? statusOfSignal('SIGPIPE') : ExitStatus.OK;
  });
}

function words(event: MachineEvent): string {
  switch (event.type) {
    case 'state':
      return event.state;
    case 'agent':
      return `${event.agent} is there, on Linux ${event.release}`;
    case 'pit': {
      const { lagMs } = event.detail;
      return `guest time: ${event.what}${typeof lagMs === 'number' ? `, ${lagMs.toFixed(1)} ms behind` : ''}`;
    }
    case 'snapshot':
      return `snapshot ${event.dir}: ${savingWords(event)}`;
    case 'rebound':
      return `${event.device} has another backend; ${event.held} requests were held`;
    case 'ended':
      return `ended: ${event.reason}${event.status === undefined ? '' : `, status ${event.status}`}`;
    case 'lost':
      return `${event.count} events are left out: they came faster than they were read`;
  }
}

function savingWords(event: MachineEvent & { readonly type: 'snapshot' }): string {
  switch (event.what) {
    case 'started':
      return 'started';
    case 'progress':
      return `${Math.floor((100 * event.bytesDone) / Math.max(1, event.bytesTotal))} %`;
    case 'done':
      return `done, the guest stood for ${event.pauseMs.toFixed(1)} ms`;
    case 'failed':
      return `failed: ${event.message}`;
  }
}
