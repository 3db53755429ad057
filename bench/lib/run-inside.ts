/** The half of a program that runs where Linux guests run: given its request as JSON, it prints its result as the last line. */
import path from 'node:path';
import { embeddedHost } from '#lib/host/index.js';

/** @param script of this folder, built. @throws Error when it ends with another status than 0 */
export async function runInside<Result>(script: string, request: object): Promise<Result> {
  const { status, stdout } = await embeddedHost.run(path.resolve(import.meta.dirname, script), {
    args: [JSON.stringify(request)],
    onStderr: (bytes) => void process.stderr.write(bytes),
  });
  if (status !== 0) throw new Error(`inside the embedded host: exit status ${status}`);
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Result;
}
