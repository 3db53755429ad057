/**
 * The dashboard's page: joins the connection with the list, the machine that is chosen and the snapshots. It watches machines only while it
 * is seen: all of them slowly, the chosen one closely.
 */
import { Actions } from './actions.js';
import { byId, make, setText } from './elements.js';
import { History } from './history.js';
import { Link } from './link.js';
import { MachineList } from './machine-list.js';
import { MachineView } from './machine-view.js';
import type { MachineRow, ServerMessage } from './protocol.js';
import { SnapshotsView } from './snapshots-view.js';

/** States in which a machine can be watched. */
const WATCHED = ['created', 'running', 'paused'];
/** A watch that could not be opened is tried again. */
const RETRY_MS = 2000;

class Page {
  readonly #link = new Link({
    onState: (connected) => this.#showConnection(connected),
    onMessage: (message) => this.#take(message),
  });
  readonly #actions = new Actions(this.#link);
  readonly #list = new MachineList((name) => this.#choose(name));
  readonly #snapshots = new SnapshotsView({
    onRestore: (snapshot) => void this.#actions.restore(snapshot, this.#names()),
    onDelete: (snapshot) => void this.#actions.delete(snapshot),
  });
  /** Of the slow beat, for the list. */
  readonly #glances = new Map<string, History>();
  #machines: readonly MachineRow[] = [];
  #hasFolder = false;
  #chosen: string | undefined;
  #view: MachineView | undefined;
  #history = new History();

  constructor() {
    document.addEventListener('visibilitychange', () => this.#watch());
    setInterval(() => this.#watch(), RETRY_MS);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#view?.restyle());
  }

  #names(): string[] {
    return this.#machines.map(({ name }) => name);
  }

  #showConnection(connected: boolean): void {
    const element = byId('connection');
    setText(element, connected ? 'connected' : 'no connection: the dashboard has ended, or is being started');
    element.classList.toggle('lost', !connected);
  }

  #take(message: ServerMessage): void {
    switch (message.type) {
      case 'hello':
        this.#hasFolder = message.snapshots !== null;
        return this.#snapshots.showFolder(message.snapshots);
      case 'machines':
        return this.#showMachines(message.machines);
      case 'snapshots':
        return this.#snapshots.show(message);
      case 'stats': {
        const { name, beat, stats } = message;
        if (beat === 'fast') {
          if (name === this.#view?.name && this.#history.take(stats)) this.#view.draw();
          return;
        }
        const glance = this.#glances.get(name) ?? new History();
        this.#glances.set(name, glance);
        if (glance.take(stats) && glance.latest !== undefined) this.#list.showFigures(name, glance.latest);
        return;
      }
      default:
    }
  }

  #showMachines(machines: readonly MachineRow[]): void {
    this.#machines = machines;
    for (const name of this.#glances.keys()) {
      if (!machines.some((machine) => machine.name === name)) this.#glances.delete(name);
    }
    const [first] = machines;
    if (this.#chosen === undefined && first !== undefined) this.#chosen = first.name;
    this.#list.show(machines, this.#chosen);
    this.#showChosen();
    this.#watch();
  }

  #choose(name: string): void {
    this.#chosen = name;
    this.#list.show(this.#machines, name);
    this.#showChosen();
    this.#watch();
  }

  #showChosen(): void {
    const row = this.#machines.find(({ name }) => name === this.#chosen);
    if (row === undefined) return this.#view?.ended();
    if (this.#view?.name === row.name && this.#view.id === row.id) return this.#view.showRow(row);
    this.#view?.close();
    this.#history = new History();
    const { name } = row;
    this.#view = new MachineView(row, {
      link: this.#link,
      actions: this.#actions,
      history: this.#history,
      onSave: this.#hasFolder ? () => void this.#actions.save(name, this.#snapshots.names) : undefined,
    });
    byId('machine').replaceChildren(make('div', {}, this.#view.element));
    this.#view.open();
  }

  /** Brings what is watched in line with what is looked at. */
  #watch(): void {
    const isSeen = document.visibilityState === 'visible';
    for (const { name, state } of this.#machines) {
      const isWatched = isSeen && WATCHED.includes(state);
      this.#set(name, 'slow', isWatched);
      this.#set(name, 'fast', isWatched && name === this.#chosen);
    }
  }

  #set(name: string, beat: 'slow' | 'fast', wanted: boolean): void {
    if (wanted === this.#link.isWatched(name, beat)) return;
    if (wanted) this.#link.watch(name, beat);
    else this.#link.unwatch(name, beat);
  }
}

new Page();
