/**
 * Saves a machine: joins the way to save (snapshot/save.ts) with the machine, its dirty lineage, its pager and the writer of the
 * folder. One at a time; whatever ends it early, the machine goes on and nothing of the snapshot is left.
 */
import { VmmError } from '../../base/errors.js';
import { AbortError } from '../../base/errors.js';
import { PAGE_SIZE } from '../../base/units.js';
import { type AddressSpace, type GuestPager, groupRuns, requireIntercept, WriteIntercept } from '../../memory/index.js';
import { GROUP_BYTES, SnapshotReader, SnapshotWriter } from '../../snapshot/index.js';
import {
  type DirtyGroups,
  type GroupIntercept,
  type GroupWriter,
  type Saved,
  saveInstant,
  saveLive,
  savePaused,
} from '../../snapshot/save.js';
import { type DirtyLineage, type Epoch, groupsOf } from './dirty-lineage.js';
import type { Snapshot, SnapshotOptions } from './options.js';
import { MachineSubject, type SubjectMachine } from './subject.js';

export interface SaveMachine extends SubjectMachine {
  space(): AddressSpace;
  lineage(): DirtyLineage;
  /** Made when it is first needed. @throws VmmError ERR_SNAPSHOT_HOST */
  pager(): GuestPager;
  /** For each group how often it was used; undefined where nobody counted. */
  access(): Uint16Array | undefined;
}

/** @throws as Machine.snapshot */
export async function saveMachine(machine: SaveMachine, dir: string, options: SnapshotOptions): Promise<Snapshot> {
  const { mode = 'live', compress, maxPauseMs, track = true, signal, onProgress } = options;
  const { clock } = machine.config;
  const startNs = clock.nowNs();
  const space = machine.space();
  if (mode === 'instant') requireIntercept(space.backing);
  const lineage = machine.lineage();
  const parentId = options.parent === undefined ? undefined : await parentOf(options.parent, lineage);
  const parentDir = options.parent;
  const writer = await SnapshotWriter.create(dir, { memory: space, compress, parent: parentDir, signal, clock });
  let epoch: Epoch | undefined;
  try {
    const subject = new MachineSubject(machine, {
      generation: writer.id,
      folder: writer.draftFolder,
      onInstant: () => {
        if (epoch !== undefined) lineage.drop(epoch);
        epoch = track ? lineage.begin() : undefined;
      },
    });
    const changed =
      parentId === undefined ? undefined : (): Uint32Array => lineage.changedSince(parentId, parentDir ?? '');
    const groups = groupWriter(writer, onProgress);
    const common = { subject, writer: groups.writer, clock, signal, maxPauseMs, changed };
    let saved: Saved;
    if (mode === 'paused') saved = await savePaused(common);
    else if (mode === 'live') saved = await saveLive({ ...common, dirty: dirtyGroups(lineage, writer.groups) });
    else saved = await saveInstant({ ...common, intercept: intercept(machine.pager(), writer) });

    const state = [...saved.parts, ...(await subject.disks())];
    const { id, bytes } = await writer.commit({ state, config: {}, access: machine.access() });
    if (epoch === undefined) lineage.forget();
    else lineage.adopt(id, epoch);
    epoch = undefined;
    const { zeroGroups } = groups.totals();
    return {
      dir: writer.dir,
      id,
      stats: {
        pauseMs: saved.pauseMs,
        totalMs: Number(clock.nowNs() - startNs) / 1e6,
        pages: space.sizeBytes / PAGE_SIZE,
        zeroPages: Math.min(space.sizeBytes, zeroGroups * GROUP_BYTES) / PAGE_SIZE,
        bytesWritten: bytes,
        rounds: saved.rounds,
      },
    };
  } catch (error) {
    if (epoch !== undefined) lineage.drop(epoch);
    await writer.abort().catch(() => undefined);
    throw error;
  }
}

/** @throws VmmError ERR_SNAPSHOT_PARENT, ERR_SNAPSHOT; SystemError */
async function parentOf(dir: string, lineage: DirtyLineage): Promise<string> {
  const reader = await SnapshotReader.open(dir);
  const { id } = reader;
  await reader.close();
  lineage.requireParent(id, dir);
  return id;
}

function groupWriter(writer: SnapshotWriter, onProgress: SnapshotOptions['onProgress']) {
  let totals = { zeroGroups: 0 };
  const ported: GroupWriter = {
    groups: writer.groups,
    bufferGroups: writer.bufferGroups,
    write: async (groups, signal) => {
      throwIfAborted(signal);
      totals = await writer.writeGroups(groups, onProgress);
      throwIfAborted(signal);
    },
    copy: (groups) => writer.copyGroups(groups),
    drained: async () => {
      totals = await writer.drained();
    },
  };
  return { writer: ported, totals: () => totals };
}

function dirtyGroups(lineage: DirtyLineage, groups: number): DirtyGroups {
  const rounds = lineage.rounds();
  return { take: () => groupsOf(rounds.take(), groups), close: () => rounds.close() };
}

function intercept(pager: GuestPager, writer: SnapshotWriter): GroupIntercept {
  const writes = new WriteIntercept(pager);
  return {
    protectAhead: (groups) => {
      writes.prepare({ bufferGroups: COPY_GROUPS });
      return writes.arm(runsOf(groups));
    },
    arm: (groups) => {
      writes.begin(writer.sinkForPager().sink(), runsOf(groups));
      return Promise.resolve();
    },
    finished: async (signal) => {
      const release = (): void => writes.release();
      signal?.addEventListener('abort', release, { once: true });
      try {
        throwIfAborted(signal);
        writes.walk();
        await writes.ended();
      } catch (error) {
        throwIfAborted(signal);
        throw error;
      } finally {
        signal?.removeEventListener('abort', release);
      }
    },
    release: () => {
      writes.release();
      return Promise.resolve();
    },
  };

  function runsOf(groups: Uint32Array): Uint32Array {
    const wanted = new Set(groups);
    return groupRuns(writer.groups, (group) => wanted.has(group));
  }
}

/** What the guest may write at once while the writer has no room: 16 MiB. */
const COPY_GROUPS = 256;

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new AbortError(signal);
}

/** One after another, or refused. */
export function busyError(name: string): VmmError {
  return new VmmError('ERR_STATE', `${name}: another snapshot is being taken`, {
    cure: "whenBusy: 'queue' waits for it",
  });
}
