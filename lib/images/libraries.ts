/** The shared libraries that a program of this system, or one that is unpacked somewhere, needs to run. */
import { VmmError } from '../base/errors.js';
import { runTool } from './run.js';

/**
 * Paths, as the loader finds them; `folders` come before the system's.
 *
 * @throws VmmError ERR_SETUP that names what is missing.
 */
export async function librariesOf(program: string, folders: readonly string[] = []): Promise<string[]> {
  const stdout = await runTool('ldd', [program], { env: { LD_LIBRARY_PATH: folders.join(':') } });
  const missing = [...stdout.matchAll(/(\S+) => not found/g)].map((match) => match[1]!);
  if (missing.length > 0) throw new VmmError('ERR_SETUP', `${program} needs ${missing.join(', ')}`);
  return [...stdout.matchAll(/=> (\/\S+)/g)].map((match) => match[1]!);
}
