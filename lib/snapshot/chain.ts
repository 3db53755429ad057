/**
 * A snapshot with all that it stands on: manifests and indexes of its chain, each checked, their memory files open, and one
 * table of where every group is. What is open goes on working when a snapshot is deleted meanwhile.
 */
import type { FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { readdir } from 'node:fs/promises';
import { VmmError } from '../base/errors.js';
import { GroupCodec } from '../kvm/native-snapshot.js';
import { allEnded, OpenFolder } from './files.js';
import { damaged, FileName, groupCount, Limit } from './format.js';
import { decodeIndex, GroupTable, indexBytes } from './group-index.js';
import { decodeManifest, digestOf, type Manifest, type ManifestPart } from './manifest.js';

/** One snapshot of a chain. */
export interface Link {
  readonly path: string;
  readonly manifest: Manifest;
  readonly table: GroupTable;
  readonly memory: FileHandle;
  /** What tells the memory's file from all others, as it was when it was opened. */
  readonly memoryIdentity: string;
}

export async function readManifest(folder: OpenFolder): Promise<Manifest> {
  const bytes = await folder.read(FileName.MANIFEST, { maxBytes: Limit.MANIFEST_BYTES });
  return decodeManifest(bytes, folder.file(FileName.MANIFEST));
}

/** A file whose checksum the manifest has. @throws VmmError ERR_SNAPSHOT */
export async function readPart(folder: OpenFolder, name: string, part: ManifestPart): Promise<Uint8Array> {
  const bytes = await folder.read(name, part);
  if (digestOf(bytes) !== part.sha256) throw damaged(folder.file(name), 'its checksum is wrong');
  return bytes;
}

/** @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION; SystemError. */
export async function openLink(folder: OpenFolder, known?: Manifest): Promise<Link> {
  const manifest = known ?? (await readManifest(folder));
  const { memoryBytes, parts } = manifest;
  // Before room for it is made.
  if (parts.index.sizeBytes !== indexBytes(memoryBytes))
    throw damaged(folder.file(FileName.INDEX), 'its length is wrong');
  // Beside one another: whoever restores waits for each turn.
  const opening = folder.openFile(FileName.MEMORY, parts.memory);
  try {
    const [index, { handle, identity }] = await allEnded<[Uint8Array, Awaited<typeof opening>]>([
      readPart(folder, FileName.INDEX, parts.index),
      opening,
    ]);
    const table = decodeIndex(
      index,
      { memoryBytes, memoryFileBytes: parts.memory.sizeBytes, hasParent: manifest.parent !== null },
      folder.file(FileName.INDEX),
    );
    return { path: folder.path, manifest, table, memory: handle, memoryIdentity: identity };
  } catch (error) {
    await opening.then(({ handle }) => handle.close()).catch(() => undefined);
    throw error;
  }
}

/** The snapshot of an open folder, then its parents. @throws as openLink; VmmError ERR_SNAPSHOT_PARENT. */
export async function openChain(folder: OpenFolder, manifest?: Manifest): Promise<Link[]> {
  const links: Link[] = [];
  try {
    links.push(await openLink(folder, manifest));
    for (;;) {
      const child = links.at(-1)!;
      if (child.manifest.parent === null) return links;
      if (links.length >= Limit.CHAIN) throw damaged(folder.path, `more than ${Limit.CHAIN} snapshots in one chain`);
      const parent = await openParent(child);
      links.push(parent);
      if (parent.manifest.memoryBytes !== child.manifest.memoryBytes)
        throw notTheParent(child, 'its memory is of another size');
      if (links.slice(0, -1).some((link) => link.manifest.id === parent.manifest.id)) {
        throw notTheParent(child, 'it stands on itself');
      }
    }
  } catch (error) {
    await closeChain(links);
    throw error;
  }
}

export async function closeChain(links: readonly Link[]): Promise<void> {
  for (const link of links) await link.memory.close();
}

async function openParent(child: Link): Promise<Link> {
  const folder = await findParent(child.path, child.manifest);
  try {
    return await openLink(folder);
  } finally {
    await folder.close();
  }
}

/** The parent's folder: where it was, or else among the child's neighbours. @throws VmmError ERR_SNAPSHOT_PARENT */
async function findParent(childPath: string, child: Manifest): Promise<OpenFolder> {
  const { id, content, path: hint } = child.parent!;
  const hinted = path.resolve(childPath, hint);
  const beside = path.dirname(path.resolve(childPath));
  const neighbours = await readdir(beside).catch(() => []);
  let other: string | undefined;
  for (const candidate of [
    hinted,
    ...neighbours.filter((name) => !name.startsWith('.')).map((name) => path.join(beside, name)),
  ]) {
    const folder = await OpenFolder.open(candidate).catch(() => undefined);
    const manifest = folder && (await readManifest(folder).catch(() => undefined));
    if (folder && manifest?.id === id && manifest.content === content) return folder;
    if (manifest !== undefined && (candidate === hinted || manifest.id === id)) other = candidate;
    await folder?.close();
  }
  throw other === undefined
    ? parentError(childPath, `its parent is missing: ${hinted}`)
    : parentError(childPath, `${other} is not the snapshot that it was made from`);
}

function notTheParent(child: Link, why: string): VmmError {
  return parentError(child.path, `what should be its parent is not: ${why}`);
}

function parentError(childPath: string, what: string): VmmError {
  return new VmmError('ERR_SNAPSHOT_PARENT', `${childPath}: ${what}`, {
    cure: 'put the parent back beside it, under any name',
  });
}

/** Where a group's bytes are: the link's number, and the group of that link that has the row. */
export function locate(links: readonly Link[], group: number): { link: number; owner: number } {
  let link = 0;
  const content = links[0]!.table.contentCrc(group);
  for (;;) {
    const { table, path: at } = links[link]!;
    if (table.contentCrc(group) !== content)
      throw notTheParent(links[link - 1]!, `group ${group} of ${at} is another one`);
    const codec = table.codec(group);
    if (codec === GroupCodec.SAME) return { link, owner: table.offset(group) };
    if (codec !== GroupCodec.PARENT) return { link, owner: group };
    link++;
  }
}

/** One flat table for the native reader: each row zero, raw or zstd, in the file of its link. */
export function resolveChain(links: readonly Link[]): GroupTable {
  const [{ table, manifest }] = links as [Link];
  if (links.length > 1) {
    const resolved = new GroupTable(groupCount(manifest.memoryBytes));
    for (let group = 0; group < resolved.groups; group++) {
      const { link, owner } = locate(links, group);
      resolved.take(group, links[link]!.table, owner, link);
    }
    return resolved;
  }
  const duplicates = [...table.specialGroups()].filter((group) => table.codec(group) === GroupCodec.SAME);
  if (duplicates.length === 0) return table;
  const resolved = new GroupTable(table.bytes.slice());
  for (const group of duplicates) resolved.take(group, table, table.offset(group), 0);
  return resolved;
}
