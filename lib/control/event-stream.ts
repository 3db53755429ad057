/**
 * A machine's events as a stream of JSON, a line each: first its state, then what happens, last how it ended. Of a reader that does not
 * keep up events are left out, and he is told how many, and what the state is by then; little is kept for him.
 */
import { PassThrough, type Readable } from 'node:stream';
import type { EventToTell } from './event-hub.js';
import type { MachineEvent } from './event-schemas.js';
import type { ControlTarget, FinalStatus } from './target.js';

/** Ends with the machine, and with whoever reads. */
export function eventStream({ machine, events, ending }: ControlTarget, signal: AbortSignal): Readable {
  const output = new PassThrough();
  let lost = 0;
  const write = (event: MachineEvent): void => void output.write(`${JSON.stringify(event)}\n`);
  const tell = (event: EventToTell): void => write(events.timed(event));
  const tellLost = (): void => {
    if (lost === 0 || !output.writable) return;
    tell({ type: 'lost', count: lost });
    tell({ type: 'state', state: machine.state });
    lost = 0;
  };
  const leaving = [
    events.on((event) => {
      if (output.writableNeedDrain) lost++;
      else write(event);
    }),
  ];
  const end = (): void => {
    for (const leave of leaving) leave();
    output.end();
  };
  output.on('drain', tellLost);
  output.once('close', end);
  signal.addEventListener('abort', end, { once: true });
  tell({ type: 'state', state: machine.state });
  const onEnd = ({ reason, code, detail, status, outcome }: FinalStatus): void => {
    if (!output.writable) return;
    // However slow he is: it is the last.
    tellLost();
    tell({
      type: 'ended',
      reason,
      ...(code !== undefined && { code }),
      ...(detail !== undefined && { detail }),
      ...(status !== undefined && { status }),
      ...(outcome !== undefined && { outcome }),
    });
    end();
  };
  leaving.push(ending.on(onEnd));
  return output;
}
