/** A question to one of many machines: those that are gone, not ready or do not answer are cases here, no errors. */
import { Agent } from 'node:http';
import type { VmmError } from '../base/errors.js';
import { ControlClient } from './client.js';
import { clearDead, type MachinePlace, type MachineRecord } from './machine-folders.js';

/**
 * 'starting': its process is there and not ready; 'gone': it was killed, or has ended; 'unresponsive': it is there and does not
 * answer, or not as it should.
 */
export type Asked<T> =
  { readonly kind: 'answered'; readonly answer: T } | { readonly kind: 'starting' | 'gone' | 'unresponsive' };

/** Who asks all machines mostly does so again and again: half of a short question's time is its connection. Idle ones hold no process. */
const kept = new Agent({ keepAlive: true });

/** Gets a route's answer of JSON within `answerMs`; what a killed process has left is cleared on the way. Never rejects. */
export async function askMachine<T>(
  record: MachineRecord,
  path: string,
  { place, answerMs }: { readonly place: MachinePlace; readonly answerMs: number },
): Promise<Asked<T>> {
  try {
    const signal = AbortSignal.timeout(answerMs);
    return {
      kind: 'answered',
      answer: await new ControlClient(record, place, kept).request<T>('GET', path, { signal }),
    };
  } catch (error) {
    const { code } = error as VmmError;
    if (code === 'ERR_NO_MACHINE') return { kind: 'gone' };
    if (code === 'ERR_STATE') return { kind: 'starting' };
    // A process that has gone in the middle has left its name behind; one that lives does not answer as it should.
    return { kind: code !== 'ERR_ABORTED' && isGone(record.name, place) ? 'gone' : 'unresponsive' };
  }
}

function isGone(name: string, place: MachinePlace): boolean {
  try {
    return clearDead(name, place);
  } catch {
    return false;
  }
}
