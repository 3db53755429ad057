/** The user's machines with the state that each tells; who was killed is cleared away and not among them. */
import { askMachine } from './ask.js';
import {
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
  const asked = listRecords(place).map(async (record): Promise<ListedMachine | undefined> => {
    const asked = await askMachine<Summary>(record, '/v1/machine', { place, answerMs });
    if (asked.kind === 'gone') return undefined;
    return { ...record, state: asked.kind === 'answered' ? asked.answer.state : asked.kind };
  });
  return (await Promise.all(asked)).filter((machine) => machine !== undefined);
}

/** Those that have ended and are remembered, the last one first. */
export function listEndedMachines(place: MachinePlace = defaultPlace()): EndedRecord[] {
  return listEnded(place).sort((a, b) => (a.endedAt < b.endedAt ? 1 : -1));
}
