/**
 * The guest agent's binary: the one that the package brought along, if it is of these sources, else compiled once from
 * guest/*.c for the guest (static, x86-64); kept in the cache by the hash of its sources. Knows nothing of what the agent does.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { VmmError } from '../base/errors.js';
import { Cache } from './cache.js';
import { GUEST_FOLDER, type ImageOptions } from './options.js';
import { runTool } from './run.js';

export interface GuestAgent {
  readonly path: string;
  readonly key: string;
}

const ENTRY = 'agent';
const FLAGS = ['-std=gnu11', '-static', '-Os', '-s', '-Wall', '-Wextra', '-ffunction-sections', '-Wl,--gc-sections'];

/**
 * @throws VmmError ERR_SETUP when it is not in the cache and there is no C compiler, or it does not compile; AbortError.
 */
export async function guestAgent(options: ImageOptions & { guestFolder?: string } = {}): Promise<GuestAgent> {
  const cache = options.cache ?? new Cache();
  const folder = options.guestFolder ?? GUEST_FOLDER;
  const files = (await readdir(folder)).filter((file) => /\.[ch]$/.test(file)).sort();
  const sources = files.filter((file) => file.endsWith('.c'));
  if (sources.length === 0) throw new VmmError('ERR_SETUP', `${folder} holds no source of the guest agent`);
  const hash = createHash('sha256').update(FLAGS.join(' '));
  for (const file of files) hash.update(`\0${file}\0`).update(await readFile(join(folder, file)));
  const key = hash.digest('hex').slice(0, 16);
  const entry = await cache.use(
    ENTRY,
    key,
    async (draft) => {
      const output = join(draft, 'vivarium-agent');
      const cameAlong = join(folder, '..', 'prebuilds', 'guest', `vivarium-agent-${key}`);
      if (existsSync(cameAlong)) return copyFile(cameAlong, output);
      options.log?.log('info', 'compiling the guest agent');
      const args = [...FLAGS, '-o', output, ...sources.map((file) => join(folder, file))];
      await runTool(compiler(), args, { signal: options.signal, cure: 'npm run setup' });
    },
    { signal: options.signal },
  );
  return { path: join(entry, 'vivarium-agent'), key };
}

function compiler(): string {
  for (const name of ['cc', 'gcc', 'clang']) {
    for (const folder of (process.env['PATH'] ?? '/usr/bin').split(':')) {
      if (folder !== '' && existsSync(join(folder, name))) return join(folder, name);
    }
  }
  throw new VmmError('ERR_SETUP', 'the guest agent is not compiled yet and there is no C compiler', {
    cure: 'npm run setup (it installs gcc and libc6-dev as root on Debian)',
  });
}
