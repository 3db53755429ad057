import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { librariesOf } from './libraries.js';
import { standInLibraries, standInSource } from './left-out-libraries.js';

it('has the functions that are left out, in their versions, and no others', () => {
  const names =
    '                 U malloc@GLIBC_2.2.5\n                 U rbd_open@RBD_1\n                 U nbd_aio\n';
  expect(standInSource(names, ['rbd_', 'nbd_'])).toEqual({
    source: 'int rbd_open(void) { return -1; }\nint nbd_aio(void) { return -1; }\n',
    versions: 'RBD_1 { rbd_open; };\n',
  });
});

it('lets a program start whose library is not there', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-left-out-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const file = (name: string, text = '') => {
    const path = join(folder, name);
    if (text !== '') writeFileSync(path, text);
    return path;
  };
  const cc = (...args: string[]) => execFileSync('cc', ['-w', ...args]);
  const map = file('far.map', 'FAR_2 { far_away; };');
  const library = file('libfar.so.1');
  const far = file('far.c', 'int far_away(void) { return 7; }');
  cc('-shared', '-fPIC', '-Wl,-soname,libfar.so.1', `-Wl,--version-script=${map}`, '-o', library, far);
  const program = file('program');
  cc('-o', program, file('program.c', 'int main(void) { return far_away() == -1 ? 0 : 1; }'), library);
  rmSync(library);
  await expect(librariesOf(program, [folder])).rejects.toMatchObject({ code: 'ERR_SETUP' });

  await standInLibraries(program, { libraries: ['libfar.so.1'], functions: ['far_'] }, folder);

  expect(await librariesOf(program, [folder])).toContain(library);
  // Its status is 0 when the function has failed.
  execFileSync(program, { env: { LD_LIBRARY_PATH: folder } });
});
