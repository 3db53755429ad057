/** Child processes of the kvm group: each plays a named scene, must end with 0 and say nothing on stderr. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { expect } from 'vitest';

export interface SceneOptions {
  /** The file of this folder that has the scenes. Default machine-child.mjs. */
  readonly script?: string;
  /** How many descriptors it may open. Default 1024. */
  readonly descriptors?: number | undefined;
}

/** Plays a scene; its last line of output, which is JSON. */
export function playScene(scene: string, options: SceneOptions = {}): Promise<Record<string, unknown>> {
  const { script = 'machine-child.mjs', descriptors = 1024 } = options;
  const command = `ulimit -n ${descriptors}; exec "$0" --expose-gc "$1" "$2"`;
  return new Promise((resolve, reject) => {
    const args = ['-c', command, process.execPath, join(import.meta.dirname, script), scene];
    execFile('sh', args, (error, stdout, stderr) => {
      if (error) {
        const ended = error.signal ?? `status ${error.code}`;
        reject(new Error(`${scene} ended with ${ended}: ${stderr}`, { cause: error }));
        return;
      }
      expect(stderr).toBe('');
      const last = stdout.trim().split('\n').at(-1) ?? '';
      resolve(last === '' ? {} : (JSON.parse(last) as Record<string, unknown>));
    });
  });
}
