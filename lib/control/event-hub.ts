/**
 * What happens to a machine, for any number of those who listen: the hub is told by whoever knows, and keeps nothing. Times are put to
 * events here.
 */
import type { Clock } from '../base/clock.js';
import type { MachineEvent } from './event-schemas.js';
import type { ControlledMachine } from './target.js';

type WithoutTime<E> = E extends unknown ? Omit<E, 'at'> : never;
/** An event before its time is put to it. */
export type EventToTell = WithoutTime<MachineEvent>;

const PIT_EVENTS = ['catch-up', 'slow-down', 'nominal', 'storm', 'gave-up', 'stand-down'] as const;

export class EventHub {
  readonly #clock: Clock;
  readonly #listeners = new Set<(event: MachineEvent) => void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How many listen. */
  get size(): number {
    return this.#listeners.size;
  }

  tell(event: EventToTell): void {
    const timed = this.timed(event);
    for (const listener of [...this.#listeners]) listener(timed);
  }

  /** The same event, of now. */
  timed({ type, ...event }: EventToTell): MachineEvent {
    return { type, at: new Date(this.#clock.wallMs()).toISOString(), ...event } as MachineEvent;
  }

  /** Listeners must not throw. The result leaves. */
  on(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}

/** Has the hub told of what the machine itself says, as long as it lives. */
export function tellOf(machine: ControlledMachine, events: EventHub): void {
  machine.onState((state) => events.tell({ type: 'state', state }));
  for (const what of PIT_EVENTS) {
    machine.pit.on(what, (detail) => events.tell({ type: 'pit', what, detail: { ...detail } }));
  }
}
