/**
 * Takes a parent out of a chain: the child gets what it needs of it, and stands on the grandparent from then on, or on
 * nothing. The new child is written beside and changes places with the old one in one step. Its id and content digest
 * stay, so that its own children still know it.
 */
import { copyFile, open, type FileHandle } from 'node:fs/promises';
import { constants } from 'node:fs';
import path from 'node:path';
import { AbortError } from '../base/errors.js';
import { naming, writeAt } from '../base/system-call.js';
import { crc32c, lockFile, renameExchange } from '../memory/index.js';
import { GroupCodec } from '../kvm/native-snapshot.js';
import { closeChain, locate, openChain, readPart, type Link } from './chain.js';
import { copyDiskFile, diskFilesOf } from './disk-files.js';
import { Draft } from './draft.js';
import { OpenFolder, readExactly, removeFolder, syncFolder, writeNew } from './files.js';
import { damaged, FileName } from './format.js';
import { encodeIndex, GroupTable, type Row } from './group-index.js';
import { holdAlone } from './hold.js';
import { digestOf, encodeManifest, type Manifest } from './manifest.js';
import { decodeState } from './state-file.js';

/**
 * @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_PARENT; ERR_SNAPSHOT_REFUSED while a child of the child is being saved; SystemError;
 *   AbortError. The child is as it was then.
 */
export async function mergeParent(childDir: string, signal?: AbortSignal): Promise<void> {
  const folder = await OpenFolder.open(childDir);
  let links: Link[] = [];
  let draft: Draft | undefined;
  let memory: FileHandle | undefined;
  let alone: FileHandle | undefined;
  try {
    alone = await holdAlone(childDir);
    links = await openChain(folder);
    draft = await Draft.make(childDir);
    const [child, parent] = links as [Link, Link];
    const name = draft.file(FileName.MEMORY);
    // Locked before it grows: who sweeps drafts takes one without a lock for abandoned.
    const handle = await naming(name, () => open(name, 'wx+', 0o600));
    memory = handle;
    lockFile(handle.fd, 'exclusive');
    await naming(name, () => copyFile(path.join(childDir, FileName.MEMORY), name, constants.COPYFILE_FICLONE));
    const { table, end } = await copyGroups(links, handle, name, signal);
    await naming(name, () => handle.sync());
    const { size } = await naming(name, () => handle.stat());
    if (size !== end) throw damaged(name, `it has ${size} bytes instead of ${end}`);

    const index = encodeIndex(table, end);
    await writeNew(draft.file(FileName.INDEX), index);
    const { parts } = child.manifest;
    const state = await readPart(folder, FileName.STATE, parts.state);
    await writeNew(draft.file(FileName.STATE), state);
    for (const disk of diskFilesOf(decodeState(state, folder.file(FileName.STATE)))) {
      await copyDiskFile(childDir, draft.folder, disk, signal);
    }
    if (parts.access)
      await writeNew(draft.file(FileName.ACCESS), await readPart(folder, FileName.ACCESS, parts.access));
    const manifest: Manifest = {
      ...child.manifest,
      parent: grandparent(child, parent),
      parts: {
        ...parts,
        index: { sizeBytes: index.length, sha256: digestOf(index) },
        memory: { sizeBytes: end },
      },
    };
    await writeNew(draft.file(FileName.MANIFEST), encodeManifest(manifest));
    await syncFolder(draft.folder);
    if (signal?.aborted === true) throw new AbortError(signal);
    renameExchange(draft.folder, childDir);
    try {
      await syncFolder(path.dirname(childDir));
    } catch (error) {
      // What is deleted below must not be what a crash could bring back.
      renameExchange(draft.folder, childDir);
      throw error;
    }
  } finally {
    await alone?.close();
    await memory?.close();
    await closeChain(links);
    await folder.close();
    // What was the child, or what was to become it.
    if (draft) await removeFolder(draft.folder);
  }
}

function grandparent(child: Link, parent: Link): Manifest['parent'] {
  const above = parent.manifest.parent;
  if (above === null) return null;
  return { ...above, path: path.relative(child.path, path.resolve(parent.path, above.path)) };
}

/** Appends what the child has in its parent alone; stored bytes are moved as they are. */
async function copyGroups(
  links: readonly Link[],
  memory: FileHandle,
  file: string,
  signal: AbortSignal | undefined,
): Promise<{ table: GroupTable; end: number }> {
  const [child, parent] = links as [Link, Link];
  const table = new GroupTable(child.table.bytes.slice());
  let end = child.manifest.parts.memory.sizeBytes;
  /** By the parent's group that has the bytes: the first of the child's groups with them. */
  const copied = new Map<number, number>();
  for (let group = 0; group < table.groups; group++) {
    if (table.codec(group) !== GroupCodec.PARENT) continue;
    if (signal?.aborted === true) throw new AbortError(signal);
    const at = locate(links, group);
    // Of an older one: it stays where it is.
    if (at.link !== 1) continue;
    const row = parent.table.row(at.owner);
    const twin = copied.get(at.owner);
    if (row.codec === GroupCodec.ZERO) {
      table.set(group, row);
    } else if (twin !== undefined) {
      table.set(group, same(twin, row));
    } else {
      const bytes = await readStored(parent, row);
      await naming(file, () => writeAt(memory, bytes, end));
      table.set(group, { ...row, offset: end });
      copied.set(at.owner, group);
      end += bytes.length;
    }
  }
  return { table, end };
}

function same(owner: number, row: Row): Row {
  return { codec: GroupCodec.SAME, offset: owner, storedBytes: 0, storedCrc: 0, contentCrc: row.contentCrc };
}

async function readStored(link: Link, row: Row): Promise<Uint8Array> {
  const file = path.join(link.path, FileName.MEMORY);
  const bytes = await readExactly(link.memory, row.offset, row.storedBytes, file);
  if (crc32c(bytes) !== row.storedCrc) throw damaged(file, `the group at byte ${row.offset} has a wrong checksum`);
  return bytes;
}
