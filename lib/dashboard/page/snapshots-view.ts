/** The tree of snapshots of the dashboard's folder, each with what can be done with it. */
import { button, byId, make, setText } from './elements.js';
import { formatBytes } from './format.js';
import type { ServerMessage, SnapshotRow } from './protocol.js';

export interface SnapshotsViewActions {
  onRestore(snapshot: SnapshotRow): void;
  onDelete(snapshot: SnapshotRow): void;
}

export class SnapshotsView {
  readonly #actions: SnapshotsViewActions;
  #names: readonly string[] = [];

  constructor(actions: SnapshotsViewActions) {
    this.#actions = actions;
  }

  /** Of all that are in the folder. */
  get names(): readonly string[] {
    return this.#names;
  }

  /** `folder`: null where the dashboard was given none. */
  showFolder(folder: string | null): void {
    byId('snapshots').hidden = folder === null;
    setText(byId('snapshots-folder'), folder ?? '');
  }

  show({ roots, broken, failure }: Extract<ServerMessage, { type: 'snapshots' }>): void {
    this.#names = roots.flatMap(namesOf);
    const lines = broken.map(({ name, message }) => make('p', { class: 'broken' }, `${name}: ${message}`));
    if (failure !== undefined) lines.push(make('p', { class: 'broken' }, failure.message));
    if (roots.length + lines.length === 0) lines.push(make('p', { class: 'hint' }, 'None yet.'));
    const focused = document.activeElement?.id ?? '';
    byId('snapshot-tree').replaceChildren(this.#list(roots, 'tree'), ...lines);
    // A tree that was drawn anew does not take the focus away.
    if (focused.startsWith('snapshot-')) document.getElementById(focused)?.focus();
  }

  #list(snapshots: readonly SnapshotRow[], classes = ''): HTMLElement {
    return make('ul', { class: classes }, ...snapshots.map((each) => this.#item(each)));
  }

  #item(snapshot: SnapshotRow): HTMLElement {
    const { name, createdMs, fileBytes, memoryBytes, parentElsewhere, children } = snapshot;
    const more = `${new Date(createdMs).toLocaleString()}; ${formatBytes(fileBytes)} of files, ${formatBytes(memoryBytes)} of memory`;
    return make(
      'li',
      {},
      make('strong', {}, name),
      make('p', { class: 'hint' }, parentElsewhere ? `${more}; its parent is elsewhere` : more),
      button('Restore', () => this.#actions.onRestore(snapshot), {
        id: `snapshot-restore-${name}`,
        'aria-label': `Restore ${name}`,
      }),
      ' ',
      button('Delete', () => this.#actions.onDelete(snapshot), {
        id: `snapshot-delete-${name}`,
        class: 'danger',
        'aria-label': `Delete ${name}`,
      }),
      ...(children.length === 0 ? [] : [this.#list(children)]),
    );
  }
}

function namesOf({ name, children }: SnapshotRow): string[] {
  return [name, ...children.flatMap(namesOf)];
}
