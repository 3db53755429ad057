/** Questions to the user, in the browser's own modal dialogs: focus stays in them, Escape leaves, and it goes back to where it was. */
import { button, make } from './elements.js';

export interface Field {
  readonly name: string;
  readonly label: string;
  readonly value: string;
  /** A choice of these, as value and text, in place of a text. */
  readonly choices?: readonly (readonly [value: string, text: string])[];
}

/** Resolves to the values by name, undefined when the user thinks better of it. */
export function askFor(
  title: string,
  text: string,
  { action, fields = [], danger = false }: { action: string; fields?: readonly Field[]; danger?: boolean },
): Promise<Record<string, string> | undefined> {
  return new Promise((resolve) => {
    const inputs = fields.map(({ name, value, choices }) => {
      if (choices === undefined) return make('input', { name, value, required: true, autocomplete: 'off' });
      const options = choices.map(([choice, shown]) => make('option', { value: choice }, shown));
      return make('select', { name }, ...options);
    });
    const labels = fields.map(({ label }, at) => make('label', {}, label, inputs[at] ?? ''));
    const dialog = make('dialog', { 'aria-label': title });
    const go = make('button', { class: danger ? 'danger' : 'primary', type: 'submit' }, action);
    const form = make(
      'form',
      { method: 'dialog' },
      make('h2', {}, title),
      make('p', {}, text),
      ...labels,
      make(
        'div',
        { class: 'bar' },
        button('Cancel', () => dialog.close('')),
        go,
      ),
    );
    let values: Record<string, string> | undefined;
    form.addEventListener('submit', () => {
      values = Object.fromEntries(inputs.map((input) => [input.name, input.value.trim()]));
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(values);
    });
    dialog.append(form);
    document.body.append(dialog);
    dialog.showModal();
  });
}
