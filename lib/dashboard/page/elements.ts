/** Elements in one call. Texts are texts: nothing that comes from a machine is ever taken for HTML. */

type Properties = Readonly<Record<string, string | boolean | ((event: Event) => void)>>;

/** An element with attributes (a boolean one: there or not), listeners (`onclick`) and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: readonly (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (typeof value === 'boolean') element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** An element of index.html. */
export function byId(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element;
}

/** Only a change is written, so that what reads the page aloud is not told the same again. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export function button(label: string, onclick: () => void, more: Properties = {}): HTMLButtonElement {
  return make('button', { type: 'button', onclick, ...more }, label);
}
