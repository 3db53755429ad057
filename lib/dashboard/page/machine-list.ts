/** The list of machines, each with its state and, once a second, a line of figures. One is chosen. */
import { byId, make, setText } from './elements.js';
import { formatCount } from './format.js';
import type { MachineRow } from './protocol.js';
import type { Rates } from './rates.js';

interface Item {
  readonly element: HTMLLIElement;
  readonly choice: HTMLButtonElement;
  readonly state: HTMLElement;
  readonly figures: HTMLElement;
}

export class MachineList {
  readonly #items = new Map<string, Item>();
  readonly #onChoose: (name: string) => void;

  constructor(onChoose: (name: string) => void) {
    this.#onChoose = onChoose;
  }

  show(machines: readonly MachineRow[], chosen: string | undefined): void {
    const names = new Set(machines.map(({ name }) => name));
    for (const [name, { element }] of this.#items) {
      if (names.has(name)) continue;
      element.remove();
      this.#items.delete(name);
    }
    const list = byId('machines');
    for (const [at, { name, state }] of machines.entries()) {
      const item = this.#items.get(name) ?? this.#make(name);
      setText(item.state, state);
      item.state.className = `state state-${state}`;
      item.choice.setAttribute('aria-current', String(name === chosen));
      if (list.children[at] !== item.element) list.insertBefore(item.element, list.children[at] ?? null);
    }
    byId('no-machines').hidden = machines.length > 0;
  }

  showFigures(name: string, { lagMs, interruptsHz, exits, cpuShare }: Rates): void {
    const figures = this.#items.get(name)?.figures;
    if (figures === undefined) return;
    const text = `${formatCount(exits)} exits/s, ${formatCount(interruptsHz)} Hz, lag ${lagMs.toFixed(1)} ms, CPU ${(100 * cpuShare).toFixed(0)} %`;
    setText(figures, text);
  }

  #make(name: string): Item {
    const state = make('span', { class: 'state' });
    const figures = make('span', { class: 'figures' });
    const choice = make(
      'button',
      { type: 'button', class: 'machine-choice', onclick: () => this.#onChoose(name) },
      make('strong', {}, name),
      ' ',
      state,
      figures,
    );
    const item = { element: make('li', {}, choice), choice, state, figures };
    this.#items.set(name, item);
    return item;
  }
}
