/**
 * A small library in place of large ones that a program is linked with and that no guest uses: it has the functions that the
 * program wants of them, each in its version, and each fails. The loader asks for no more.
 */
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runTool } from './run.js';

export interface LeftOut {
  /** Names as the loader knows them, such as 'librbd.so.1'. */
  readonly libraries: readonly string[];
  /** What the names of their functions begin with, such as 'rbd_'. */
  readonly functions: readonly string[];
}

/**
 * Puts a library of each name into `folder`, for this program.
 *
 * @throws VmmError ERR_SETUP without a C compiler and its tools; AbortError.
 */
export async function standInLibraries(
  program: string,
  leftOut: LeftOut,
  folder: string,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const names = await runTool('nm', ['-D', '--undefined-only', program], options);
  const { source, versions } = standInSource(names, leftOut.functions);
  const files = { source: join(folder, '.left-out.c'), versions: join(folder, '.left-out.map') };
  await writeFile(files.source, source);
  await writeFile(files.versions, versions);
  const standIn = join(folder, '.left-out.so');
  const args = ['-shared', '-fPIC', '-w', `-Wl,--version-script=${files.versions}`, '-o', standIn, files.source];
  await runTool('cc', args, options);
  for (const library of leftOut.libraries) await copyFile(standIn, join(folder, library));
}

/** C and a version script of the linker for what `nm -D --undefined-only` says of a program. */
export function standInSource(names: string, prefixes: readonly string[]): { source: string; versions: string } {
  const byVersion = new Map<string, string[]>();
  const lines: string[] = [];
  for (const [, name = '', version] of names.matchAll(/\bU (\w+)(?:@+(\S+))?$/gm)) {
    if (!prefixes.some((prefix) => name.startsWith(prefix))) continue;
    lines.push(`int ${name}(void) { return -1; }\n`);
    if (version !== undefined) byVersion.set(version, [...(byVersion.get(version) ?? []), name]);
  }
  const versions = [...byVersion].map(([version, functions]) => `${version} { ${functions.join('; ')}; };\n`);
  return { source: lines.join(''), versions: versions.join('') };
}
