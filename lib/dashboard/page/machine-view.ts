/** One machine: its buttons, the progress of saves, its panels, and its console. Drawn at most once a frame, and not while nobody sees it. */
import type { Actions, LifeChange } from './actions.js';
import { ConsoleView } from './console-view.js';
import { button, make, setText } from './elements.js';
import { formatBytes } from './format.js';
import type { History } from './history.js';
import type { Link } from './link.js';
import { devicePanel, exitsPanel, memoryPanel, timePanel, type Panel } from './panels.js';
import type { MachineRow, WatchedStats } from './protocol.js';

/** In which states a button does something. */
const CHANGES: readonly (readonly [what: LifeChange, label: string, states: readonly string[]])[] = [
  ['pause', 'Pause', ['running']],
  ['resume', 'Resume', ['paused']],
  ['stop', 'Stop', ['running', 'paused']],
  ['kill', 'Kill', ['created', 'running', 'paused', 'unresponsive']],
];

export interface MachineViewOptions {
  readonly link: Link;
  readonly actions: Actions;
  readonly history: History;
  /** Opens the question for a snapshot; undefined where there is no folder for one. */
  readonly onSave: (() => void) | undefined;
}

export class MachineView {
  readonly name: string;
  /** Of the machine, which is another one under the same name when it differs. */
  readonly id: string;
  readonly element: HTMLElement;
  readonly #history: History;
  readonly #state = make('span', { class: 'state', role: 'status' });
  readonly #about = make('p', { class: 'figures-line' });
  readonly #saves = make('div');
  readonly #panels: Panel[];
  readonly #place = make('div', { class: 'panels' });
  readonly #console: ConsoleView;
  readonly #buttons: readonly (readonly [HTMLButtonElement, readonly string[]])[];
  readonly #devices = new Set<string>();
  #frame: number | undefined;

  constructor(row: MachineRow, { link, actions, history, onSave }: MachineViewOptions) {
    this.name = row.name;
    this.id = row.id;
    this.#history = history;
    this.#buttons = CHANGES.map(([what, label, states]) => {
      const more = what === 'kill' ? { class: 'danger' } : {};
      return [button(label, () => void actions.change(what, row.name), more), states] as const;
    });
    const buttons: HTMLElement[] = this.#buttons.map(([element]) => element);
    if (onSave !== undefined) buttons.push(button('Take a snapshot', onSave));
    this.#panels = [timePanel(), exitsPanel(), memoryPanel()];
    this.#console = new ConsoleView(row.name, link);
    this.#place.append(...this.#panels.map(({ element }) => element));
    this.element = make(
      'div',
      {},
      make('div', { class: 'bar' }, make('h2', {}, row.name), this.#state, ...buttons),
      this.#about,
      this.#saves,
      make('div', { class: 'panels' }, this.#console.element),
      this.#place,
    );
    this.showRow(row);
  }

  /** Once its element stands in the page. */
  open(): void {
    this.#console.open();
    this.draw();
  }

  showRow({ state, id, pid, host, since }: MachineRow): void {
    setText(this.#state, state);
    this.#state.className = `state state-${state}`;
    setText(this.#about, `${id}, process ${pid}, ${host}, since ${new Date(since).toLocaleString()}`);
    for (const [element, states] of this.#buttons) element.disabled = !states.includes(state);
  }

  /** There is something new. */
  draw(): void {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = undefined;
      const { stats } = this.#history;
      if (stats !== undefined) this.#drawStats(stats);
      for (const panel of this.#panels) panel.draw(this.#history);
    });
  }

  restyle(): void {
    for (const panel of this.#panels) panel.restyle();
  }

  /** The machine has gone: what was drawn stays to be read. */
  ended(): void {
    setText(this.#state, 'ended');
    this.#state.className = 'state';
    for (const [element] of this.#buttons) element.disabled = true;
  }

  close(): void {
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame);
    this.#console.close();
    for (const panel of this.#panels) panel.close();
  }

  #drawStats({ devices, saves = [] }: WatchedStats): void {
    for (const { id, class: deviceClass } of devices) {
      if ((deviceClass !== 'block' && deviceClass !== 'network') || this.#devices.has(id)) continue;
      this.#devices.add(id);
      const panel = devicePanel(id, deviceClass);
      this.#panels.push(panel);
      this.#place.append(panel.element);
    }
    if (saves.length === 0 && this.#saves.childElementCount === 0) return;
    this.#saves.replaceChildren(
      ...saves.map(({ dir, bytesDone, bytesTotal }) => {
        const text = `Saving ${dir}: ${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`;
        const bar = make('progress', { max: String(bytesTotal), value: String(bytesDone), 'aria-label': text });
        return make('div', { class: 'save' }, make('p', { class: 'figures-line' }, text), bar);
      }),
    );
  }
}
