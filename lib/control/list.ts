/** The user's machines with the state that each tells; who was killed is cleared away and not among them. */
import type { VmmError } from '../base/errors.js';
import { ControlClient } from './client.js';
import {
  clearDead,
  defaultPlace,
  listEnded,
  listRecords,
  type EndedRecord,
  type MachinePlace,
  type MachineRecord,
} from './machine-folders.js';
import type { Summary } from './schemas.js';

export interface ListedMachine extends MachineRecord {
  /** 'starting': its process is there and not ready; 'unresponsive': it does not answer. */
  readonly state: Summary['state'] | 'starting' | 'unresponsive';
}

export interface ListOptions {
  readonly place?: MachinePlace;
  /** How long a machine may take to answer. Default 3000. */
  readonly answerMs?: number;
}

export async function listMachines({ place = defaultPlace(), answerMs = 3000 }: ListOptions = {}): Promise<
  ListedMachine[]
> {
  const asked = listRecords(place).map((record) => ask(record, place, answerMs));
  return (await Promise.all(asked)).filter((machine) => machine !== undefined);
}

/** Those that have ended and are remembered, the last one first. */
export function listEndedMachines(place: MachinePlace = defaultPlace()): EndedRecord[] {
  return listEnded(place).sort((a, b) => (a.endedAt < b.endedAt ? 1 : -1));
}

async function ask(record: MachineRecord, place: MachinePlace, answerMs: number): Promise<ListedMachine | undefined> {
  try {
    const signal = AbortSignal.timeout(answerMs);
    const { state } = await new ControlClient(record, place).request<Summary>('GET', '/v1/machine', { signal });
    return { ...record, state };
  } catch (error) {
    const { code } = error as VmmError;
    if (code === 'ERR_NO_MACHINE') return undefined;
    if (code === 'ERR_STATE') return { ...record, state: 'starting' };
    // A process that has gone in the middle has left its name behind; one that lives does not answer as it should.
    return code !== 'ERR_ABORTED' && isGone(record.name, place) ? undefined : { ...record, state: 'unresponsive' };
  }
}

function isGone(name: string, place: MachinePlace): boolean {
  try {
    return clearDead(name, place);
  } catch {
    return false;
  }
}
