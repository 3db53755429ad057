/** Files of this machine as the engine of disks sees them where Linux guests run. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { guestScriptReport } from '../lib/guest-script.js';

it('a read that the kernel has interrupted is made again', { timeout: 300_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-host-files-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const request = { file: join(folder, 'disk'), requests: 6400 };
  expect(await guestScriptReport('host-file.mjs', request, { paths: ['file'] })).toEqual({
    engine: 'io_uring',
    wrong: [],
  });
});
