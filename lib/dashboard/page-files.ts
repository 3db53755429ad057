/**
 * The files that the page consists of: its own, built into dist/dashboard/page, and those of the packages that draw for it, where npm has
 * put them. Only what is listed here is ever read, so no path of a request leads to another file.
 */
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { VmmError } from '../base/errors.js';

export interface PageFile {
  readonly path: string;
  readonly mediaType: string;
}

const MEDIA_TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** By the names under which the page's own modules ask for them (page/vendor). */
const VENDOR: Readonly<Record<string, string>> = {
  '/vendor/uplot.js': 'uplot/dist/uPlot.esm.js',
  '/vendor/uplot.css': 'uplot/dist/uPlot.min.css',
  '/vendor/xterm.js': '@xterm/xterm/lib/xterm.mjs',
  '/vendor/xterm.css': '@xterm/xterm/css/xterm.css',
  '/vendor/addon-fit.js': '@xterm/addon-fit/lib/addon-fit.mjs',
};

/** The built page, seen from lib/dashboard, dist/dashboard and dist/command alike. */
const PAGE_FOLDER = fileURLToPath(new URL('../../dist/dashboard/page/', import.meta.url));

/**
 * Files by the paths of their URLs.
 *
 * @throws VmmError ERR_SETUP where the page is not built or a package is not installed
 */
export function pageFiles(folder: string = PAGE_FOLDER): ReadonlyMap<string, PageFile> {
  const files = new Map<string, PageFile>();
  const add = (at: string, file: string): void => {
    const mediaType = MEDIA_TYPES[path.extname(file)];
    if (mediaType !== undefined) files.set(at, { path: file, mediaType });
  };
  try {
    for (const name of readdirSync(folder)) add(`/${name}`, path.join(folder, name));
    const { resolve } = createRequire(import.meta.url);
    for (const [at, specifier] of Object.entries(VENDOR)) add(at, resolve(specifier));
  } catch (cause) {
    throw new VmmError('ERR_SETUP', `the dashboard's page is not there: ${(cause as Error).message}`, {
      cause,
      cure: 'npm ci && npm run build:ts',
    });
  }
  const page = files.get('/index.html');
  if (page === undefined) {
    throw new VmmError('ERR_SETUP', "the dashboard's page is not built", { cure: 'npm run build:ts' });
  }
  files.delete('/index.html');
  files.set('/', page);
  return files;
}
