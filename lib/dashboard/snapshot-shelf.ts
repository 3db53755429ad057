/**
 * The folder of snapshots that a dashboard was given: what is in it, again and again while somebody looks, and what can be done with it.
 * Names come checked (messages.ts): each is one folder in this one.
 */
import path from 'node:path';
import { VmmError } from '../base/errors.js';
import { TurnQueue } from '../base/turn-queue.js';
import { failureOf } from '../control/failures.js';
import type { SnapshotNode } from '../snapshot/index.js';
import type { Ask, ServerMessage, SnapshotRow } from './page/protocol.js';
import { Polled } from './polled.js';
import { reach } from './reach.js';
import type { DashboardWorld } from './world.js';

export type SnapshotsMessage = Extract<ServerMessage, { type: 'snapshots' }>;

const EVERY_MS = 2000;

export class SnapshotShelf {
  readonly folder: string;
  readonly contents: Polled<SnapshotsMessage>;
  readonly #world: DashboardWorld;
  /** One delete rewrites the children of its snapshot, which may be the next one's. */
  readonly #deletes = new TurnQueue();

  constructor(folder: string, world: DashboardWorld) {
    this.folder = folder;
    this.#world = world;
    this.contents = new Polled({ clock: world.clock, everyMs: EVERY_MS, ask: () => this.#look() });
  }

  /** @throws as RemoteMachine.snapshot, the store's delete and DashboardWorld.restore */
  async act(
    ask: Extract<Ask, { what: 'save' | 'restore' | 'delete' }>,
    { signal, onProgress }: { readonly signal: AbortSignal; readonly onProgress: (text: string) => void },
  ): Promise<void> {
    const dir = path.join(this.folder, ask.snapshot);
    try {
      switch (ask.what) {
        case 'save': {
          const { name, mode, parent } = ask;
          const machine = await reach(name, this.#world, signal);
          const from = parent === undefined ? {} : { parent: path.join(this.folder, parent) };
          await machine.snapshot(dir, { mode, ...from, signal });
          return;
        }
        case 'restore':
          return await this.#world.restore(dir, ask.name, { signal, onProgress });
        case 'delete':
          await this.#deletes.run(() => this.#world.store.delete(dir, { signal }), signal);
      }
    } finally {
      this.contents.refresh();
    }
  }

  async #look(): Promise<SnapshotsMessage> {
    try {
      const { store } = this.#world;
      const [roots, { broken }] = [await store.tree(this.folder), await store.list(this.folder)];
      return {
        type: 'snapshots',
        roots: roots.map(rowOf),
        broken: broken.map(({ name, error }) => ({ name, message: error.message })),
      };
    } catch (error) {
      return { type: 'snapshots', roots: [], broken: [], failure: failureOf(error) };
    }
  }
}

/** What there is to say where no folder was given. */
export function noShelf(): VmmError {
  return new VmmError('ERR_STATE', 'this dashboard was given no folder of snapshots', {
    cure: 'vivarium dashboard --snapshots DIR',
  });
}

function rowOf({ name, createdMs, memoryBytes, fileBytes, parentElsewhere, children }: SnapshotNode): SnapshotRow {
  return { name, createdMs, memoryBytes, fileBytes, parentElsewhere, children: children.map(rowOf) };
}
