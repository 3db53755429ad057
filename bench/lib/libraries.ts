/** The shared libraries that a program needs. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/**
 * Paths, as the loader finds them; `folders` come before the system's.
 *
 * @throws Error that names what is missing.
 */
export async function librariesOf(program: string, folders: readonly string[] = []): Promise<string[]> {
  const env = { ...process.env, LD_LIBRARY_PATH: folders.join(':') };
  const { stdout } = await promisify(execFile)('ldd', [program], { env });
  const missing = [...stdout.matchAll(/(\S+) => not found/g)].map((match) => match[1]!);
  if (missing.length > 0) throw new Error(`${program} needs ${missing.join(', ')}`);
  return [...stdout.matchAll(/=> (\/\S+)/g)].map((match) => match[1]!);
}
