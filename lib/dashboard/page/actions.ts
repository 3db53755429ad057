/** What the page's buttons ask for, with the questions before and the notices after. */
import { askFor } from './dialog.js';
import type { Link } from './link.js';
import { notice } from './notices.js';
import type { Ask, SnapshotRow } from './protocol.js';

export type LifeChange = 'pause' | 'resume' | 'stop' | 'kill';

const MODES = [
  ['live', 'live: in rounds while it runs'],
  ['instant', 'instant: of the moment that it begins'],
  ['paused', 'paused: it stands meanwhile'],
] as const;

export class Actions {
  readonly #link: Link;

  constructor(link: Link) {
    this.#link = link;
  }

  async change(what: LifeChange, name: string): Promise<void> {
    if (what === 'kill') {
      const text = 'The guest ends at once, as by pulling the plug; what it has not written is lost.';
      const sure = await askFor(`Kill ${name}?`, text, { action: 'Kill', danger: true });
      if (sure === undefined) return;
    }
    await this.#do(`${what} ${name}`, { what, name });
  }

  async save(name: string, snapshots: readonly string[]): Promise<void> {
    const answers = await askFor(`Save ${name}`, 'A new snapshot in the folder; the machine goes on as it was.', {
      action: 'Save',
      fields: [
        { name: 'snapshot', label: 'Name of the snapshot', value: freshName(name, snapshots) },
        { name: 'mode', label: 'Mode', value: 'live', choices: MODES },
        {
          name: 'parent',
          label: "Parent: only what has changed since this machine's last snapshot is written",
          value: '',
          choices: [['', 'none: all of it'], ...snapshots.map((each) => [each, each] as const)],
        },
      ],
    });
    if (answers === undefined) return;
    const { snapshot = '', parent = '' } = answers;
    const mode = MODES.map(([each]) => each).find((each) => each === answers['mode']) ?? 'live';
    const from = parent === '' ? {} : { parent };
    await this.#do(`save ${name} as ${snapshot}`, { what: 'save', name, snapshot, mode, ...from });
  }

  async restore({ name: snapshot }: SnapshotRow, machines: readonly string[]): Promise<void> {
    const text = 'A machine of its own goes on from there; the snapshot stays as it is.';
    const answers = await askFor(`Restore ${snapshot}`, text, {
      action: 'Restore',
      fields: [{ name: 'name', label: 'Name of the machine', value: freshName(snapshot, machines) }],
    });
    if (answers === undefined) return;
    const { name = '' } = answers;
    await this.#do(`restore ${snapshot} as ${name}`, { what: 'restore', snapshot, name });
  }

  async delete({ name: snapshot, children }: SnapshotRow): Promise<void> {
    const names = children.map(({ name }) => name).join(', ');
    const text =
      children.length === 0
        ? 'Its files are deleted for good.'
        : `${names} take over what they need of it before it goes.`;
    const sure = await askFor(`Delete ${snapshot}?`, text, { action: 'Delete', danger: true });
    if (sure !== undefined) await this.#do(`delete ${snapshot}`, { what: 'delete', snapshot });
  }

  async #do(what: string, ask: Ask): Promise<void> {
    const shown = notice(what);
    shown.end(await this.#link.ask(ask, (text) => shown.progress(text)));
  }
}

/** The name itself, or with the first number behind it that is free. */
function freshName(name: string, taken: readonly string[]): string {
  for (let number = 1; ; number++) {
    const fresh = number === 1 ? name : `${name}-${number}`;
    if (!taken.includes(fresh)) return fresh;
  }
}
