/**
 * Chromium as the tests of the dashboard drive it: found on this machine (`npm run setup` installs it), without a window, and with its
 * pictures in test-output/. Where it is missing a test is skipped with that reason, or fails where the run promises it.
 */
import { accessSync, constants, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { chromium, type Browser, type Page } from 'playwright-core';
import { isPromised } from '../../lib/base/testing-promises.js';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome'];
const ROOT = path.resolve(import.meta.dirname, '../..');

const executable = (process.env['PATH'] ?? '')
  .split(path.delimiter)
  .flatMap((folder) => NAMES.map((name) => path.join(folder, name)))
  .find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });

/** Why the tests are skipped; undefined when they are to run. */
export const noBrowser =
  executable === undefined && !isPromised('chromium') ? 'Chromium is not installed: npm run setup, as root' : undefined;

/** @throws Error where there is none, or it does not start */
export function openBrowser(): Promise<Browser> {
  if (executable === undefined) throw new Error('Chromium is not installed, though this run promises it');
  // Tests run as root too, for whom Chromium has no sandbox; it sees no page but ours.
  return chromium.launch({
    executablePath: executable,
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
  });
}

/** A picture of all of the page, for people. */
export async function picture(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: path.join(pictureFolder(), `${name}.png`), fullPage: true });
}

/** An ordinary user may have no right to write into the checkout. */
function pictureFolder(): string {
  const folder = path.join(ROOT, 'test-output');
  try {
    mkdirSync(folder, { recursive: true });
    accessSync(folder, constants.W_OK);
    return folder;
  } catch {
    return tmpdir();
  }
}
